"""Which windows parity is measured on: of everybody, every gesture and all of the time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.package import Package
from embridge.training.plan import StudyPlan
from embridge.training.study import Progress, apply_plan, read_all, users_of

WINDOWS = 10_000


@dataclass(frozen=True)
class ParityWindows:
    """Windows as the encoder sees them, and whose they are.

    inputs: (N, C, T) float32; users, gestures: one name per window; source: where they come from;
    available: how many the source holds
    """

    inputs: NDArray[np.float32]
    users: list[str]
    gestures: list[str]
    tier: str
    source: str
    available: int


def parity_windows(
    package: Package,
    data: Path | None = None,
    count: int = WINDOWS,
    tier: str = "T1",
    progress: Progress | None = None,
) -> ParityWindows:
    """Windows of all users and gestures in a folder, spread evenly, or the package's golden ones.

    At most `count`; in tier T1 a user without a profile stays in T0. Raises ConfigError for an
    unknown tier and when there are no windows.
    """
    if tier not in ("T0", "T1"):
        raise ConfigError(f"tier {tier!r}: expected T0 or T1")
    labels = package.manifest.labels
    if data is None and tier != "T1":
        raise ConfigError("the golden windows are of tier T1; give recordings with --data for T0")
    if data is None:
        golden = package.golden()
        inputs = golden["windows"].astype(np.float32)[:count]
        gestures = [labels[int(label)] for label in golden["labels"][: len(inputs)]]
        users = ["golden"] * len(inputs)
        return ParityWindows(inputs, users, gestures, tier, "golden", len(golden["windows"]))
    recordings = read_all(data, progress)
    everybody = {"train_users": (), "val_users": (), "test_users": tuple(users_of(recordings))}
    plan = StudyPlan.model_validate(package.manifest.config["plan"]).model_copy(update=everybody)
    study = apply_plan(plan, recordings)
    windows = study.windows(plan.test_users, plan.labels, plan.hop, need_pose=False)
    if not len(windows):
        raise ConfigError(
            f"{data}: no window of {plan.window} samples within one gesture out of "
            f"{', '.join(plan.labels)}; use recordings of these gestures"
        )
    cells = windows.user * len(plan.labels) + windows.label
    chosen = windows.select(spread(cells, count))
    profiles = study.profiles if tier == "T1" else {}
    return ParityWindows(
        chosen.encoder_input(np.arange(len(chosen)), plan.front_end, profiles),
        [chosen.users[user] for user in chosen.user],
        [plan.labels[label] for label in chosen.label],
        tier,
        data.name,
        len(windows),
    )


def spread(cells: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` indices, as many from every cell as it has, evenly spaced within each.

    cells: (N,) number of the cell of every item, items of a cell in their order in time
    """
    _, cell, size = np.unique(cells, return_inverse=True, return_counts=True)
    order = np.argsort(cell, kind="stable")
    within = np.arange(len(cells)) - np.repeat(np.cumsum(size) - size, size)
    quota = np.zeros_like(size)
    while (missing := min(count, len(cells)) - quota.sum()) > 0:
        room = np.flatnonzero(quota < size)
        quota[room[:missing]] += max(1, missing // len(room))
        quota = np.minimum(quota, size)
    sizes, quotas = np.repeat(size, size), np.repeat(quota, size)
    # Item i of n is one of q when i q / n passes a whole number.
    keep = (within * quotas) // sizes != ((within + 1) * quotas) // sizes
    return np.sort(order[keep])

"""Zero-shot evaluation: k nearest pose embeddings, balanced accuracy, intervals over users.

Protocol of CPEP and EMBridge: queries of seen gestures against the seen gestures' poses, queries of
unseen gestures against the unseen ones'; "all" (generalised zero-shot) uses every gesture's poses.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embridge.device.decision import Gallery, Voter
from embridge.device.errors import ConfigError
from embridge.device.frontend import UserProfile
from embridge.training.study import Study
from embridge.training.windows import WindowSet

Queries = Callable[[NDArray[np.float32]], NDArray[np.generic]]  # (N, C, T) -> (N, D) or (N, M, D)
Scalar = TypeVar("Scalar", bound=np.generic)
RESAMPLES = 1000
CHUNK = 1024  # windows held at once while they are embedded


@dataclass(frozen=True, slots=True)
class Score:
    """Balanced accuracy over windows with a 95 % interval; `per_class` is each gesture's recall.

    The interval resamples users and, within each, the repetitions of every gesture: neighbouring
    windows overlap and would make it too narrow if they counted as independent. Where a user has
    made a gesture only once, stretches of one window's length take the place of repetitions.
    """

    balanced_accuracy: float
    ci95: tuple[float, float]
    chance: float
    windows: int
    per_class: dict[str, float]

    def json(self) -> dict[str, Any]:
        """Plain values for a report."""
        return asdict(self)


@dataclass(frozen=True)
class TestSet:
    """Test windows as the encoder sees them, in one tier.

    read: indices (B,) -> encoder input (B, C, T); windows: labels, users and trials of the N
    windows
    """

    read: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    windows: WindowSet
    tier: str
    groups: dict[str, list[str]]  # "seen", "unseen", "all" -> gestures
    labels: tuple[str, ...]

    @cached_property
    def inputs(self) -> NDArray[np.float32]:
        """All windows at once, (N, C, T); `embedded` does not need them so."""
        return self.read(np.arange(len(self.windows)))

    def embedded(self, embed: Callable[[NDArray[np.float32]], NDArray[Scalar]]) -> NDArray[Scalar]:
        """Embeddings of all windows, (B, C, T) -> (B, ...) at a time; memory for CHUNK windows."""
        return in_chunks(len(self.windows), lambda index: embed(self.read(index)))


def make_test_set(study: Study, tier: str, limit: int | None = None, seed: int = 0) -> TestSet:
    """Windows of users that nothing was trained on, or `limit` of them at random.

    ConfigError when there are none.
    """
    return _test_set(study, study.plan.strangers, tier, limit, seed)


def known_users_test_set(study: Study, tier: str, limit: int | None = None) -> TestSet | None:
    """What an official split also tests: gestures held out, of users trained on; None: nothing."""
    plan = study.plan
    known = tuple(user for user in plan.test_users if user not in plan.strangers)
    return _test_set(study, known, tier, limit, 0) if known else None


def _test_set(
    study: Study, users: tuple[str, ...], tier: str, limit: int | None, seed: int
) -> TestSet:
    windows, plan = study.test_windows(), study.plan
    asked = [number for number, user in enumerate(windows.users) if user in users]
    windows = windows.select(np.isin(windows.user, asked))
    if not len(windows):
        raise ConfigError(
            "no test windows: expected recordings of users other than "
            f"{', '.join(plan.train_users)} with gestures among {', '.join(plan.labels)}"
        )
    if limit and limit < len(windows):
        chosen = np.random.default_rng(seed).choice(len(windows), limit, replace=False)
        windows = windows.select(np.sort(chosen))
    profiles = study.profiles if tier == "T1" else {}
    if tier == "T1":
        require_profiles(windows, profiles)
    groups = {"seen": plan.seen, "unseen": list(plan.unseen)}
    return TestSet(
        lambda index: windows.encoder_input(index, plan.front_end, profiles),
        windows,
        tier,
        groups | {"all": plan.seen + list(plan.unseen)},
        plan.labels,
    )


def require_profiles(windows: WindowSet, profiles: Mapping[str, UserProfile]) -> None:
    """ConfigError when a user of these windows has no T1 profile."""
    if without := {windows.users[u] for u in np.unique(windows.user)} - profiles.keys():
        raise ConfigError(
            f"tier T1: no unlabelled EMG of a seen gesture to make a profile of "
            f"{', '.join(sorted(without))} from; use tier T0 or add recordings"
        )


def in_chunks(count: int, embed: Callable[[NDArray[np.int64]], NDArray[Scalar]]) -> NDArray[Scalar]:
    """embed(indices (B,)) -> (B, ...) for 0 .. count - 1, at most CHUNK at a time."""
    parts = [embed(np.arange(start, min(start + CHUNK, count))) for start in range(0, count, CHUNK)]
    return np.concatenate(parts)


def predict(queries: NDArray[np.generic], gallery: Gallery, k: int) -> NDArray[np.int64]:
    """Label of each query by vote of its k nearest poses; queries: (N, D) or (N, M, D)."""
    voter = Voter(gallery, k)
    return np.array([voter.vote(query).label for query in queries], np.int64)


def zero_shot(
    test: TestSet, queries: NDArray[np.generic], gallery: Gallery, k: int
) -> dict[str, Score]:
    """Scores of the groups "seen", "unseen" and "all"; queries belong to test.inputs in order."""
    scores = {}
    for group, gestures in test.groups.items():
        numbers = [test.labels.index(gesture) for gesture in gestures]
        mask = np.isin(test.windows.label, numbers)
        if not mask.any():
            continue
        predicted = predict(queries[mask], gallery.subset(gestures), k)
        scores[group] = score(test.windows.select(mask), predicted, test.labels, len(gestures))
    return scores


def score(
    windows: WindowSet, predicted: NDArray[np.int64], labels: tuple[str, ...], classes: int
) -> Score:
    """Balanced accuracy of predictions with its interval; chance is one in `classes`."""
    right = predicted == windows.label
    present = np.unique(windows.label)
    recalls = {labels[c]: float(right[windows.label == c].mean()) for c in present}
    return Score(
        balanced_accuracy=float(np.mean(list(recalls.values()))),
        ci95=_interval(windows, right),
        chance=1 / classes,
        windows=len(windows),
        per_class=recalls,
    )


def _interval(windows: WindowSet, right: NDArray[np.bool_], seed: int = 0) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 of the balanced accuracy under two-stage resampling."""
    rng = np.random.default_rng(seed)
    users, classes = np.unique(windows.user), np.unique(windows.label)
    drawn = rng.multinomial(len(users), np.full(len(users), 1 / len(users)), size=RESAMPLES)
    hits = np.zeros((RESAMPLES, len(classes)))
    total = np.zeros_like(hits)
    for u, user in enumerate(users):
        for c, label in enumerate(classes):
            cell = (windows.user == user) & (windows.label == label)
            if not cell.any():
                continue
            _, trial = np.unique(independent_units(windows, cell), return_inverse=True)
            size = np.bincount(trial)
            good = np.bincount(trial, right[cell])
            times = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), size=RESAMPLES)
            hits[:, c] += drawn[:, u] * (times @ good)
            total[:, c] += drawn[:, u] * (times @ size)
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = np.nanmean(np.where(total > 0, hits / total, np.nan), axis=1)
    low, high = np.percentile(accuracy, [2.5, 97.5])
    return float(low), float(high)


def independent_units(windows: WindowSet, cell: NDArray[np.bool_]) -> NDArray[np.int64]:
    """What counts as independent among one user's windows of one gesture."""
    trial = windows.trial[cell]
    if len(np.unique(trial)) > 1:
        return trial
    return np.asarray(windows.start[cell] // windows.window)


def cosine(found: NDArray[np.generic], reference: NDArray[np.generic]) -> dict[str, float]:
    """Cosine of matching rows (N, D): mean, 1st percentile, minimum."""
    a, b = found.astype(np.float64), reference.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    values = (a * b).sum(axis=1) / np.maximum(norms, 1e-12)
    return {
        "mean": float(values.mean()),
        "p01": float(np.percentile(values, 1)),
        "min": float(values.min()),
    }

"""`embridge eval --probe`: linear probe and few-shot on the frozen features of a run.

Needs labels and no hand pose, so that Myo-class recordings can be judged too: of the channels and
rate the run was trained on, with gestures of their own.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.benchmarks.evaluation import (
    TIERS,
    DataName,
    check_run_stage,
    read_for,
    study_of,
)
from embridge.device.errors import ConfigError
from embridge.device.outline import Outline
from embridge.device.recordings import REST
from embridge.training.evaluate import in_chunks, require_profiles
from embridge.training.models import Models, batched, load_models
from embridge.training.paper.confusion import UNITS, Truth, cautions, columns
from embridge.training.paper.probe import (
    PER_USER_AND_GESTURE,
    REPEATS,
    FewShot,
    Labelled,
    Probe,
    few_shot,
    probe_by_halves,
    probe_from,
    thinned,
)
from embridge.training.plan import StudyPlan
from embridge.training.run_folder import RunFolder, open_run
from embridge.training.study import Study
from embridge.training.windows import WindowSet

Read = Callable[[WindowSet], NDArray[np.float32]]  # N windows -> features (N, D)
POSE = "pose encoder"


@dataclass(frozen=True)
class ProbeRow:
    """One group of gestures ("seen" or "unseen") by the features of one encoder."""

    encoder: str
    group: str
    gestures: tuple[str, ...]
    labels: tuple[str, ...]  # of the confusion counts, those not in the group included
    probe: Probe
    shots: FewShot


@dataclass(frozen=True)
class ProbeReport:
    """Rows for the encoder of a run, and for its pose encoder where the recordings have poses."""

    target: str
    method: str
    stage: str
    tier: str
    data: DataName
    rows: tuple[ProbeRow, ...]

    def row(self, group: str, encoder: str | None = None) -> ProbeRow | None:
        """The row of this group; by default of the run's own encoder."""
        wanted = encoder or self.stage
        return next((r for r in self.rows if (r.encoder, r.group) == (wanted, group)), None)

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "target": self.target,
            "method": self.method,
            "stage": self.stage,
            "tier": self.tier,
            "data": {"name": self.data.name, "synthetic": self.data.synthetic},
            "rows": [_row_json(row) for row in self.rows],
        }

    def text(self) -> str:
        """What was run on what, and one line for each row."""
        cells = [["features", "gestures", "chance", *_HEAD, "probe's labels are from"]]
        cells += [_row_cells(row) for row in self.rows]
        tier = "" if self.stage == POSE else f"tier {self.tier} ({TIERS[self.tier]}) for the EMG; "
        lines = [
            f"{self.target} ({self.method}), {self.stage}, on {self.data}: logistic regression on "
            f"frozen features, {tier}labels beyond it as the last column says",
            "Balanced accuracy per user, averaged [95 % over users]; LP: linear probe. n-shot: "
            f"labelled repetitions (r) or windows (w) of the tested user, mean of {REPEATS} draws, "
            "and how many users have enough of them.",
            *cautions(min(len(row.probe.users) for row in self.rows)),
        ]
        return "\n".join([*lines, "", columns(cells)])


_HEAD = ("LP, windows", "LP, repetitions", "1-shot", "2-shot", "5-shot")


def probe(target: Path, data: Path, stage: str, tier: str) -> ProbeReport:
    """Probe a run's encoder on recordings with labels; raises a leaf of EmbridgeError."""
    if not target.is_dir():
        raise ConfigError(
            f"{target}: a probe reads the features of a trained run: expected the folder of a run, "
            "got a file or nothing; packages are evaluated without --probe"
        )
    return probe_run(open_run(target), data, stage, tier)


def probe_run(run: RunFolder, data: Path, stage: str, tier: str) -> ProbeReport:
    """Rows of the encoder and, with poses, of the pose encoder; `stage` also POSE, for it alone."""
    models, recordings = load_models(run), read_for(run, data)
    study = study_of(labelled_plan(run.plan, recordings), recordings)
    rows: list[ProbeRow] = []
    if stage != POSE:
        check_run_stage(stage)
        rows += _rows(study, stage, _emg_features(study, models, stage, tier), need_pose=False)
    if "pose" in models.parts and all(r.head.pose is not None for r in recordings):
        rows += _rows(study, POSE, lambda w: _pose_features(w, models), need_pose=True)
    return ProbeReport(
        run.path.name, models.method, stage, tier, DataName.of(data, recordings), tuple(rows)
    )


def labelled_plan(plan: StudyPlan, recordings: Sequence[Outline]) -> StudyPlan:
    """The plan with these recordings' gestures; those that training did not know are unseen.

    Users of another data set are others, even when they are named alike.
    """
    names = dict.fromkeys(name for r in recordings for name in r.head.gestures)
    new = tuple(name for name in names if name not in plan.labels)
    known = names.keys() & {*plan.labels}
    changes: dict[str, Any] = {"labels": plan.labels + new, "unseen": plan.unseen + new}
    if not known - {REST} or any(r.head.source != plan.source for r in recordings):
        changes |= {"train_users": (), "val_users": (), "files": {}}
    return plan.model_copy(update=changes)


def _emg_features(study: Study, models: Models, stage: str, tier: str) -> Read:
    encoder = models.base.features if stage == "base" else models.watch.embed
    profiles = study.profiles if tier == "T1" else {}

    def read(windows: WindowSet) -> NDArray[np.float32]:
        if tier == "T1":
            require_profiles(windows, profiles)
        return in_chunks(
            len(windows),
            lambda index: batched(
                encoder, windows.encoder_input(index, study.plan.front_end, profiles)
            ),
        )

    return read


def _pose_features(windows: WindowSet, models: Models) -> NDArray[np.float32]:
    return in_chunks(len(windows), lambda index: batched(models.pose.features, windows.pose(index)))


def _rows(study: Study, encoder: str, read: Read, *, need_pose: bool) -> list[ProbeRow]:
    plan, rows = study.plan, []
    for group, gestures in (("seen", plan.seen), ("unseen", list(plan.unseen))):
        test = study.windows(plan.strangers, gestures, plan.hop, need_pose=need_pose, split="test")
        made = tuple(plan.labels[label] for label in np.unique(test.label))
        if len(made) < 2:
            continue
        labelled = Labelled(read(test), Truth.of(test))
        teachers = _teachers(study, made, group, need_pose)
        if teachers is None:
            result = probe_by_halves(labelled, len(plan.labels))
        else:
            taught = Labelled(read(teachers), Truth.of(teachers))
            taught_by = f"{len(plan.train_users)} users of the encoder's training"
            result = probe_from(taught, labelled, len(plan.labels), taught_by)
        shots = few_shot(labelled, plan.window)
        rows.append(ProbeRow(encoder, group, made, plan.labels, result, shots))
    if not rows:
        raise ConfigError(
            "a probe needs at least 2 gestures, held for a window and longer, of users that the "
            f"encoder was not trained on; got {len(plan.strangers)} such users: add recordings"
        )
    return rows


def _teachers(
    study: Study, gestures: tuple[str, ...], group: str, need_pose: bool
) -> WindowSet | None:
    """Training users' windows of seen gestures; None where the test users must teach each other."""
    if group == "unseen":
        return None
    plan = study.plan
    windows = study.windows(
        plan.train_users, gestures, plan.hop, need_pose=need_pose, split="train"
    )
    return windows.select(thinned(Truth.of(windows))) if len(windows) else None


def _row_json(row: ProbeRow) -> dict[str, Any]:
    figures = {unit: row.probe.figure(number) for number, unit in enumerate(UNITS)}
    return {
        "features": row.encoder,
        "group": row.group,
        "gestures": list(row.gestures),
        "labels": list(row.labels),
        "chance": 1 / len(row.gestures),
        "labels_from": row.probe.taught_by,
        "probe_windows_per_user_and_gesture": PER_USER_AND_GESTURE,
        "linear_probe": {unit: f.json() if f else None for unit, f in figures.items()},
        "confusion": row.probe.counts[0].sum(axis=0).tolist(),
        "few_shot": row.shots.json(),
    }


def _row_cells(row: ProbeRow) -> list[str]:
    probed = [row.probe.figure(number) for number in range(len(UNITS))]
    unit = row.shots.unit[0]
    shots = [
        f"{f.brief()} {unit}, {len(f.per_user)} users" if f else "-"
        for f in row.shots.figures.values()
    ]
    return [
        row.encoder,
        f"{row.group} ({len(row.gestures)})",
        f"{1 / len(row.gestures):.3f}",
        *(f.brief() if f else "-" for f in probed),
        *shots,
        row.probe.taught_by,
    ]

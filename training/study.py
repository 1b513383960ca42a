"""A study: recordings split by user and gesture, read through the device's own front-end.

Users are split into training, validation and test, or files by the official split of the data set;
some gestures are unseen: no EMG of them is used for anything but the test, and their poses only
fill the gallery. Samples stay on disk, in the recordings or, where those cannot be read in pieces,
in copies in `data.cache`; memory holds labels by runs, 20 bytes a window, and `data.cache_mb`.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError, RecordingError
from embridge.device.frontend import UserProfile, settling_rows
from embridge.device.outline import Outline, outline_of
from embridge.device.recordings import REST, UNLABELLED, Recording
from embridge.training.config import Config, DataConfig
from embridge.training.less_data import part_of
from embridge.training.material import Material
from embridge.training.plan import (
    FileSplit,
    StudyPlan,
    choose_pose_scaling,
    choose_unseen,
    samples,
    split_users,
)
from embridge.training.reading import read_all, users_of
from embridge.training.signals import Signal, calibrated, is_seen, spans_of
from embridge.training.splits import SPLITS, Split, read_split
from embridge.training.statistics import (
    Progress,
    measure_band,
    measure_profiles,
    population_front_end,
    pose_statistics,
    required_pose_statistics,
)
from embridge.training.windows import NormalisedWindows, WindowSet, cut_windows

__all__ = ["Progress", "Study", "apply_plan", "make_study", "read_all", "users_of"]

CACHE_MB = 512


@dataclass(frozen=True)
class Study:
    """A plan and its windows. `profiles`: T1 profile of every user, by name."""

    plan: StudyPlan
    signals: list[Signal]
    profiles: dict[str, UserProfile]

    def windows(
        self,
        users: Iterable[str],
        gestures: Iterable[str],
        hop: int,
        *,
        need_pose: bool,
        split: str | None = None,
    ) -> WindowSet:
        """Windows of these users and gestures, every `hop` samples; of one split or of all."""
        cut = cut_windows(
            self.signals, list(users), self.plan.window, hop, need_pose=need_pose, split=split
        )
        return cut.select(np.isin(cut.label, self.plan.numbers(gestures)))

    def training_windows(self) -> WindowSet:
        """Seen gestures and rest of the training users, or the share of them to be used."""
        windows = self._paired(self.plan.train_users, "train")
        return part_of(windows, self.plan.share, self.plan.share_seed)

    def validation_windows(self) -> WindowSet:
        """Seen gestures and rest of the validation users."""
        return self._paired(self.plan.val_users, "val")

    def material(self) -> Material:
        """What the encoders of a run are trained and validated on."""
        train, val = (
            NormalisedWindows(windows, self.plan.front_end, self.profiles)
            for windows in (self.training_windows(), self.validation_windows())
        )
        return Material(train, val, self.plan.ring, self.plan.is_envelope)

    def _paired(self, users: Iterable[str], split: str) -> WindowSet:
        plan = self.plan
        gestures = [g for g in plan.labels if g not in plan.unseen]
        windows = self.windows(users, gestures, plan.train_hop, need_pose=True, split=split)
        if not len(windows):
            raise ConfigError(
                f"no windows of {', '.join(users)}: expected seen gestures held for "
                f"{1000 * plan.window / plan.rate_hz:g} ms with valid hand pose; "
                "make data.window_ms shorter or add recordings"
            )
        return windows

    def test_windows(self) -> WindowSet:
        """Seen and unseen gestures of the test users, calibration rows and rest left out."""
        gestures = [g for g in self.plan.labels if g != REST]
        return self.windows(
            self.plan.test_users, gestures, self.plan.hop, need_pose=False, split="test"
        )

    def test_groups(self, windows: WindowSet) -> NDArray[np.str_]:
        """(N,) what is new about each test window: "user", "stage" or "user_stage".

        As the official split says; where whole users are held out, by its gesture.
        """
        if self.plan.files:
            return np.array([signal.group for signal in self.signals])[windows.signal]
        unseen = np.isin(windows.label, self.plan.numbers(self.plan.unseen))
        return np.where(unseen, "user_stage", "user")


def make_study(
    config: Config,
    recordings: Sequence[Recording | Outline],
    data_name: str,
    progress: Progress | None = None,
) -> Study:
    """Split, and fit the front-end and the scale of poses on the training users.

    Raises ConfigError when there are too few users or gestures, RecordingError without pose.
    """
    data = config.data
    split = read_split(data, Path(data.path))
    files = split.files if split else {}
    outlines = [o for o in _outlines(recordings) if not files or o.name in files]
    widths = {outline.require_pose(): outline.name for outline in outlines}
    if len(widths) > 1:
        got = " and ".join(f"{width} in {name}" for width, name in widths.items())
        raise RecordingError(
            f"expected 'glove' or 'joint_angles' of one width, got {got}; put recordings of one "
            "kind into one folder, or set data.glove_sensors=18 for gloves of 18 and 22 sensors"
        )
    first = outlines[0].head
    train, val, test = _split(data, outlines, files)
    training = [
        o for o in outlines if (files[o.name].split == "train" if files else o.user in train)
    ]
    labels = _labels([o for o in outlines if o.user in train])
    unseen = _unseen(data, split, labels)
    front_end = population_front_end(config.front_end, training, set(unseen), progress)
    offset, scale = required_pose_statistics(training, set(unseen), progress)
    plan = StudyPlan(
        data_name=data_name,
        synthetic=any(o.head.synthetic for o in outlines),
        source=first.source,
        rate_hz=first.rate_hz,
        channels=first.emg.shape[1],
        joints=offset.size,
        unit=first.emg_unit,
        is_envelope=first.is_envelope,
        ring=first.ring or first.emg.shape[1],
        window=samples(data.window_ms, first.rate_hz),
        hop=samples(data.hop_ms, first.rate_hz),
        train_hop=samples(data.train_hop_ms, first.rate_hz),
        labels=labels,
        unseen=unseen,
        train_users=train,
        val_users=val,
        test_users=test,
        pose_scaling=choose_pose_scaling(data, first),
        pose_offset=tuple(offset.tolist()),
        pose_scale=tuple(scale.tolist()),
        front_end=front_end,
        files=files,
        share=data.share,
        share_seed=config.optim.seed,
    )
    return apply_plan(_aligned(plan, outlines, data), outlines, progress, data.cache_mb)


def _aligned(plan: StudyPlan, outlines: Sequence[Outline], data: DataConfig) -> StudyPlan:
    """With the training users' band in the front-end, where electrodes are to be aligned."""
    if data.align == "none":
        return plan
    training = [o for o in outlines if o.user in plan.train_users]
    signals = apply_plan(plan, training, cache_mb=data.cache_mb).signals
    band = measure_band(plan.front_end, signals, plan.ring, reflect=data.align == "reflection")
    return plan.model_copy(update={"front_end": plan.front_end.model_copy(update={"band": band})})


def apply_plan(
    plan: StudyPlan,
    recordings: Sequence[Recording | Outline],
    progress: Progress | None = None,
    cache_mb: int = CACHE_MB,
) -> Study:
    """Split recordings as a plan says, the same data or other data of the same kind."""
    outlines = _outlines(recordings)
    scales = _pose_scales(plan, outlines, progress)
    settle = settling_rows(plan.front_end.sos)
    signals = [_signal(plan, o, scales, settle, cache_mb << 20) for o in outlines]
    profiles = measure_profiles(plan.front_end, signals, progress)
    return Study(plan, [_whole(s) if s.split == "test" else s for s in signals], profiles)


def _outlines(recordings: Sequence[Recording | Outline]) -> list[Outline]:
    return [outline_of(r) if isinstance(r, Recording) else r for r in recordings]


def _split(
    data: DataConfig, outlines: list[Outline], files: dict[str, FileSplit]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    if not files:
        return split_users(data, users_of(outlines))
    members = [users_of(o for o in outlines if files[o.name].split == split) for split in SPLITS]
    for split, users in zip(SPLITS, members, strict=True):
        if not users:
            raise ConfigError(f"data.split: no file of '{split}' among the recordings; add some")
    train, val, test = map(tuple, members)
    return train, val, test


def _labels(outlines: list[Outline]) -> tuple[str, ...]:
    """Gestures whose poses the gallery can hold, in the order of the files; rest first."""
    names = dict.fromkeys(
        outline.head.gestures[number]
        for outline in outlines
        for number in np.unique(outline.runs.gesture)
        if number != UNLABELLED
    )
    return tuple(sorted(names, key=lambda name: name != REST))


def _unseen(data: DataConfig, split: Split | None, labels: tuple[str, ...]) -> tuple[str, ...]:
    if split and split.unseen and not data.unseen_gestures:
        return tuple(label for label in labels if label in split.unseen)
    return choose_unseen(data, [label for label in labels if label != REST])


def _pose_scales(
    plan: StudyPlan, outlines: list[Outline], progress: Progress | None
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Offset and scale of the joints by user: of the training users, or one's own (raw gloves)."""
    common = (np.array(plan.pose_offset, np.float32), np.array(plan.pose_scale, np.float32))
    scales = dict.fromkeys(users_of(outlines), common)
    if plan.pose_scaling == "user":
        foreign = {g for o in outlines for g in o.head.gestures} - {*plan.labels}
        for done, user in enumerate(scales):
            own = [o for o in outlines if o.user == user and o.head.pose is not None]
            scales[user] = pose_statistics(own, {*plan.unseen, *foreign}) or common
            if progress:
                progress(done + 1, len(scales), f"scale poses of {user}")
    return scales


def _signal(
    plan: StudyPlan,
    outline: Outline,
    scales: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]],
    settle: int,
    cache_bytes: int,
) -> Signal:
    """Only rows that may be seen reach the filters."""
    got = (outline.channels, outline.rate_hz)
    if got != (plan.channels, plan.rate_hz):
        raise RecordingError(
            f"{outline.name}: expected {plan.channels} channels at {plan.rate_hz:g} Hz, "
            f"got {got[0]} at {got[1]:g} Hz; evaluate on recordings of the kind trained on"
        )
    known = {name: number for number, name in enumerate(plan.labels)}
    renumber = np.array(
        [*(known.get(name, UNLABELLED) for name in outline.head.gestures), UNLABELLED], np.int16
    )
    split, group = plan.split_of(outline.name, outline.user)
    runs, calibration = calibrated(outline, set(plan.unseen))
    offset, scale = scales[outline.user]
    return Signal(
        outline=outline,
        runs=runs,
        label=renumber[runs.gesture],
        calibration=calibration,
        allowed=spans_of(outline.runs, is_seen(outline, set(plan.unseen))),
        split=split,
        group=group,
        front_end=plan.front_end,
        settle=settle,
        pose_offset=offset,
        pose_scale=scale,
        key=uuid.uuid4().hex,
        cache_bytes=cache_bytes,
    )


def _whole(signal: Signal) -> Signal:
    """Test recordings are filtered whole, as a live stream is."""
    everything = spans_of(signal.runs, np.ones(len(signal.runs.stop), np.bool_))
    return replace(signal, allowed=everything, key=uuid.uuid4().hex)

"""A study: recordings split by user and gesture, filtered by the device's own front-end.

Users are split into training, validation and test; some gestures are unseen: no EMG of them is used
for anything but the test, and their poses only fill the gallery.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError, RecordingError
from embridge.device.frontend import UserProfile, fit_front_end, fit_profile
from embridge.device.recordings import (
    REST,
    UNLABELLED,
    Recording,
    find_recordings,
    natural_key,
    read_recording,
    require_pose,
)
from embridge.training.config import Config
from embridge.training.material import Material
from embridge.training.plan import (
    StudyPlan,
    choose_pose_scaling,
    choose_unseen,
    samples,
    split_users,
)
from embridge.training.windows import (
    NormalisedWindows,
    Signal,
    WindowSet,
    calibration_rows,
    cut_windows,
    stretches,
)

Progress = Callable[[int, int, str], None]  # done, total, what


@dataclass(frozen=True)
class Study:
    """A plan and its windows. `profiles`: T1 profile of every user, by name."""

    plan: StudyPlan
    signals: list[Signal]
    profiles: dict[str, UserProfile]

    def windows(
        self, users: Iterable[str], gestures: Iterable[str], hop: int, *, need_pose: bool
    ) -> WindowSet:
        """Windows of these users and gestures, every `hop` samples."""
        cut = cut_windows(self.signals, list(users), self.plan.window, hop, need_pose=need_pose)
        return cut.select(np.isin(cut.label, self.plan.numbers(gestures)))

    def training_windows(self) -> WindowSet:
        """Seen gestures and rest of the training users."""
        return self._paired(self.plan.train_users)

    def validation_windows(self) -> WindowSet:
        """Seen gestures and rest of the validation users."""
        return self._paired(self.plan.val_users)

    def material(self) -> Material:
        """What the encoders of a run are trained and validated on."""
        train, val = (
            NormalisedWindows(windows, self.plan.front_end, self.profiles)
            for windows in (self.training_windows(), self.validation_windows())
        )
        return Material(train, val, self.plan.ring, self.plan.is_envelope)

    def _paired(self, users: Iterable[str]) -> WindowSet:
        plan = self.plan
        gestures = [g for g in plan.labels if g not in plan.unseen]
        windows = self.windows(users, gestures, plan.train_hop, need_pose=True)
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
        return self.windows(self.plan.test_users, gestures, self.plan.hop, need_pose=False)


def read_all(path: Path, progress: Progress | None = None) -> list[Recording]:
    """Read a folder of recordings that belong together; RecordingError when they do not."""
    files = find_recordings(path)
    recordings = []
    for number, file in enumerate(files):
        recordings.append(read_recording(file))
        if progress:
            progress(number + 1, len(files), f"read {file.name}")
    first = recordings[0]
    for other in recordings[1:]:
        got, want = (other.emg.shape[1], other.rate_hz), (first.emg.shape[1], first.rate_hz)
        if got != want:
            raise RecordingError(
                f"{other.name}: expected {want[0]} channels at {want[1]:g} Hz as in {first.name}, "
                f"got {got[0]} at {got[1]:g} Hz; put recordings of one kind into one folder"
            )
    return recordings


def users_of(recordings: Iterable[Recording]) -> list[str]:
    """Names of the users, s2 before s10."""
    return sorted({recording.user for recording in recordings}, key=natural_key)


def make_study(config: Config, recordings: list[Recording], data_name: str) -> Study:
    """Split, fit the front-end on the training users, filter everything.

    Raises ConfigError when there are too few users or gestures, RecordingError without pose.
    """
    for recording in recordings:
        require_pose(recording)
    first = recordings[0]
    train, val, test = split_users(config.data, users_of(recordings))
    training = [r for r in recordings if r.user in train]
    labels = _labels(training)
    unseen = choose_unseen(config.data, [label for label in labels if label != REST])
    front_end = fit_front_end(
        config.front_end, first.rate_hz, [_rows_for_statistics(r, set(unseen)) for r in training]
    )
    offset, scale = _pose_statistics(training, set(unseen))
    plan = StudyPlan(
        data_name=data_name,
        synthetic=any(r.synthetic for r in recordings),
        source=first.source,
        rate_hz=first.rate_hz,
        channels=first.emg.shape[1],
        joints=offset.size,
        unit=first.emg_unit,
        is_envelope=first.is_envelope,
        ring=first.ring or first.emg.shape[1],
        window=samples(config.data.window_ms, first.rate_hz),
        hop=samples(config.data.hop_ms, first.rate_hz),
        train_hop=samples(config.data.train_hop_ms, first.rate_hz),
        labels=labels,
        unseen=unseen,
        train_users=train,
        val_users=val,
        test_users=test,
        pose_scaling=choose_pose_scaling(config.data, first),
        pose_offset=tuple(offset.tolist()),
        pose_scale=tuple(scale.tolist()),
        front_end=front_end,
    )
    return apply_plan(plan, recordings)


def apply_plan(plan: StudyPlan, recordings: list[Recording]) -> Study:
    """Filter recordings as a plan says, on the same data or on other data of the same kind."""
    signals, calibration = [], dict[str, list[NDArray[np.float32]]]()
    for recording in recordings:
        signal = _signal(plan, recording)
        if signal.calibration.any():
            calibration.setdefault(signal.user, []).append(signal.emg[signal.calibration])
        if signal.user in plan.test_users:
            signal = replace(signal, emg=plan.front_end.filtered(recording.emg))
        signals.append(signal)
    profiles = {u: fit_profile(plan.front_end, u, parts) for u, parts in calibration.items()}
    return Study(plan, _scale_poses(plan, signals), profiles)


def _labels(recordings: list[Recording]) -> tuple[str, ...]:
    """Gestures whose poses the gallery can hold, in the order of the files; rest first."""
    names = dict.fromkeys(
        recording.gestures[number]
        for recording in recordings
        for number in np.unique(recording.gesture[recording.gesture != UNLABELLED])
    )
    return tuple(sorted(names, key=lambda name: name != REST))


def _seen_rows(recording: Recording, unseen: set[str]) -> NDArray[np.bool_]:
    hidden = [i for i, name in enumerate(recording.gestures) if name in unseen]
    return np.asarray((recording.gesture != UNLABELLED) & ~np.isin(recording.gesture, hidden))


def _rows_for_statistics(recording: Recording, unseen: set[str]) -> NDArray[np.float32]:
    """Seen and rest rows: also the front-end must not know the unseen gestures' EMG."""
    return np.asarray(recording.emg[_seen_rows(recording, unseen)])


def _pose_statistics(
    recordings: list[Recording], unseen: set[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    poses = np.concatenate(
        [
            recording.pose[_seen_rows(recording, unseen) & recording.pose_valid]
            for recording in recordings
            if recording.pose is not None
        ]
    )
    if not len(poses):
        raise RecordingError("no valid hand pose of a seen gesture in any training recording")
    return _mean_and_spread(poses)


def _mean_and_spread(poses: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(N, J) -> (J,), (J,); summed in float64, since float32 stops counting at 2**24 rows."""
    mean = poses.mean(axis=0, dtype=np.float64)
    spread = np.maximum(poses.std(axis=0, dtype=np.float64), 1e-6)
    return mean.astype(np.float32), spread.astype(np.float32)


def _signal(plan: StudyPlan, recording: Recording) -> Signal:
    """Rows of unseen gestures are cut out before the filters, so that nothing of them rings on."""
    got = (recording.emg.shape[1], recording.rate_hz)
    if got != (plan.channels, plan.rate_hz):
        raise RecordingError(
            f"{recording.name}: expected {plan.channels} channels at {plan.rate_hz:g} Hz, "
            f"got {got[0]} at {got[1]:g} Hz; evaluate on recordings of the kind trained on"
        )
    known = {name: number for number, name in enumerate(plan.labels)}
    renumber = np.array(
        [*(known.get(name, UNLABELLED) for name in recording.gestures), UNLABELLED], np.int16
    )
    rows = _seen_rows(recording, set(plan.unseen))
    emg = np.zeros_like(recording.emg)
    emg[rows] = plan.front_end.filtered(recording.emg[rows])
    return Signal(
        user=recording.user,
        emg=emg,
        pose=recording.pose,
        pose_valid=recording.pose_valid,
        gesture=renumber[recording.gesture],
        trial=stretches(recording.gesture, recording.trial),
        calibration=calibration_rows(recording, set(plan.unseen)),
    )


def _scale_poses(plan: StudyPlan, signals: list[Signal]) -> list[Signal]:
    """Scale joint angles by the training users' statistics, or per user for raw gloves."""
    hidden = plan.numbers(plan.unseen)
    scaled = []
    statistics: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for signal in signals:
        if signal.user not in statistics and plan.pose_scaling == "user":
            rows = [
                s.pose[s.pose_valid & (s.gesture != UNLABELLED) & ~np.isin(s.gesture, hidden)]
                for s in signals
                if s.user == signal.user and s.pose is not None
            ]
            if rows and sum(map(len, rows)):
                statistics[signal.user] = _mean_and_spread(np.concatenate(rows))
        offset, scale = statistics.get(
            signal.user,
            (np.array(plan.pose_offset, np.float32), np.array(plan.pose_scale, np.float32)),
        )
        pose = None if signal.pose is None else (signal.pose - offset) / scale
        scaled.append(replace(signal, pose=pose))
    return scaled

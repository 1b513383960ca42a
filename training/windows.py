"""Paired windows of EMG and pose, cut lazily from filtered recordings."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embridge.device.frontend import FrontEnd, UserProfile
from embridge.device.recordings import REST, UNLABELLED, Recording
from embridge.device.windows import window_starts


@dataclass(frozen=True)
class Signal:
    """One recording after filters and compression, not normalised.

    emg: (T, C); pose: (T, J) scaled, or None; gesture: (T,) index into the study's labels;
    trial: (T,) contiguous stretches of one gesture; calibration: (T,) True where T1 profiles are
    measured, which evaluation leaves out
    """

    user: str
    emg: NDArray[np.float32]
    pose: NDArray[np.float32] | None
    pose_valid: NDArray[np.bool_]
    gesture: NDArray[np.int16]
    trial: NDArray[np.int32]
    calibration: NDArray[np.bool_]


@dataclass(frozen=True)
class WindowSet:
    """Windows of several signals; every array has one entry per window, N in all."""

    signals: list[Signal]
    window: int
    signal: NDArray[np.int64]
    start: NDArray[np.int64]
    label: NDArray[np.int64]
    user: NDArray[np.int64]
    trial: NDArray[np.int64]
    users: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.start)

    def select(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> "WindowSet":
        """The windows chosen by a mask or by indices."""
        return WindowSet(
            self.signals,
            self.window,
            self.signal[keep],
            self.start[keep],
            self.label[keep],
            self.user[keep],
            self.trial[keep],
            self.users,
        )

    def emg(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Filtered, not normalised: (B, T, C)."""
        return np.stack([self._cut(self.signals[self.signal[i]].emg, i) for i in index])

    def pose(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scaled joint angles: (B, J, T)."""
        poses = []
        for i in index:
            pose = self.signals[self.signal[i]].pose
            if pose is None:
                raise ValueError("these windows were cut without pose")
            poses.append(self._cut(pose, i).T)
        return np.stack(poses)

    def encoder_input(
        self, index: NDArray[np.int64], front_end: FrontEnd, profiles: dict[str, UserProfile]
    ) -> NDArray[np.float32]:
        """Normalised windows (B, C, T): by the user's profile where `profiles` has one, else T0."""
        windows = [
            front_end.normalise(
                self._cut(self.signals[self.signal[i]].emg, i),
                profiles.get(self.users[self.user[i]]),
            ).T
            for i in index
        ]
        return np.ascontiguousarray(np.stack(windows))

    def _cut(self, rows: NDArray[np.float32], i: int) -> NDArray[np.float32]:
        return rows[self.start[i] : self.start[i] + self.window]


@dataclass(frozen=True)
class NormalisedWindows:
    """Windows as the encoder sees them: `PairedWindows` of the recipe."""

    windows: WindowSet
    front_end: FrontEnd
    profiles: dict[str, UserProfile]

    @property
    def label(self) -> NDArray[np.int64]:
        """(N,) gesture of each window."""
        return self.windows.label

    @property
    def user(self) -> NDArray[np.int64]:
        """(N,) user of each window."""
        return self.windows.user

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.windows)

    def inputs(
        self, index: NDArray[np.int64], population: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Encoder input (B, C, T): tier T0 where `population`, T1 elsewhere."""
        known = self.windows.encoder_input(index, self.front_end, self.profiles)
        unknown = self.windows.encoder_input(index, self.front_end, {})
        return np.where(population[:, None, None], unknown, known)

    def pose(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scaled joint angles (B, J, T)."""
        return self.windows.pose(index)


def stretches(gesture: NDArray[np.int16], trial: NDArray[np.int32]) -> NDArray[np.int32]:
    """(T,) number of the contiguous stretch of one gesture and trial each sample lies in."""
    change = (np.diff(gesture) != 0) | (np.diff(trial) != 0)
    return np.asarray(np.concatenate([[0], np.cumsum(change)]), np.int32)


def calibration_rows(recording: Recording, unseen: set[str]) -> NDArray[np.bool_]:
    """(T,) rows a T1 profile may be measured on: unlabelled use, never of an unseen gesture.

    The first repetition of every seen gesture; where nothing repeats, the first quarter of each.
    """
    names = np.array([*recording.gestures, ""])  # index -1 is UNLABELLED
    name = names[recording.gesture]
    usable = (recording.gesture != UNLABELLED) & ~np.isin(name, [*unseen, REST])
    if recording.repetition.max(initial=0) > 1:
        return np.asarray(usable & (recording.repetition == 1))
    stretch = stretches(recording.gesture, recording.trial)
    length = np.bincount(stretch)
    position = np.arange(len(name)) - (np.cumsum(length) - length)[stretch]
    return np.asarray(usable & (position < length[stretch] // 4))


def cut_windows(
    signals: list[Signal], users: list[str], window: int, hop: int, *, need_pose: bool
) -> WindowSet:
    """All windows that lie within one stretch of one gesture.

    users: who may contribute; need_pose: only windows whose pose is valid throughout
    """
    order = {user: number for number, user in enumerate(users)}
    rows: list[NDArray[np.int64]] = []
    for number, signal in enumerate(signals):
        if signal.user not in order:
            continue
        starts = np.array(window_starts(len(signal.emg), window, hop), np.int64)
        if not len(starts):
            continue
        last = starts + window - 1
        keep = (signal.trial[starts] == signal.trial[last]) & (signal.gesture[starts] != UNLABELLED)
        keep &= ~_any_within(signal.calibration, starts, window) | need_pose
        if need_pose:
            keep &= ~_any_within(~signal.pose_valid, starts, window)
        starts = starts[keep]
        rows.append(
            np.stack(
                [
                    np.full(len(starts), number),
                    starts,
                    signal.gesture[starts],
                    np.full(len(starts), order[signal.user]),
                    number * 100_000 + signal.trial[starts],
                ]
            )
        )
    table = np.concatenate(rows, axis=1) if rows else np.zeros((5, 0), np.int64)
    number, start, label, user, trial = table
    return WindowSet(signals, window, number, start, label, user, trial, tuple(users))


def _any_within(
    flags: NDArray[np.bool_], starts: NDArray[np.int64], window: int
) -> NDArray[np.bool_]:
    total = np.concatenate([[0], np.cumsum(flags)])
    return np.asarray(total[starts + window] > total[starts])

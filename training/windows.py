"""Paired windows of EMG and pose, cut lazily from recordings."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.device.frontend import FrontEnd, UserProfile
from embridge.device.recordings import UNLABELLED
from embridge.training.signals import Signal

Index = NDArray[Any]  # whole numbers: int32 in a set, whatever comes as an index


@dataclass(frozen=True)
class WindowSet:
    """Windows of several signals; every array has one entry per window, N in all.

    An entry costs 20 bytes; samples are read when asked for, in any process that it is sent to.
    alone: no two windows overlap
    """

    signals: list[Signal]
    window: int
    signal: Index
    start: Index
    label: Index
    user: Index
    trial: Index
    users: tuple[str, ...] = field(default=())
    alone: bool = False

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.start)

    def select(self, keep: NDArray[np.bool_] | Index) -> "WindowSet":
        """The windows chosen by a mask or by indices."""
        columns = ("signal", "start", "label", "user", "trial")
        return replace(self, **{name: getattr(self, name)[keep] for name in columns})

    def emg(self, index: Index) -> NDArray[np.float32]:
        """Filtered, not normalised: (B, T, C)."""
        return np.stack([self._emg(i) for i in index])

    def pose(self, index: Index) -> NDArray[np.float32]:
        """Scaled joint angles: (B, J, T)."""
        return np.stack([self._pose(i).T for i in index])

    def encoder_input(
        self, index: Index, front_end: FrontEnd, profiles: Mapping[str, UserProfile]
    ) -> NDArray[np.float32]:
        """Normalised windows (B, C, T): by the user's profile where `profiles` has one, else T0."""
        return self.normalised(index, front_end, [profiles.get(self.user_of(i)) for i in index])

    def normalised(
        self, index: Index, front_end: FrontEnd, profiles: Iterable[UserProfile | None]
    ) -> NDArray[np.float32]:
        """Windows (B, C, T), each normalised by a profile of its own, or in T0 by None."""
        windows = [
            front_end.normalise(self._emg(i), profile).T
            for i, profile in zip(index, profiles, strict=True)
        ]
        return np.ascontiguousarray(np.stack(windows))

    def user_of(self, i: int) -> str:
        """Name of the user of one window."""
        return self.users[int(self.user[i])]

    def _emg(self, i: int) -> NDArray[np.float32]:
        start = int(self.start[i])
        return self.signals[int(self.signal[i])].emg(start, start + self.window, alone=self.alone)

    def _pose(self, i: int) -> NDArray[np.float32]:
        start = int(self.start[i])
        return self.signals[int(self.signal[i])].pose(start, start + self.window, alone=self.alone)


@dataclass(frozen=True)
class NormalisedWindows:
    """Windows as the encoder sees them: `PairedWindows` of the recipe."""

    windows: WindowSet
    front_end: FrontEnd
    profiles: dict[str, UserProfile]

    @property
    def label(self) -> Index:
        """(N,) gesture of each window."""
        return self.windows.label

    @property
    def user(self) -> Index:
        """(N,) user of each window."""
        return self.windows.user

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.windows)

    def inputs(self, index: Index, population: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Encoder input (B, C, T): tier T0 where `population`, T1 elsewhere."""
        profiles = [
            None if unknown else self.profiles.get(self.windows.user_of(i))
            for i, unknown in zip(index, population, strict=True)
        ]
        return self.windows.normalised(index, self.front_end, profiles)

    def pose(self, index: Index) -> NDArray[np.float32]:
        """Scaled joint angles (B, J, T)."""
        return self.windows.pose(index)


def cut_windows(
    signals: list[Signal],
    users: list[str],
    window: int,
    hop: int,
    *,
    need_pose: bool,
    split: str | None = None,
) -> WindowSet:
    """All windows that lie within one stretch of one gesture, and across no lost sample.

    users: who may contribute; need_pose: only windows whose pose is valid throughout, else only
    those without calibration rows; split: "train", "val" or "test" alone
    """
    order = {user: number for number, user in enumerate(users)}
    tables = [np.zeros((5, 0), np.int32)]
    first_trial = 0
    for number, signal in enumerate(signals):
        stretch = signal.runs.stretch
        if signal.user in order and split in (None, signal.split):
            run, start = _starts(signal, window, hop, need_pose=need_pose)
            whose = np.full(len(start), order[signal.user])
            columns = (np.full(len(start), number), start, signal.label[run], whose)
            tables.append(np.stack([*columns, first_trial + stretch[run]]).astype(np.int32))
        first_trial += int(stretch[-1]) + 1
    number_of, start_of, label, user, trial = np.concatenate(tables, axis=1)
    alone = hop >= window
    return WindowSet(signals, window, number_of, start_of, label, user, trial, tuple(users), alone)


def _starts(
    signal: Signal, window: int, hop: int, *, need_pose: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Run and first row of each window: on the multiples of `hop`, as in a live stream."""
    runs = signal.runs
    usable = signal.label != UNLABELLED
    usable &= runs.valid if need_pose else ~signal.calibration
    broken = ~runs.follows | (np.diff(runs.stretch, prepend=-1) > 0)
    begins = usable & (broken | ~np.append(False, usable[:-1]))
    ends = usable & np.append(broken[1:] | ~usable[1:], True)
    aligned = -(-runs.start[begins] // hop)
    count = np.maximum(0, (runs.stop[ends] - window) // hop - aligned + 1)
    nth = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(np.flatnonzero(begins), count), hop * (np.repeat(aligned, count) + nth)

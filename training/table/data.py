"""Windows of one user of NinaPro DB1, exercise 1: EMG, glove and label of each."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.ninapro import EXERCISE_A
from embridge.device.recordings import (
    Recording,
    find_recordings,
    natural_key,
    read_recording,
    require_pose,
)
from embridge.device.windows import window_starts

WINDOW_S, HOP_S = 0.5, 0.1
GESTURES = EXERCISE_A  # gesture g of the protocol, 1..12, is GESTURES[g - 1]
SOURCE = "ninapro-db1"


@dataclass(frozen=True)
class UserWindows:
    """All windows of one user that lie inside a run of one gesture, in the order recorded.

    emg: (N, C, T) envelopes in volts; pose: (N, J, T) glove, each sensor with mean 0 and deviation
    1 over this user's windows' means; label: (N,) gesture 1..12; repetition: (N,) from 1;
    run: (N,) number of the run, unique in the user
    """

    user: str
    emg: NDArray[np.float32]
    pose: NDArray[np.float32]
    label: NDArray[np.int64]
    repetition: NDArray[np.int64]
    run: NDArray[np.int64]
    rate_hz: float
    ring: int

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.label)


def read_users(path: Path) -> list[UserWindows]:
    """Windows of every user in a folder, s2 before s10.

    RecordingError when a file is unreadable, ConfigError when the folder is of another kind.
    """
    return users_of(read_recording(file) for file in find_recordings(path))


def users_of(recordings: Iterable[Recording]) -> list[UserWindows]:
    """Cut recordings; those without a finger movement (exercises 2 and 3) are left out."""
    parts: dict[str, list[UserWindows]] = {}
    for recording in recordings:
        if recording.source != SOURCE:
            raise ConfigError(
                f"{recording.name}: the zero-shot table is defined on {SOURCE}, exercise 1, got "
                f"{recording.source}: choose a folder of S<n>_A1_E1.mat files"
            )
        cut = _cut(recording)
        if len(cut):
            parts.setdefault(cut.user, []).append(cut)
    if not parts:
        raise ConfigError(
            "expected finger movements (NinaPro DB1, exercise 1) held for "
            f"{WINDOW_S:g} s, found none: choose a folder of S<n>_A1_E1.mat files"
        )
    joined = [_join(parts[user]) for user in sorted(parts, key=natural_key)]
    _require_alike(joined)
    return [replace(user, pose=standardised(user.pose, user.pose)) for user in joined]


def _cut(recording: Recording) -> UserWindows:
    """Windows from the start of each run on; the glove is still raw."""
    pose = require_pose(recording)
    window = round(WINDOW_S * recording.rate_hz)
    hop = round(HOP_S * recording.rate_hz)
    starts = [
        first + start
        for first, last in _runs(recording)
        for start in window_starts(last - first, window, hop)
        if recording.pose_valid[first + start : first + start + window].all()
    ]
    index = np.array(starts, np.int64)
    rows = index[:, None] + np.arange(window)  # N T
    return UserWindows(
        user=recording.user,
        emg=np.ascontiguousarray(recording.emg[rows].transpose(0, 2, 1)),
        pose=np.ascontiguousarray(pose[rows].transpose(0, 2, 1)),
        label=recording.gesture[index].astype(np.int64),
        repetition=recording.repetition[index].astype(np.int64),
        run=recording.trial[index].astype(np.int64),
        rate_hz=recording.rate_hz,
        ring=recording.ring or recording.emg.shape[1],
    )


def _runs(recording: Recording) -> list[tuple[int, int]]:
    """[first, last) of each run of one finger movement and repetition."""
    bounds = np.flatnonzero(np.diff(recording.trial, prepend=0, append=0))
    return [
        (int(first), int(last))
        for first, last in pairwise(bounds)
        if recording.trial[first] > 0 and 1 <= recording.gesture[first] <= len(GESTURES)
    ]


def _join(parts: list[UserWindows]) -> UserWindows:
    first, offset, runs = parts[0], 0, []
    for part in parts:
        runs.append(part.run + offset)
        offset += int(part.run.max())
    return UserWindows(
        user=first.user,
        emg=np.concatenate([part.emg for part in parts]),
        pose=np.concatenate([part.pose for part in parts]),
        label=np.concatenate([part.label for part in parts]),
        repetition=np.concatenate([part.repetition for part in parts]),
        run=np.concatenate(runs),
        rate_hz=first.rate_hz,
        ring=first.ring,
    )


def _require_alike(users: list[UserWindows]) -> None:
    first = users[0]
    for other in users[1:]:
        got, want = other.pose.shape[1], first.pose.shape[1]
        if got != want:
            raise ConfigError(
                f"user {other.user}: expected a glove of {want} sensors as of {first.user}, got "
                f"{got}: put recordings with one kind of glove into one folder"
            )


def standardised(pose: NDArray[np.float32], over: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pose windows (N, J, T) by mean and deviation, per sensor, of the windows' means in `over`."""
    means = over.mean(axis=2, dtype=np.float64)  # N J
    deviation = np.maximum(means.std(axis=0), 1e-8)
    return np.asarray((pose - means.mean(axis=0)[:, None]) / deviation[:, None], np.float32)

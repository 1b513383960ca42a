"""One view on every kind of recording: paired sEMG and hand pose of one user.

`open_recordings` finds the files, hands each to the format module of its suffix, and returns
`Recording`s; nothing after this line knows which data set a window came from.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import RecordingError

REST = "rest"  # the gesture name of "no gesture"; never an event, never a zero-shot class
UNLABELLED = -1
SUPPORTED = "emg2pose HDF5 (.hdf5, .h5) or NinaPro MATLAB (.mat) files"


@dataclass(frozen=True, slots=True)
class Recording:
    """One file's worth of samples, all arrays row-synchronous.

    emg: (T, C) float32, in `emg_unit`
    pose: (T, J) float32 in `pose_unit`, or None where the file has none
    pose_valid: (T,) bool, False where hand tracking failed; all False when pose is None
    gestures: names; the same gesture may have another index in a recording of another kind
    gesture: (T,) int16, index into `gestures`, or UNLABELLED
    trial: (T,) int32, number of the contiguous stretch of one gesture a sample belongs to, unique
        in the file (0 = between repetitions)
    repetition: (T,) int16, which repetition of its gesture this is, from 1, as protocols split by
        it (0 = rest or unknown)
    emg_unit_per_count: size of one ADC count in `emg_unit`, or None where the file does not say
    ring: how many electrodes, from the first channel on, go once around the arm; None: all
    sample_index: (T,) int64, number of each sample in the stream it was recorded from: a jump is a
        gap that no window may span; None where the rows follow each other without gaps
    measured_rate_hz: rate implied by the file's own time stamps, or None where it has none
    """

    name: str
    source: str  # "emg2pose" or "ninapro-db1" ...
    user: str
    session: str
    rate_hz: float
    emg: NDArray[np.float32]
    emg_unit: str
    is_envelope: bool  # True: rectified and smoothed by the recorder, as in NinaPro DB1
    pose: NDArray[np.float32] | None
    pose_unit: str
    pose_valid: NDArray[np.bool_]
    gestures: tuple[str, ...]
    gesture: NDArray[np.int16]
    trial: NDArray[np.int32]
    repetition: NDArray[np.int16]
    emg_unit_per_count: float | None = None
    synthetic: bool = False
    measured_rate_hz: float | None = None
    ring: int | None = None
    sample_index: NDArray[np.int64] | None = None


def find_recordings(path: Path) -> list[Path]:
    """Return the recordings at `path`, a file or a folder searched recursively, S2 before S10.

    Hidden files are left out. Raises RecordingError when there are none.
    """
    if not path.exists():
        raise RecordingError(f"{path}: expected {SUPPORTED}, but it does not exist: check the path")
    suffixes = {suffix for group, _ in _readers() for suffix in group}
    if path.is_file():
        if path.suffix.lower() not in suffixes:
            raise RecordingError(
                f"{path}: expected {SUPPORTED}, got '{path.suffix}': convert it or choose another"
            )
        return [path]
    found = [
        file
        for file in path.rglob("*")
        if file.suffix.lower() in suffixes and not file.name.startswith(".") and file.is_file()
    ]
    if not found:
        raise RecordingError(f"{path}: expected {SUPPORTED}, found none in this folder")
    return sorted(found, key=lambda file: natural_key(file.relative_to(path).as_posix()))


def read_recording(path: Path, *, allow_nonfinite: bool = False) -> Recording:
    """Read one file by the format of its suffix.

    Raises RecordingError when it cannot be read, is empty, or (unless `allow_nonfinite`) when its
    EMG holds NaN or infinity.
    """
    suffix = path.suffix.lower()
    for suffixes, read in _readers():
        if suffix in suffixes:
            recording = read(path)
            break
    else:
        raise RecordingError(f"{path}: expected {SUPPORTED}, got '{path.suffix}'")
    if 0 in recording.emg.shape:
        raise RecordingError(
            f"{path.name}: expected at least 1 sample of 1 channel, got (T, C) "
            f"{recording.emg.shape}: record it again"
        )
    if not allow_nonfinite:
        _require_finite(recording, path)
    return recording


def open_recordings(path: Path, *, allow_nonfinite: bool = False) -> Iterator[Recording]:
    """Read the recordings at `path` (file or folder) one after the other.

    Raises RecordingError: at once when there are none, later at the first unreadable one.
    """
    files = find_recordings(path)
    return (read_recording(file, allow_nonfinite=allow_nonfinite) for file in files)


def require_pose(recording: Recording) -> NDArray[np.float32]:
    """Return the pose, (T, J); raises RecordingError where there is none to learn from."""
    ninapro = recording.source.startswith("ninapro")
    if recording.pose is None:
        variable = "'glove' variable" if ninapro else "'joint_angles' column"
        advice = (
            "the original NinaPro files with CyberGlove"
            if ninapro
            else "files recorded together with hand tracking"
        )
        raise RecordingError(
            f"{recording.name}: has no hand pose (no {variable}): expected paired EMG and pose, "
            f"use {advice}"
        )
    if not recording.pose_valid.any():
        raise RecordingError(
            f"{recording.name}: has no valid hand pose in any of its {len(recording.pose_valid)} "
            "samples: expected paired EMG and pose, leave this file out"
        )
    return recording.pose


def _readers() -> tuple[tuple[tuple[str, ...], Callable[[Path], Recording]], ...]:
    # Imported here because the readers build `Recording`, which this module defines.
    from embridge.device.emg2pose import read_emg2pose
    from embridge.device.ninapro import read_ninapro

    return (((".hdf5", ".h5"), read_emg2pose), ((".mat",), read_ninapro))


def natural_key(text: str) -> list[str | int]:
    """Sort key that puts S2 before S10."""
    parts = re.split(r"(\d+)", text)  # text and digits in turn, so like meets like
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def _require_finite(recording: Recording, path: Path) -> None:
    finite = np.isfinite(recording.emg)  # T C
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise RecordingError(
            f"{path.name}: expected finite EMG, got {recording.emg[row, column]} in column "
            f"{column}, first at row {row}: run `embridge data check` and leave the file out"
        )

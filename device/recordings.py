"""One view on every kind of recording: paired sEMG and hand pose of one user.

`open_recordings` finds the files, hands each to the format module of its suffix, and returns
`Recording`s; nothing after this line knows which data set a window came from.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import RecordingError

REST = "rest"  # the gesture name of "no gesture"; never an event, never a zero-shot class
UNLABELLED = -1
SUPPORTED = (
    "emg2pose HDF5 (.hdf5, .h5), NinaPro MATLAB (.mat) or libemg (R_<rep>_C_<class>_EMG.csv) files"
)


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
    remarks: what a reader did to this file, or could not tell, that results may depend on
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
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What may be read in two ways.

    mirror_left_arms: reverse the ring of electrodes of left-handed subjects, so that a channel
        lies over the same muscles in everybody (NinaPro DB2 and DB7)
    glove_sensors: 18 leaves the four DIP sensors of a 22-sensor CyberGlove out, so that it can be
        used together with the 18-sensor one (NinaPro DB7); None keeps what the file has
    """

    mirror_left_arms: bool = True
    glove_sensors: Literal[18] | None = None


AS_USUAL = ReadOptions()
Reader = Callable[[Path, ReadOptions], Recording]


def find_recordings(path: Path) -> list[Path]:
    """Return the recordings at `path`, a file or a folder searched recursively, S2 before S10.

    Hidden files are left out. Raises RecordingError when there are none.
    """
    if not path.exists():
        raise RecordingError(f"{path}: expected {SUPPORTED}, but it does not exist: check the path")
    if path.is_file():
        if _reader(path) is None:
            raise RecordingError(
                f"{path}: expected {SUPPORTED}, got '{path.name}': convert it or choose another"
            )
        return [path]
    found = [
        file
        for file in path.rglob("*")
        if _reader(file) and not file.name.startswith(".") and file.is_file()
    ]
    if not found:
        raise RecordingError(f"{path}: expected {SUPPORTED}, found none in this folder")
    return sorted(found, key=lambda file: natural_key(file.relative_to(path).as_posix()))


def read_recording(
    path: Path, *, allow_nonfinite: bool = False, options: ReadOptions = AS_USUAL
) -> Recording:
    """Read one file by the format that its name says.

    Raises RecordingError when it cannot be read, is empty, or (unless `allow_nonfinite`) when its
    EMG holds NaN or infinity.
    """
    read = _reader(path)
    if read is None:
        raise RecordingError(f"{path}: expected {SUPPORTED}, got '{path.name}'")
    recording = read(path, options)
    if 0 in recording.emg.shape:
        raise RecordingError(
            f"{path.name}: expected at least 1 sample of 1 channel, got (T, C) "
            f"{recording.emg.shape}: record it again"
        )
    if not allow_nonfinite:
        require_finite(recording, path)
    return recording


def open_recordings(
    path: Path, *, allow_nonfinite: bool = False, options: ReadOptions = AS_USUAL
) -> Iterator[Recording]:
    """Read the recordings at `path` (file or folder) one after the other.

    Raises RecordingError: at once when there are none, later at the first unreadable one.
    """
    files = find_recordings(path)
    return (read_recording(f, allow_nonfinite=allow_nonfinite, options=options) for f in files)


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


def _reader(path: Path) -> Reader | None:
    """What reads a file of this name; a .csv is a recording only by libemg's names."""
    # Imported here because the readers build `Recording`, which this module defines.
    from embridge.device.emg2pose import read_emg2pose
    from embridge.device.libemg_csv import is_libemg, read_libemg
    from embridge.device.ninapro import read_ninapro

    suffix = path.suffix.lower()
    if suffix in (".hdf5", ".h5"):
        return lambda file, _: read_emg2pose(file)
    if suffix == ".mat":
        return read_ninapro
    return (lambda file, _: read_libemg(file)) if is_libemg(path) else None


def remarks_by_user(remarks: Iterable[tuple[str, tuple[str, ...]]]) -> tuple[str, ...]:
    """(user, remarks) of each recording -> one line per remark, with the users it concerns."""
    users: dict[str, dict[str, None]] = {}  # in order, by remark
    for user, said in remarks:
        for remark in said:
            users.setdefault(remark, {})[user] = None
    return tuple(f"{', '.join(concerned)}: {remark}" for remark, concerned in users.items())


def natural_key(text: str) -> list[str | int]:
    """Sort key that puts S2 before S10."""
    parts = re.split(r"(\d+)", text)  # text and digits in turn, so like meets like
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def require_finite(recording: Recording, path: Path, first_row: int = 0) -> None:
    """Raise RecordingError where EMG is NaN or infinite; first_row: of a block in its file."""
    finite = np.isfinite(recording.emg)  # T C
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        raise RecordingError(
            f"{path.name}: expected finite EMG, got {recording.emg[row, column]} in column "
            f"{column}, first at row {first_row + row}: run `embridge data check` and leave the "
            "file out"
        )

"""CSV files of libemg's screen-guided training with a Myo: EMG of one class each, without pose.

    R_<repetition>_C_<class>_EMG.csv   (`_EMG` may be absent), both numbers from 0
    rows of 8 comma-separated whole numbers -128..127, no header: counts of a Myo at 200 Hz

(LibEMG, Eddy et al., IEEE Access 2023; the layout is that of its OneSubjectMyoDataset.) A file says
neither who was recorded nor what its class is called: the user is the folder's name, or the folder
above where the folder itself is called trial_1, session2 ..., and the gesture is class_<number>.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import RecordingError
from embridge.device.recordings import Recording

SOURCE = "libemg-myo"
RATE_HZ = 200.0
CHANNELS = 8

_NAME = re.compile(r"R_(\d+)_C_(\d+)(?:_EMG)?\.csv", re.IGNORECASE)
_SESSION = re.compile(r"(?:trial|session|day|set)[_-]?\d+", re.IGNORECASE)


def is_libemg(path: Path) -> bool:
    """Whether a file is called as libemg calls its recordings."""
    return _NAME.fullmatch(path.name) is not None


def read_libemg(path: Path) -> Recording:
    """Read one file as one trial of its class; raises RecordingError when it is not of a Myo."""
    name = _NAME.fullmatch(path.name)
    if name is None:
        raise RecordingError(
            f"{path.name}: expected a name like R_0_C_1_EMG.csv, got another: the repetition and "
            "the class are known only by it"
        )
    counts = _counts(path)
    folder = path.resolve().parent
    session = folder.name if _SESSION.fullmatch(folder.name) else "1"
    rows = len(counts)
    return Recording(
        name=path.stem,
        source=SOURCE,
        user=folder.name if session == "1" else folder.parent.name,
        session=session,
        rate_hz=RATE_HZ,
        emg=counts.astype(np.float32),
        emg_unit="count",
        is_envelope=False,
        pose=None,
        pose_unit="none",
        pose_valid=np.zeros(rows, bool),
        gestures=(f"class_{int(name[2])}",),
        gesture=np.zeros(rows, np.int16),
        trial=np.ones(rows, np.int32),
        repetition=np.full(rows, int(name[1]) + 1, np.int16),
        emg_unit_per_count=1.0,
    )


def _counts(path: Path) -> NDArray[np.float64]:
    """(T, 8) counts."""
    try:
        text = path.read_text(encoding="ascii")
        counts = np.array([line.split(",") for line in text.splitlines()], np.float64)
    except (OSError, ValueError) as error:  # a row of another length, or text, is a ValueError
        raise RecordingError(
            f"{path.name}: cannot be read as rows of {CHANNELS} comma-separated numbers "
            f"(truncated file?): expected libemg's CSV of a Myo, got '{str(error)[:80]}': "
            "download or record it again"
        ) from error
    if counts.ndim != 2 or counts.shape[1] != CHANNELS:
        raise RecordingError(
            f"{path.name}: expected (T, {CHANNELS}) columns of a Myo, got {counts.shape}: other "
            "devices do not say their rate in such a file, convert it to emg2pose HDF5"
        )
    if not (np.abs(counts + 0.5) <= 127.5).all() or (counts % 1).any():
        raise RecordingError(
            f"{path.name}: expected whole Myo counts -128..127, got values from {counts.min():g} "
            f"to {counts.max():g}: other devices do not say their unit, convert it to emg2pose HDF5"
        )
    return counts

"""One view on every kind of recording: paired sEMG and hand pose of one user.

`open_recordings` finds the files, asks each format module whether the file is its own, and returns
`Recording`s; nothing after this line knows which data set a window came from.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REST = "rest"  # the gesture name of "no gesture"; never an event, never a zero-shot class
UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Recording:
    """One file's worth of samples, all arrays row-synchronous.

    emg: (T, C) float32, in `emg_unit`
    pose: (T, J) float32 in `pose_unit`, or None where the file has none
    pose_valid: (T,) bool, False where hand tracking failed; all False when pose is None
    gesture: (T,) int16, index into `gestures`, or UNLABELLED
    trial: (T,) int32, number of the repetition a sample belongs to (0 = between repetitions)
    emg_unit_per_count: size of one ADC count in `emg_unit`, or None where the file does not say
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
    emg_unit_per_count: float | None = None
    synthetic: bool = False

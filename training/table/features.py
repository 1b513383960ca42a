"""Per-window features of rectified envelopes, and their standardisation by user."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from embridge.training.table.protocol import TrainSet, UserData

FLOOR_V = 0.02  # added before the logarithm: about the noise of DB1's envelopes

Features = Callable[[NDArray[np.float32]], NDArray[np.float64]]  # (N, C, T) -> (N, F)


def log_envelope(emg: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean of log(emg + 0.02) per channel: (N, C, T) in volts -> (N, C)."""
    return np.asarray(np.log(np.maximum(emg, 0) + FLOOR_V).mean(axis=2, dtype=np.float64))


def envelope_features(emg: NDArray[np.float32]) -> NDArray[np.float64]:
    """Means of log(emg + 0.02) and of sqrt(emg) per channel: (N, C, T) in volts -> (N, 2C)."""
    root = np.sqrt(np.maximum(emg, 0)).mean(axis=2, dtype=np.float64)
    return np.concatenate([log_envelope(emg), root], axis=1)


def hudgins_features(emg: NDArray[np.float32]) -> NDArray[np.float64]:
    """What of Hudgins' set (1993) an envelope has, and its log RMS: (N, C, T) -> (N, 3C).

    Mean absolute value and waveform length. Zero crossings and slope sign changes count the
    carrier's oscillations, which rectifying and smoothing have removed: they do not apply.
    """
    value = np.abs(emg).mean(axis=2, dtype=np.float64)
    length = np.abs(np.diff(emg, axis=2)).sum(axis=2, dtype=np.float64)
    rms = np.sqrt(np.square(emg).mean(axis=2, dtype=np.float64))
    return np.concatenate([value, length, np.log(rms + 1e-4)], axis=1)


@dataclass(frozen=True, slots=True)
class Scaling:
    """Mean and deviation of each feature, (F,)."""

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[np.float64]) -> Self:
        """Measured on (N, F)."""
        return cls(features.mean(axis=0), np.maximum(features.std(axis=0), 1e-8))

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N, F) standardised."""
        return np.asarray((features - self.mean) / self.deviation)


def scaled_by_user(training: TrainSet, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each training user's features (N, F) standardised as a T1 test user's: by calibration."""
    scaled = np.empty_like(features)
    for number in range(len(training.users)):
        mine = training.user == number
        measured = mine & training.calibration
        scaled[mine] = Scaling.of(features[measured if measured.any() else mine])(features[mine])
    return scaled


def scaling_for(user: UserData, pooled: Scaling, features: Features) -> Scaling:
    """The user's own from T1 on, else that of the training users together."""
    return pooled if user.emg is None else Scaling.of(features(user.emg))

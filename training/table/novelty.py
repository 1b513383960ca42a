"""How unlike a user's seen gestures a window is: what tells unseen gestures from seen ones.

A gesture that the user's unlabelled calibration (T1) never showed lies further from it than one it
did. Where all gestures compete this is worth more than any constant handicap of the seen ones.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from embridge.training.table.features import Scaling, envelope_features

_NEIGHBOURS = 3
_RIDGE = 0.5  # of unit variance, added before whitening


@dataclass(frozen=True, slots=True)
class Novelty:
    """Log of the mean distance to the nearest calibration windows, in deviations of their own.

    reference: (N, F) whitened; mean, deviation: of calibration windows against other runs
    """

    scaling: Scaling
    whitening: NDArray[np.float64]
    reference: NDArray[np.float64]
    mean: float
    deviation: float

    @classmethod
    def of(cls, emg: NDArray[np.float32], run: NDArray[np.int64]) -> Self:
        """Of calibration windows (N, C, T) and the run (N,) of each; at least two runs."""
        raw = envelope_features(emg)
        scaling = Scaling.of(raw)
        scaled = scaling(raw)
        covariance = np.cov(scaled.T) + _RIDGE * np.eye(scaled.shape[1])
        whitening = np.linalg.cholesky(np.linalg.inv(covariance))
        reference = scaled @ whitening
        own = np.empty(len(reference))
        for number in np.unique(run):
            mine = run == number
            own[mine] = _log_distance(reference[mine], reference[~mine])
        return cls(scaling, whitening, reference, float(own.mean()), max(float(own.std()), 1e-6))

    def __call__(self, emg: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, C, T) -> (N,): about 0 for a gesture that was in the calibration, more otherwise."""
        inputs = self.scaling(envelope_features(emg)) @ self.whitening
        distance = _log_distance(inputs, self.reference)
        return np.asarray((distance - self.mean) / self.deviation)


def _log_distance(
    inputs: NDArray[np.float64], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Log of the mean Euclidean distance to the nearest few, (N,)."""
    squared = np.square(inputs).sum(axis=1)[:, None] - 2 * inputs @ reference.T
    squared += np.square(reference).sum(axis=1)
    nearest = np.partition(squared, min(_NEIGHBOURS, len(reference)) - 1, axis=1)[:, :_NEIGHBOURS]
    return np.asarray(np.log(np.sqrt(np.maximum(nearest, 0)).mean(axis=1) + 1e-6))

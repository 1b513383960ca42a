"""Which seen gesture each run of an unlabelled calibration may be: soft labels to learn from.

Self-training with balanced assignment (Sinkhorn and Knopp 1967; for labels, Asano et al. 2020). The
balance is an assumption: a wearer who calibrates makes every seen gesture about equally often.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

_SHRINKAGE = 0.2  # of the covariance within gestures
_LEAST = -20.0  # log probability; one strange window must not decide for its run
_ROUNDS = 50


@dataclass(frozen=True, slots=True)
class GestureGuess:
    """A classifier of the training users' seen gestures. classes: (K,), ascending."""

    model: LinearDiscriminantAnalysis
    classes: NDArray[np.int64]

    @classmethod
    def of(cls, emg: NDArray[np.float64], label: NDArray[np.int64]) -> Self:
        """From the training users' EMG features (N, F), standardised by user, and labels (N,)."""
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=_SHRINKAGE).fit(emg, label)
        return cls(model, np.asarray(model.classes_, np.int64))

    def __call__(self, emg: NDArray[np.float64], run: NDArray[np.int64]) -> NDArray[np.float64]:
        """(N, F) and the run (N,) of each window -> (N, K): shares, each row's sum is 1.

        All windows of a run get its shares, and over runs every gesture has the same.
        """
        log = np.maximum(self.model.predict_log_proba(emg), _LEAST)
        _, of_run = np.unique(run, return_inverse=True)
        total = np.zeros((of_run.max() + 1, len(self.classes)))
        np.add.at(total, of_run, log)
        return balanced(total / np.bincount(of_run)[:, None])[of_run]


def balanced(log: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log probabilities (N, K) -> (N, K): rows sum to 1, columns to N / K, nearest in divergence.

    Columns agree as far as the rounds carry: to a few per cent where rows are almost certain.
    """
    for _ in range(_ROUNDS):
        log = log_softmax(log_softmax(log, axis=0), axis=1)
    return np.asarray(np.exp(log))

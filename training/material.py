"""What encoders are trained on: paired windows of EMG and pose, wherever they come from."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class LabelledWindows(Protocol):
    """N windows, each of one user and one gesture."""

    @property
    def label(self) -> NDArray[np.integer[Any]]:
        """(N,) gesture of each window."""
        ...

    @property
    def user(self) -> NDArray[np.integer[Any]]:
        """(N,) user of each window."""
        ...

    def __len__(self) -> int:
        """Number of windows, N."""
        ...


class PairedWindows(LabelledWindows, Protocol):
    """Windows of EMG with the hand pose of the same time, read when asked for."""

    def inputs(
        self, index: NDArray[np.int64], population: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Encoder input (B, C, T): by the population's profile (T0) where `population`, else T1."""
        ...

    def pose(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scaled joint angles (B, J, T)."""
        ...


@dataclass(frozen=True)
class Material:
    """Training and validation windows, and what augmentation must know of the band.

    ring: so many channels go once around the arm; is_envelope: rectified and smoothed by the
    recorder, so that neighbouring electrodes may be interpolated
    """

    train: PairedWindows
    val: PairedWindows
    ring: int
    is_envelope: bool


class Balanced:
    """Draws windows so that every (user, gesture) pair is equally likely; sorts them once."""

    def __init__(self, windows: LabelledWindows) -> None:
        cell = windows.user * 1000 + windows.label
        order = np.argsort(cell, kind="stable")
        _, self._first, self._count = np.unique(cell[order], return_index=True, return_counts=True)
        self._order: NDArray[np.int32] = order.astype(np.int32)

    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Indices of a batch."""
        chosen = rng.integers(len(self._first), size=size)
        within = (rng.random(size) * self._count[chosen]).astype(np.int64)
        at: NDArray[np.int64] = self._first[chosen] + within
        return self._order[at].astype(np.int64)


def balanced_batch(
    windows: LabelledWindows, size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Indices of one batch in which every (user, gesture) pair is equally likely."""
    return Balanced(windows).draw(size, rng)

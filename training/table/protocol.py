"""What a method gets to see, and what it must answer.

The referee builds these values; a method has no other way to the recordings. So no EMG of an
unseen gesture reaches `fit`, no label of a test window reaches anything, and of a test user each
tier gives only what its name allows:

    T0  nothing
    T1  unlabelled EMG of the user's seen gestures, repetitions 1, 3 and 4
    T2  the same with labels
    T3  the same with labels and the user's own glove
    pose  the test window's own glove in place of its EMG: no tier but an upper bound
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embridge.training.table.splits import CALIBRATION

Floats = NDArray[np.float32] | NDArray[np.float64]
Embedder = Callable[[NDArray[np.float32]], Floats]  # (N, C, T) -> (N, [M,] D)
PoseEmbedder = Callable[[NDArray[np.float32]], Floats]  # (N, J, T) -> (N, D)
Penalty = Callable[[NDArray[np.float32]], NDArray[np.float64]]  # (N, C, T) -> (N,)
Classifier = Callable[[NDArray[np.float32]], NDArray[np.int64]]  # (N, C, T) -> (N,) gestures


class Tier(StrEnum):
    """What is known of a test user; T0 to T3 each include the ones before."""

    T0 = "T0"
    T1 = "T1"
    T2 = "T2"
    T3 = "T3"
    POSE = "pose"


@dataclass(frozen=True, slots=True)
class Gallery:
    """Poses of the training users, of all gestures: the only knowledge of an unseen gesture.

    pose: (G, J, T), glove standardised per user and sensor; label: (G,) gestures 1..12;
    user: (G,) index into TrainSet.users
    """

    pose: NDArray[np.float32]
    label: NDArray[np.int64]
    user: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrainSet:
    """Paired windows of the training users' seen gestures, and the gallery. Arrays are read-only.

    emg: (N, C, T) envelopes in volts; pose: (N, J, T), glove standardised per user and sensor over
    that user's windows of all gestures; label, repetition, run: (N,); user: (N,) index into
    `users`; ring: the first so many channels go around the arm
    """

    emg: NDArray[np.float32]
    pose: NDArray[np.float32]
    label: NDArray[np.int64]
    repetition: NDArray[np.int64]
    run: NDArray[np.int64]
    user: NDArray[np.int64]
    users: tuple[str, ...]
    seen: tuple[int, ...]
    unseen: tuple[int, ...]
    rate_hz: float
    ring: int
    gallery: Gallery

    @property
    def calibration(self) -> NDArray[np.bool_]:
        """(N,) the windows that UserData would hold, were the user a test user."""
        return np.isin(self.repetition, CALIBRATION)


@dataclass(frozen=True, slots=True)
class UserData:
    """What a tier gives of one test user; None where it does not. Arrays are read-only.

    emg: (N, C, T) of the calibration repetitions, runs in random order (NinaPro's users make the
    gestures in one fixed order, which would tell them apart); run: (N,) numbers in that order;
    label: (N,); pose: (N, J, T), glove standardised over these windows
    """

    tier: Tier
    emg: NDArray[np.float32] | None
    run: NDArray[np.int64] | None
    label: NDArray[np.int64] | None
    pose: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Adapted:
    """A method made ready for one test user.

    embed: (N, C, T) -> (N, D), or (N, M, D) of which the best counts
    seen_penalty: (N, C, T) -> (N,), subtracted from each window's cosines to seen gestures where
        all gestures compete (calibrated stacking); None: nothing is
    centred: the candidates' mean of class means is taken from queries and poses first
    embed_pose: in place of the method's, where the user's own data say how poses are to be seen

    Each window is embedded and penalised on its own; the referee compares with single windows.
    """

    embed: Embedder
    seen_penalty: Penalty | None = None
    centred: bool = False
    embed_pose: PoseEmbedder | None = None


@runtime_checkable
class Method(Protocol):
    """An encoder pair to be judged; a fresh one is made for each split and seed."""

    @property
    def tier(self) -> Tier:
        """What it needs of a test user."""
        ...

    def fit(self, training: TrainSet) -> None:
        """Learn; whatever is tuned is tuned on these users."""
        ...

    def embed_pose(self, pose: NDArray[np.float32]) -> Floats:
        """(N, J, T) -> (N, D)."""
        ...

    def adapt(self, user: UserData) -> Adapted:
        """The EMG encoder for one user; never called in tier `pose`."""
        ...


class SeenClassifier(Protocol):
    """A classifier without poses: it knows the seen gestures only."""

    @property
    def tier(self) -> Tier:
        """What it needs of a test user."""
        ...

    def fit(self, training: TrainSet) -> None:
        """Learn from EMG and labels."""
        ...

    def adapt(self, user: UserData) -> Classifier:
        """The classifier for one user."""
        ...

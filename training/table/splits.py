"""Who and what is held out: three user rotations x three folds of four unseen gestures."""

from collections.abc import Sequence
from dataclasses import dataclass

from embridge.device.errors import ConfigError

FOLDS = ((1, 4, 7, 10), (2, 5, 8, 11), (3, 6, 9, 12))
ALL = tuple(sorted(gesture for fold in FOLDS for gesture in fold))
CALIBRATION = (1, 3, 4)  # repetitions of seen gestures that T1, T2 and T3 may use
ROTATIONS = 3


@dataclass(frozen=True, slots=True)
class Split:
    """Users by name; gestures 1..12."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    fold: int

    @property
    def unseen(self) -> tuple[int, ...]:
        """Gestures of which nobody's EMG is in the training data."""
        return FOLDS[self.fold]

    @property
    def seen(self) -> tuple[int, ...]:
        """The other gestures."""
        return tuple(gesture for gesture in ALL if gesture not in self.unseen)


def rotations(users: Sequence[str]) -> list[Split]:
    """Every third user held out in turn, each time with all folds: 9 splits."""
    if len(users) < ROTATIONS:
        raise ConfigError(
            f"expected at least {ROTATIONS} users to hold every third out, got {len(users)}: add "
            "recordings, or name other test users"
        )
    return [
        Split(tuple(u for u in users if u not in test), test, fold)
        for test in (tuple(users[first::ROTATIONS]) for first in range(ROTATIONS))
        for fold in range(len(FOLDS))
    ]


def held_out(train: Sequence[str], test: Sequence[str]) -> list[Split]:
    """Train on all of some users, test on others: 3 splits, one for each fold."""
    if both := sorted(set(train) & set(test)):
        raise ConfigError(
            f"expected test users that were not trained on, got {', '.join(both)} in both: "
            "choose other recordings"
        )
    return [Split(tuple(train), tuple(test), fold) for fold in range(len(FOLDS))]

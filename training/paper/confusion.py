"""Confusion counts of each user, over windows and over repetitions by vote, and what they mean."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.training.table.decide import Decided, vote_of_runs
from embridge.training.table.scores import balanced_accuracy, figure_of_users, recalls
from embridge.training.windows import WindowSet

UNITS = ("windows", "repetitions")
FEW_USERS = 8
Counts = NDArray[np.int64]  # (..., U, K, K) of users, true and decided label


@dataclass(frozen=True)
class Truth:
    """What N windows really are.

    user: (N,) index into `users`; label: (N,); run: (N,) which contiguous stretch of one gesture a
    window lies in, unique over users; start: (N,) first sample, comparable within a run
    """

    users: tuple[str, ...]
    user: NDArray[np.int64]
    label: NDArray[np.int64]
    run: NDArray[np.int64]
    start: NDArray[np.int64]

    @classmethod
    def of(cls, windows: WindowSet) -> "Truth":
        """Of windows that were cut from recordings."""
        return cls(windows.users, windows.user, windows.label, windows.trial, windows.start)

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.label)

    def select(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> "Truth":
        """The windows chosen by a mask or by indices."""
        return Truth(
            self.users, self.user[keep], self.label[keep], self.run[keep], self.start[keep]
        )


@dataclass(frozen=True)
class Measured:
    """A mean over users with its 95 % bootstrap interval over users."""

    mean: float
    ci95: tuple[float, float]
    per_user: dict[str, float]

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"users": len(self.per_user)}

    def brief(self) -> str:
        """As .512 [.430, .601]."""
        low, high = self.ci95
        return f"{self.mean:.3f} [{low:.3f}, {high:.3f}]"


def over_users(values: NDArray[np.float64], users: tuple[str, ...]) -> Measured | None:
    """Values (U,), NaN for a user who made none of the gestures; None when nobody did."""
    known = np.flatnonzero(~np.isnan(values))
    if not len(known):
        return None
    figure = figure_of_users(values[known])
    return Measured(
        figure.mean,
        figure.ci95,
        {users[u]: float(values[u]) for u in known},
    )


def confusion(truth: Truth, decided: Decided, labels: int) -> Counts:
    """(units, U, K, K) in the order of UNITS; a repetition is decided by vote of its windows."""
    counts = np.zeros((len(UNITS), len(truth.users), labels, labels), np.int64)
    if not len(truth):
        return counts
    np.add.at(counts[0], (truth.user, truth.label, decided.gesture), 1)
    _, first = np.unique(truth.run, return_index=True)
    voted = vote_of_runs(decided, truth.run)
    np.add.at(counts[1], (truth.user[first], truth.label[first], voted), 1)
    return counts


def accuracy(
    counts: Counts, users: tuple[str, ...], rows: NDArray[np.bool_] | None = None
) -> Measured | None:
    """Balanced accuracy (U, K, K), per user and averaged. rows: (K,) true labels that count."""
    return over_users(balanced_accuracy(counts, rows), users)


def recall_of(counts: Counts, names: tuple[str, ...]) -> dict[str, float]:
    """Recall of each gesture that comes up, all users' windows together; counts: (U, K, K)."""
    recall = recalls(counts.sum(axis=0))
    return {name: float(r) for name, r in zip(names, recall, strict=True) if not np.isnan(r)}


def cautions(users: int) -> list[str]:
    """What to print beside intervals over so many users; nothing when they are enough."""
    few = f"Fewer than {FEW_USERS} users: the intervals are wide and coarse."
    return [few] if users < FEW_USERS else []


def columns(cells: list[list[str]]) -> str:
    """Rows of cells as a table for a terminal."""
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)

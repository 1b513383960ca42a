"""Figures from confusion counts: balanced accuracy, harmonic mean, intervals over users."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 5000


@dataclass(frozen=True, slots=True)
class Figure:
    """A mean over users, each the mean over that user's folds and seeds.

    ci95: percentiles 2.5 and 97.5 of the mean when users are drawn with replacement
    """

    mean: float
    ci95: tuple[float, float]
    per_user: tuple[float, ...]

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def recalls(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Confusion counts (..., true, decided) -> recall of each gesture, NaN where it never comes."""
    total = counts.sum(axis=-1)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    return np.asarray(np.where(total > 0, right / np.maximum(total, 1), np.nan))


def balanced_accuracy(
    counts: NDArray[np.int64], rows: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Mean recall of the gestures that come up, (..., 12, 12) -> (...).

    rows: (..., 12), broadcast, the true gestures that count; None: all. NaN where none comes up.
    """
    recall = recalls(counts)
    present = ~np.isnan(recall) if rows is None else ~np.isnan(recall) & rows
    number = present.sum(axis=-1)
    total = np.where(present, recall, 0.0).sum(axis=-1)
    return np.asarray(np.where(number > 0, total / np.maximum(number, 1), np.nan))


def harmonic_mean(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """2ab / (a + b), 0 where both are 0."""
    return np.asarray(2 * a * b / np.maximum(a + b, 1e-300))


def figure(values: NDArray[np.float64], seed: int = 0) -> Figure:
    """Values (S, U, F) of seeds, users and folds; a fold that a user lacks (NaN) is left out."""
    return figure_of_users(np.nanmean(values, axis=(0, 2)), seed)


def figure_of_users(per_user: NDArray[np.float64], seed: int = 0) -> Figure:
    """Mean over users with its bootstrap interval."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(per_user), size=(RESAMPLES, len(per_user)))
    low, high = np.percentile(per_user[drawn].mean(axis=1), [2.5, 97.5])
    return Figure(
        float(per_user.mean()), (float(low), float(high)), tuple(float(v) for v in per_user)
    )


def difference(figure: Figure, reference: Figure) -> Figure:
    """How much more, user by user (the same users in the same order)."""
    return figure_of_users(np.array(figure.per_user) - np.array(reference.per_user))

"""Unsupervised alignment of electrodes: which rotation or reflection of the ring fits others best.

A donned ring sits rotated, and on the other arm mirrored. Three things that need no label tell how:
the mean and the deviation of each channel's log envelope, and the correlations between channels.
Training users are brought to their common template by turns, a new user to that template.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Order = tuple[int, ...]  # channel to take for each place
_ROUNDS = 10  # alternations; in practice they settle within five


def orders(ring: int, channels: int, *, reflect: bool) -> list[Order]:
    """Rotations (and reflections) of the first `ring` channels; identity first, others stay."""
    around = list(range(ring))
    rest = list(range(ring, channels))
    directions = [around, around[::-1]] if reflect else [around]
    return [(*d[s:], *d[:s], *rest) for d in directions for s in range(ring)]


@dataclass(frozen=True, slots=True)
class Signature:
    """A user's channels without labels; each part is centred and of length 1.

    mean, deviation: (C,) of the log envelope over windows; correlation: (C, C), zero diagonal
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    correlation: NDArray[np.float64]

    @classmethod
    def of(cls, log_envelope: NDArray[np.float64]) -> Self:
        """Of calibration windows (N, C)."""
        channels = log_envelope.shape[1]
        spread = np.maximum(log_envelope.std(axis=0), 1e-8)
        scaled = (log_envelope - log_envelope.mean(axis=0)) / spread
        correlation = scaled.T @ scaled / len(scaled)
        off = ~np.eye(channels, dtype=bool)
        correlation[off] = _normalised(correlation[off])
        correlation[~off] = 0.0
        return cls(_normalised(log_envelope.mean(axis=0)), _normalised(spread), correlation)

    def vector(self, order: Order) -> NDArray[np.float64]:
        """As it would be with the channels taken in this order, (2C + C * C,)."""
        index = list(order)
        correlation = self.correlation[np.ix_(index, index)].ravel()
        return np.concatenate([self.mean[index], self.deviation[index], correlation])


@dataclass(frozen=True, slots=True)
class Alignment:
    """template: sum of the training users' signatures, each in its order."""

    template: NDArray[np.float64]
    choices: tuple[Order, ...]

    def order(self, signature: Signature) -> Order:
        """The order in which this user's channels fit the template best."""
        return _best(signature, self.template, self.choices)


def align(signatures: list[Signature], choices: list[Order]) -> tuple[Alignment, list[Order]]:
    """Bring training users together; returns the template and each user's order."""
    chosen = [choices[0]] * len(signatures)
    for _ in range(_ROUNDS):
        vectors = [s.vector(o) for s, o in zip(signatures, chosen, strict=True)]
        template = np.sum(vectors, axis=0)
        updated = [
            _best(signature, template - own, choices)  # against the others, not against itself
            for signature, own in zip(signatures, vectors, strict=True)
        ]
        if updated == chosen:
            break
        chosen = updated
    vectors = [s.vector(o) for s, o in zip(signatures, chosen, strict=True)]
    return Alignment(np.sum(vectors, axis=0), tuple(choices)), chosen


def reordered(features: NDArray[np.float64], order: Order) -> NDArray[np.float64]:
    """Features (N, F) of per-channel blocks, each block in the new channel order."""
    blocks = features.reshape(len(features), -1, len(order))
    return np.asarray(blocks[:, :, list(order)].reshape(features.shape))


def _best(
    signature: Signature, template: NDArray[np.float64], choices: list[Order] | tuple[Order, ...]
) -> Order:
    fits = [float(template @ signature.vector(order)) for order in choices]
    return choices[int(np.argmax(fits))]


def _normalised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = values - values.mean()
    return np.asarray(centred / max(float(np.linalg.norm(centred)), 1e-12))

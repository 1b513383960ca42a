"""Unsupervised alignment of electrodes: which rotation or reflection of the ring fits others best.

A donned ring sits rotated, and on the other arm mirrored. Three things that need no label tell how:
the mean and the deviation of each channel's log power, and the correlations between channels.
Training users are brought to their common template by turns, a new user to that template.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, PositiveInt

Order = tuple[int, ...]  # channel to take for each place
_ROUNDS = 10  # alternations; in practice they settle within five
_FLOOR = 0.1  # of the population's mean power, added before the logarithm


def log_power(windows: NDArray[np.float32], population: float) -> NDArray[np.float64]:
    """Log of each channel's mean square over a window: (N, C, T) -> (N, C).

    population: mean square over many wearers. The square of a root-compressed envelope is the
    envelope.
    """
    power = np.square(windows, dtype=np.float64).mean(axis=2)
    return np.asarray(np.log(power + _FLOOR * population))


def orders(ring: int, channels: int, *, reflect: bool) -> list[Order]:
    """Rotations (and reflections) of the first `ring` channels; identity first, others stay."""
    around = list(range(ring))
    rest = list(range(ring, channels))
    directions = [around, around[::-1]] if reflect else [around]
    return [(*d[s:], *d[:s], *rest) for d in directions for s in range(ring)]


@dataclass(frozen=True, slots=True)
class Signature:
    """A user's channels without labels; each part is centred and of length 1.

    mean, deviation: (C,) of the log power over windows; correlation: (C, C), zero diagonal
    """

    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    correlation: NDArray[np.float64]

    @classmethod
    def of(cls, log: NDArray[np.float64]) -> Self:
        """Of the log power of calibration windows, (N, C)."""
        channels = log.shape[1]
        spread = np.maximum(log.std(axis=0), 1e-8)
        scaled = (log - log.mean(axis=0)) / spread
        correlation = scaled.T @ scaled / len(scaled)
        off = ~np.eye(channels, dtype=bool)
        correlation[off] = _normalised(correlation[off])
        correlation[~off] = 0.0
        return cls(_normalised(log.mean(axis=0)), _normalised(spread), correlation)

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


class Band(BaseModel):
    """What the training users' bands have in common, as a front-end carries it.

    template: see Alignment; ring: so many channels, the first ones, go once around the arm
    reflect: whether a band may also sit mirrored
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    template: list[float]
    ring: PositiveInt
    reflect: bool

    def order(self, signature: Signature) -> Order:
        """The order in which a wearer's channels fit best."""
        choices = orders(self.ring, len(signature.mean), reflect=self.reflect)
        return Alignment(np.array(self.template), tuple(choices)).order(signature)


def fit_band(signatures: list[Signature], ring: int, *, reflect: bool) -> Band:
    """The band of training users, at least one."""
    choices = orders(ring, len(signatures[0].mean), reflect=reflect)
    alignment, _ = align(signatures, choices)
    return Band(template=alignment.template.tolist(), ring=ring, reflect=reflect)


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

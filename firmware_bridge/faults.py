"""A line that loses and flips bytes, reproducibly. Pure: the randomness is an argument.

Every sent byte is dropped with probability drop_rate, else one of its bits is flipped with
probability flip_rate, independently of all others; neither the damage nor its record depends on
how the stream was cut into chunks. The distance to the next damaged byte is geometric, so the work
is one draw per damaged byte, not per byte.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_BATCH: Final = 4096  # damaged bytes drawn at once


@dataclass(frozen=True, slots=True, eq=False)
class Damage:
    """Offsets into the stream as it was sent, ascending, int64."""

    dropped: NDArray[np.int64]
    flipped: NDArray[np.int64]


class FaultyLine:
    """Damages a byte stream; ValueError unless both rates are at least 0 and their sum below 1."""

    def __init__(self, drop_rate: float, flip_rate: float, rng: np.random.Generator) -> None:
        rate = drop_rate + flip_rate
        if not (drop_rate >= 0 and flip_rate >= 0 and rate < 1):
            raise ValueError(f"rates of {drop_rate} and {flip_rate}: expected both >= 0, sum < 1")
        self.bytes_sent = 0
        self.bytes_received = 0
        self._rate = rate
        self._drop_share = drop_rate / rate if rate else 0.0
        self._rng = rng
        self._offsets = np.zeros(0, np.int64)  # where the next damage is, and of which kind
        self._bits = np.zeros(0, np.uint8)  # the bit to flip; 0: drop
        self._drawn_to = -1  # offset of the last damage drawn
        self._log: list[tuple[NDArray[np.int64], NDArray[np.uint8]]] = []

    def damage(self, data: bytes) -> bytes:
        """What arrives of the next bytes of the stream."""
        offsets, bits = self._take(self.bytes_sent + len(data))
        self._log.append((offsets, bits))
        arrived = np.frombuffer(data, np.uint8).copy()
        local = offsets - self.bytes_sent
        arrived[local] ^= bits
        arrived = np.delete(arrived, local[bits == 0])
        self.bytes_sent += len(data)
        self.bytes_received += len(arrived)
        return arrived.tobytes()

    def take_log(self) -> Damage:
        """The damage since the last call of this, which forgets it."""
        log, self._log = self._log, []
        if not log:
            return Damage(np.zeros(0, np.int64), np.zeros(0, np.int64))
        offsets, bits = (np.concatenate(column) for column in zip(*log, strict=True))
        return Damage(offsets[bits == 0], offsets[bits != 0])

    def _take(self, end: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """The damage before offset `end` that was not taken yet."""
        while self._rate and self._drawn_to < end:
            self._draw()
        count = int(np.searchsorted(self._offsets, end))
        taken = self._offsets[:count], self._bits[:count]
        self._offsets, self._bits = self._offsets[count:], self._bits[count:]
        return taken

    def _draw(self) -> None:
        offsets = self._drawn_to + np.cumsum(self._rng.geometric(self._rate, _BATCH))
        bits = (1 << self._rng.integers(0, 8, _BATCH)).astype(np.uint8)
        bits[self._rng.random(_BATCH) < self._drop_share] = 0
        self._offsets = np.concatenate([self._offsets, offsets])
        self._bits = np.concatenate([self._bits, bits])
        self._drawn_to = int(offsets[-1])

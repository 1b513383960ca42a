"""Frames numbered modulo something -> blocks on one growing sample index, every loss located.

Pure: no I/O, no clock.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge.reassembly import Block, Gap, LinkStats

CLOCK_RESOLVES_S: Final = 1.0  # silence tells how often a number wrapped, if a wrap takes so long
EARLY: Final = 0.1  # of a wrap, by which the silence may end too early


class Counting:
    """What a device numbers modulo `modulus`, placed on one sample index.

    modulus: 1 where frames carry no number; then only an absence is seen
    frame_s: duration of one number
    samples_per_number: samples that share a number

    A loss is known modulo `modulus`. Where a wrap takes a second or more, the time in which the
    line was silent says how many wraps there were; a line that was not silent, or a shorter wrap,
    leaves losses of whole multiples of `modulus` unseen.
    """

    def __init__(
        self, modulus: int, frame_s: float, samples_per_number: int, stats: LinkStats
    ) -> None:
        self._modulus = modulus
        self._frame_s = frame_s
        self._samples_per_number = samples_per_number
        self._stats = stats
        self._expected: int | None = None
        self._next_frame = 0
        self._arrived_s: float | None = None

    def renumber(self) -> None:
        """The device was away and counts anew: its next frame is placed by the host's clock."""
        self._expected = None

    def push(
        self, number: int, samples: NDArray[np.int16], arrived_s: float, silent_s: float = 0.0
    ) -> list[Gap | Block]:
        """Take consecutive frames; return the gap before them, if any, and their samples.

        number: of the first frame
        samples: (T, C), T a multiple of samples_per_number
        silent_s: how long nothing had come from the line before this
        """
        items: list[Gap | Block] = []
        if missing := self._missing(number, arrived_s, silent_s):
            items.append(self._lose(missing))
        first = self._next_frame * self._samples_per_number
        items.append(Block(first, samples, arrived_s, seq=self._next_frame))
        frames = len(samples) // self._samples_per_number
        self._next_frame += frames
        self._expected = (number + frames) % self._modulus
        self._arrived_s = arrived_s
        self._stats.frames_received += frames
        self._stats.samples_received += len(samples)
        return items

    def _missing(self, number: int, arrived_s: float, silent_s: float) -> int:
        """Frames between the last one and this one."""
        if self._expected is not None:
            missing = (number - self._expected) % self._modulus
            if self._modulus * self._frame_s < CLOCK_RESOLVES_S:
                return missing
            wraps = math.floor((silent_s / self._frame_s - missing) / self._modulus + EARLY)
            return missing + self._modulus * max(0, wraps)
        if self._arrived_s is None:
            return 0
        return max(0, round((arrived_s - self._arrived_s) / self._frame_s) - 1)

    def _lose(self, frames: int) -> Gap:
        gap = Gap(self._next_frame * self._samples_per_number, frames * self._samples_per_number)
        self._next_frame += frames
        self._stats.frames_lost += frames
        self._stats.samples_lost += gap.samples
        self._stats.gaps += 1
        return gap

"""Wide values -> the int16 counts of a block, nothing clipped in silence."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge.errors import HandshakeError

# ADS1299, as in the Cyton: 24 bits at 4.5 V and gain 24.
UV_PER_ADC_COUNT: Final = 4.5 / (2**23 - 1) / 24 * 1e6
WHOLE_RANGE: Final = 256  # ADC counts per int16 count: 2**24 values on 2**16


class Narrowing:
    """Divides by `per_count`, rounds to the nearest integer and clips to int16.

    clipped: values that did not fit so far; `log` gets a line at the first of them
    """

    def __init__(self, per_count: float, advice: str, log: Callable[[str], None]) -> None:
        self.clipped = 0
        self._per_count = per_count
        self._advice = advice
        self._log = log

    def push(self, values: NDArray[np.generic]) -> NDArray[np.int16]:
        """values: (T, C), any real type -> (T, C) int16; HandshakeError for NaN or infinity."""
        counts = np.rint(values.astype(np.float64) / self._per_count)  # T C
        if not np.isfinite(counts).all():
            raise HandshakeError("the device sent NaN or infinity: check its electrodes and driver")
        limits = np.iinfo(np.int16)
        clipped = np.count_nonzero((counts < limits.min) | (counts > limits.max))
        if clipped and not self.clipped:
            self._log(f"values beyond the int16 range are clipped and counted; {self._advice}")
        self.clipped += clipped
        narrow: NDArray[np.int16] = np.clip(counts, limits.min, limits.max).astype(np.int16)
        return narrow

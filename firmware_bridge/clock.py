"""How fast a wrist's clocks run against the host's, from when its frames were taken and arrived.

A frame arrives when it was taken plus a delay that is never below some minimum: late frames say
nothing, the earliest of each second do. The drift is the slope of the line through those.
"""

from typing import Final

import numpy as np

SPAN_S: Final = 1.0  # the earliest arrival of each such span of device time is kept
MINIMUM_SPANS: Final = 3


class ClockFit:
    """Device time against host time; feed it every frame, ask whenever."""

    def __init__(self) -> None:
        self._earliest: dict[int, tuple[float, float, int]] = {}  # span -> lag, device, sample

    def restart(self) -> None:
        """The wrist booted, or the host's clock is another."""
        self._earliest.clear()

    def push(self, device_s: float, sample: int, arrived_s: float) -> None:
        """device_s: when the frame's first sample was taken; sample: its index."""
        span = int(device_s // SPAN_S)
        lag_s = arrived_s - device_s
        known = self._earliest.get(span)
        if known is None or lag_s < known[0]:
            self._earliest[span] = (lag_s, device_s, sample)

    @property
    def drift_ppm(self) -> float | None:
        """Positive: the device clock runs fast. None before MINIMUM_SPANS seconds."""
        slope = self._against_host(1)
        return None if slope is None else 1e6 * (slope - 1.0)

    @property
    def rate_hz(self) -> float | None:
        """Samples per second of the host's clock; None before MINIMUM_SPANS seconds."""
        return self._against_host(2)

    def _against_host(self, column: int) -> float | None:
        """Slope of device time (1) or sample (2) over the host's time of the earliest arrivals."""
        earliest = np.array([*self._earliest.values()]).reshape(-1, 3)
        host_s = earliest[:, 0] + earliest[:, 1]
        if len(host_s) < MINIMUM_SPANS or np.ptp(host_s) == 0:
            return None
        centred = host_s - host_s.mean()
        return float(centred @ earliest[:, column] / (centred @ centred))

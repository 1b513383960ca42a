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
        if len(self._earliest) < MINIMUM_SPANS:
            return None
        lag_s, device_s, _ = np.array([*self._earliest.values()]).T
        arrived_s = device_s + lag_s
        slope = _slope(arrived_s, device_s)
        return float(1e6 * (slope - 1.0))

    @property
    def rate_hz(self) -> float | None:
        """Samples per second of the host's clock; None before MINIMUM_SPANS seconds."""
        if len(self._earliest) < MINIMUM_SPANS:
            return None
        lag_s, device_s, sample = np.array([*self._earliest.values()]).T
        return float(_slope(device_s + lag_s, sample))


def _slope(x: np.ndarray, y: np.ndarray) -> float:  # type: ignore[type-arg]
    centred = x - x.mean()
    return float(centred @ (y - y.mean()) / (centred @ centred))

"""The drift of a wrist's clock, whatever the delays of its frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge.firmware_bridge.clock import ClockFit


def fed(ppm: float, delays_s: np.ndarray, frame_s: float = 0.01) -> ClockFit:
    fit = ClockFit()
    host_s = 1e5 + frame_s * np.arange(len(delays_s))
    device_s = (host_s - 1e5) * (1 + 1e-6 * ppm)
    for number, (device, host) in enumerate(zip(device_s, host_s + delays_s, strict=True)):
        fit.push(device, 20 * number, host)
    return fit


@given(st.floats(-500, 500), st.integers(0, 2**32 - 1))
def test_the_drift_is_found_through_delays_that_are_only_ever_late(ppm, seed):
    delays_s = np.random.default_rng(seed).exponential(0.003, 2000)
    fit = fed(ppm, delays_s)
    assert fit.drift_ppm == pytest.approx(ppm, abs=20)
    assert fit.rate_hz == pytest.approx(2000, rel=600e-6)


def test_two_seconds_are_too_few_to_tell():
    fit = fed(100.0, np.zeros(190))
    assert fit.drift_ppm is None
    assert fit.rate_hz is None


def test_a_restart_forgets_the_old_clock():
    fit = fed(100.0, np.zeros(500))
    assert fit.drift_ppm is not None
    fit.restart()
    assert fit.drift_ppm is None

"""A signal with the look of surface EMG, to try a link with. It means nothing."""

import numpy as np
import scipy.signal
from numpy.typing import NDArray

BAND_HZ = (20.0, 450.0)
BURST_HZ = 0.5  # contractions follow each other at this rate, later from channel to channel
REST_SHARE = 0.1
RMS_COUNTS = 400.0


def synthetic_counts(
    seconds: float, *, n_ch: int = 16, rate_hz: float = 2000.0, seed: int = 0
) -> NDArray[np.int16]:
    """Band-limited noise in bursts, (T, C) int16 of about RMS_COUNTS; the seed decides it."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    high_hz = min(BAND_HZ[1], 0.45 * rate_hz)
    band = scipy.signal.butter(2, (min(BAND_HZ[0], high_hz / 4), high_hz), "band", fs=rate_hz,
                               output="sos")  # fmt: skip
    noise = scipy.signal.sosfilt(band, rng.standard_normal((len(time_s), n_ch)), axis=0)
    phase = BURST_HZ * time_s[:, None] + np.arange(n_ch) / n_ch
    strength = np.maximum(REST_SHARE, np.sin(2 * np.pi * phase))  # T C
    counts = RMS_COUNTS * strength * noise / noise.std()
    clipped: NDArray[np.int16] = np.clip(np.rint(counts), -32768, 32767).astype(np.int16)
    return clipped

"""From raw samples to encoder input: filters, compression, normalisation.

The one front-end of the project: training, evaluation and the live runtime all call it, so that
what was trained is what runs. All of it is causal and sample by sample: exact in any chunking.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import signal

from embridge.device.errors import ConfigError

LIMIT = 5.0  # standard deviations: beyond is artefact, and int8 has no levels to spare for it


class FilterDesign(BaseModel):
    """What the filters should do; None or 0 leaves a filter out.

    compression "log": y = sign(x) log(1 + |x| / compression_floor), in the unit of the samples.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    highpass_hz: NonNegativeFloat | None = None
    lowpass_hz: NonNegativeFloat | None = None
    notch_hz: tuple[PositiveFloat, ...] = ()
    notch_q: PositiveFloat = 30.0
    order: PositiveInt = 4
    compression: Literal["none", "log"] = "none"


class FrontEnd(BaseModel):
    """A designed front-end, as the model package carries it.

    sos: (S, 6) second-order sections at `rate_hz`, empty for none
    offset, scale: (C,) of the training population, after filters and compression (tier T0)
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_hz: float
    sos: list[list[float]]
    compression: Literal["none", "log"]
    compression_floor: float
    offset: list[float]
    scale: list[float]

    @property
    def channels(self) -> int:
        """Number of electrode channels."""
        return len(self.offset)

    def stream(self) -> "FrontEndStream":
        """Start filtering a stream from rest."""
        return FrontEndStream(self)

    def filtered(self, samples: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float32]:
        """Filter and compress a whole recording, not normalised: (T, C) -> (T, C) float32."""
        return self.stream().push(samples)

    def normalise(
        self, filtered: NDArray[np.float32], profile: "UserProfile | None" = None
    ) -> NDArray[np.float32]:
        """(..., C) -> (..., C) by offset and scale, the wearer's (T1) or the population's (T0).

        Clipped to +-LIMIT standard deviations.
        """
        source = profile or self
        offset = np.asarray(source.offset, np.float32)
        scale = np.asarray(source.scale, np.float32)
        return np.clip((filtered - offset) / scale, -LIMIT, LIMIT)


class UserProfile(BaseModel):
    """What is known of one wearer, from unlabelled EMG (tier T1).

    offset, scale: (C,) mean and standard deviation after filters and compression
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    user: str
    rate_hz: float
    seconds: float
    offset: list[float]
    scale: list[PositiveFloat]

    def check(self, front_end: FrontEnd) -> "UserProfile":
        """Return self, or raise ConfigError when it was made for another stream."""
        got = (len(self.offset), len(self.scale), self.rate_hz)
        if got != (front_end.channels, front_end.channels, front_end.rate_hz):
            raise ConfigError(
                f"profile of {self.user}: expected {front_end.channels} channels at "
                f"{front_end.rate_hz:g} Hz, got {got[0]} offsets and {got[1]} scales at "
                f"{self.rate_hz:g} Hz; make it again with `embridge calibrate`"
            )
        return self


class FrontEndStream:
    """Filter state of one stream; `push` in any chunking equals one push of everything."""

    def __init__(self, front_end: FrontEnd) -> None:
        self._front_end = front_end
        self._sos = np.asarray(front_end.sos, np.float64).reshape(-1, 6)
        self._state = np.zeros((len(self._sos), 2, front_end.channels))

    def push(self, samples: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float32]:
        """Filter and compress the next samples: (T, C) in the unit of the stream -> (T, C)."""
        y = np.asarray(samples, np.float64)
        if y.ndim != 2 or y.shape[1] != self._front_end.channels:
            raise ConfigError(
                f"expected samples of shape (T, {self._front_end.channels}), got {y.shape}; "
                "the recording and the model must have the same channels"
            )
        if len(self._sos) and len(y):
            y, self._state = signal.sosfilt(self._sos, y, axis=0, zi=self._state)
        if self._front_end.compression == "log":
            y = np.sign(y) * np.log1p(np.abs(y) / self._front_end.compression_floor)
        return np.asarray(y, np.float32)


def design_sos(design: FilterDesign, rate_hz: float) -> list[list[float]]:
    """Butterworth and notch sections of a design; raises ConfigError beyond the Nyquist rate."""
    nyquist_hz = rate_hz / 2
    edges_hz = [f for f in (design.highpass_hz, design.lowpass_hz, *design.notch_hz) if f]
    if any(f >= nyquist_hz for f in edges_hz):
        raise ConfigError(
            f"filter edges {edges_hz} Hz: expected below {nyquist_hz:g} Hz (half of the "
            f"recording's {rate_hz:g} Hz); change [front_end] in the configuration"
        )
    sections = []
    if design.highpass_hz:
        sections.append(
            signal.butter(design.order, design.highpass_hz, "highpass", fs=rate_hz, output="sos")
        )
    if design.lowpass_hz:
        sections.append(
            signal.butter(design.order, design.lowpass_hz, "lowpass", fs=rate_hz, output="sos")
        )
    for notch_hz in design.notch_hz:
        sections.append(signal.tf2sos(*signal.iirnotch(notch_hz, design.notch_q, fs=rate_hz)))
    return [row.tolist() for row in np.concatenate(sections)] if sections else []


def fit_front_end(
    design: FilterDesign, rate_hz: float, samples: list[NDArray[np.float32]]
) -> FrontEnd:
    """Design the filters and measure the population's statistics on training samples.

    samples: one (T, C) array per recording, unfiltered
    compression_floor: mean of |filtered sample|: rest stays linear, bursts are compressed
    """
    channels = samples[0].shape[1]
    plain = FrontEnd(
        rate_hz=rate_hz,
        sos=design_sos(design, rate_hz),
        compression="none",
        compression_floor=1.0,
        offset=[0.0] * channels,
        scale=[1.0] * channels,
    )
    filtered = [plain.filtered(part) for part in samples]
    magnitude = np.concatenate([np.abs(part[::7]).ravel() for part in filtered])
    floor = float(magnitude.mean()) if magnitude.any() else 1.0
    shaped = plain.model_copy(
        update={"compression": design.compression, "compression_floor": floor}
    )
    offset, scale = channel_statistics([shaped.filtered(part) for part in samples])
    return shaped.model_copy(update={"offset": offset, "scale": scale})


def fit_profile(front_end: FrontEnd, user: str, filtered: list[NDArray[np.float32]]) -> UserProfile:
    """Measure a wearer's profile on filtered, unlabelled EMG: a list of (T, C)."""
    offset, scale = channel_statistics(filtered)
    return UserProfile(
        user=user,
        rate_hz=front_end.rate_hz,
        seconds=sum(len(part) for part in filtered) / front_end.rate_hz,
        offset=offset,
        scale=scale,
    )


def channel_statistics(parts: list[NDArray[np.float32]]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel over all parts; ConfigError on a flat channel."""
    count = sum(len(part) for part in parts)
    if count < 2:
        raise ConfigError(f"expected EMG to measure channel statistics on, got {count} samples")
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / count
    square = sum(((part - mean) ** 2).sum(axis=0, dtype=np.float64) for part in parts) / count
    scale = np.sqrt(square)
    flat = np.flatnonzero(~(scale > 1e-9))
    if len(flat):
        raise ConfigError(
            f"channel(s) {', '.join(map(str, flat))} are constant: expected EMG on every channel; "
            "check the electrodes with `embridge data check`"
        )
    return np.asarray(mean).tolist(), scale.tolist()

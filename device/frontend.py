"""From raw samples to encoder input: filters, compression, normalisation.

The one front-end of the project: training, evaluation and the live runtime all call it, so that
what was trained is what runs. All of it is causal and sample by sample: exact in any chunking.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from scipy import signal

from embridge.device.electrodes import Band, Signature, log_power
from embridge.device.errors import ConfigError
from embridge.device.moments import Moments

Compression = Literal["none", "log", "root"]
SETTLED = 1e-5  # of the largest sample: how far a filter may be off that is started from rest
SIGNATURE_S = 0.5  # windows that electrodes are compared over
LIMIT = 5.0  # standard deviations: beyond is artefact, and int8 has no levels to spare for it


class FilterDesign(BaseModel):
    """What the filters should do; None or 0 leaves a filter out.

    compression "log": y = sign(x) log(1 + |x| / compression_floor), in the unit of the samples;
    "root": y = sign(x) sqrt(|x| / compression_floor).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    highpass_hz: NonNegativeFloat | None = None
    lowpass_hz: NonNegativeFloat | None = None
    notch_hz: tuple[PositiveFloat, ...] = ()
    notch_q: PositiveFloat = 30.0
    order: PositiveInt = 4
    compression: Compression = "none"


class FrontEnd(BaseModel):
    """A designed front-end, as the model package carries it.

    sos: (S, 6) second-order sections at `rate_hz`, empty for none
    offset, scale: (C,) of the training population, after filters and compression (tier T0)
    band: what wearers' electrodes are brought to by their profiles; None: they are left in place
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate_hz: float
    sos: list[list[float]]
    compression: Compression
    compression_floor: float
    offset: list[float]
    scale: list[float]
    band: Band | None = None

    @property
    def channels(self) -> int:
        """Number of electrode channels."""
        return len(self.offset)

    @property
    def mean_square(self) -> float:
        """Of the population's filtered samples, over all channels."""
        return float(np.mean(np.square(self.offset) + np.square(self.scale)))

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

        Clipped to +-LIMIT standard deviations; electrodes in the order of the wearer's profile.
        """
        source = profile or self
        offset = np.asarray(source.offset, np.float32)
        scale = np.asarray(source.scale, np.float32)
        scaled = np.clip((filtered - offset) / scale, -LIMIT, LIMIT)
        return scaled[..., profile.order] if profile and profile.order else scaled


class UserProfile(BaseModel):
    """What is known of one wearer, from unlabelled EMG (tier T1).

    offset, scale: (C,) mean and standard deviation after filters and compression
    order: (C,) electrode to take for each channel of the training band; None: they are its own
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    user: str
    rate_hz: float
    seconds: float
    offset: list[float]
    scale: list[PositiveFloat]
    order: list[NonNegativeInt] | None = None

    def check(self, front_end: FrontEnd) -> "UserProfile":
        """Return self, or raise ConfigError when it was made for another stream."""
        got = (len(self.offset), len(self.scale), self.rate_hz)
        if got != (front_end.channels, front_end.channels, front_end.rate_hz):
            raise ConfigError(
                f"profile of {self.user}: expected {front_end.channels} channels at "
                f"{front_end.rate_hz:g} Hz, got {got[0]} offsets and {got[1]} scales at "
                f"{self.rate_hz:g} Hz; make it again with `embridge calibrate`"
            )
        if self.order is not None and sorted(self.order) != list(range(front_end.channels)):
            raise ConfigError(
                f"profile of {self.user}: expected each of {front_end.channels} electrodes once in "
                f"`order`, got {self.order}; make it again with `embridge calibrate`"
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
        elif self._front_end.compression == "root":
            y = np.sign(y) * np.sqrt(np.abs(y) / self._front_end.compression_floor)
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


def settling_rows(sos: list[list[float]]) -> int:
    """Rows after which filters started from rest give what they would have given all along.

    The smallest n with sum of |h[k]| over k >= n <= SETTLED, h the impulse response: outputs then
    differ by at most SETTLED of the largest sample before. The slowest pole, of radius r, has
    decayed to SETTLED after ln SETTLED / ln r rows; h is looked at for twice as long.
    """
    poles = np.concatenate([np.roots(row[3:]) for row in sos]) if sos else np.zeros(0)
    slowest = float(np.abs(poles).max(initial=0.0))
    if not slowest:
        return 0
    impulse = np.zeros(2 * int(np.ceil(np.log(SETTLED) / np.log(slowest))) + 1)
    impulse[0] = 1.0
    response = np.abs(signal.sosfilt(np.asarray(sos), impulse))
    return int((np.cumsum(response[::-1]) > SETTLED).sum())


def fit_front_end(
    design: FilterDesign,
    rate_hz: float,
    recordings: Sequence[Iterable[NDArray[np.float32]]],
    done: Callable[[], None] = lambda: None,
) -> FrontEnd:
    """Design the filters and measure the population's statistics on training samples.

    recordings: each the (T, C) blocks of one recording in their order, unfiltered, gone through
        twice when there is compression; done: called after each recording, each time
    compression_floor: mean of |filtered sample|: rest stays linear, bursts are compressed
    """
    channels = next((block.shape[1] for part in recordings for block in part), 0)
    plain = FrontEnd(
        rate_hz=rate_hz,
        sos=design_sos(design, rate_hz),
        compression="none",
        compression_floor=1.0,
        offset=[0.0] * channels,
        scale=[1.0] * channels,
    )
    magnitude, measured = Moments(1), Moments(channels)
    for filtered in _each_filtered(plain, recordings, done):
        magnitude.add(np.abs(filtered).reshape(-1, 1))
        measured.add(filtered)
    floor = float(magnitude.mean[0]) or 1.0
    shaped = plain.model_copy(
        update={"compression": design.compression, "compression_floor": floor}
    )
    if design.compression != "none":
        measured = Moments(channels)
        for filtered in _each_filtered(shaped, recordings, done):
            measured.add(filtered)
    offset, scale = _channel_statistics(measured)
    return shaped.model_copy(update={"offset": offset, "scale": scale})


def _each_filtered(
    front_end: FrontEnd,
    recordings: Sequence[Iterable[NDArray[np.float32]]],
    done: Callable[[], None],
) -> Iterator[NDArray[np.float32]]:
    for recording in recordings:
        stream = front_end.stream()
        for block in recording:
            yield stream.push(block)
        done()


def fit_profile(
    front_end: FrontEnd, user: str, filtered: Iterable[NDArray[np.float32]]
) -> UserProfile:
    """Measure a wearer's profile on filtered, unlabelled EMG: blocks of (T, C).

    Electrodes are compared over windows of SIGNATURE_S, which lie within a block.
    """
    measured, logs = Moments(front_end.channels), []
    for part in filtered:
        measured.add(part)
        if front_end.band:
            logs.append(_log_power(front_end, part))
    offset, scale = _channel_statistics(measured)
    order = front_end.band.order(Signature.of(np.concatenate(logs))) if front_end.band else None
    return UserProfile(
        user=user,
        rate_hz=front_end.rate_hz,
        seconds=measured.count / front_end.rate_hz,
        offset=offset,
        scale=scale,
        order=None if order is None else list(order),
    )


def fit_signature(front_end: FrontEnd, filtered: Iterable[NDArray[np.float32]]) -> Signature:
    """A wearer's electrodes without labels, from filtered EMG: blocks of (T, C)."""
    return Signature.of(np.concatenate([_log_power(front_end, part) for part in filtered]))


def _log_power(front_end: FrontEnd, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """(T, C) -> (N, C), one row for every SIGNATURE_S; what is left over at the end is not used."""
    size = min(round(SIGNATURE_S * front_end.rate_hz), max(len(rows), 1))
    windows = rows[: len(rows) // size * size].reshape(-1, size, front_end.channels)
    return log_power(windows.transpose(0, 2, 1), front_end.mean_square)


def _channel_statistics(measured: Moments) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel; ConfigError on a flat channel."""
    if measured.count < 2:
        raise ConfigError(
            f"expected EMG to measure channel statistics on, got {measured.count} samples"
        )
    scale = measured.spread
    flat = np.flatnonzero(~(scale > 1e-9))
    if len(flat):
        raise ConfigError(
            f"channel(s) {', '.join(map(str, flat))} are constant: expected EMG on every channel; "
            "check the electrodes with `embridge data check`"
        )
    return measured.mean.tolist(), scale.tolist()

"""What `embridge check` does: is this signal fit to be recorded, channel by channel; if not, why.

The figures are those that `data_check` judges recordings by.
"""

import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge.device.data_check import (
    CLIPPED_SHARE,
    HUM_SHARE,
    RATE_ERROR_SHARE,
    clipped_share,
    power_share,
)
from embridge.device.errors import ConfigError
from embridge.device.source import Source, physical
from embridge.firmware_bridge import Block, Gap, Restarted, StreamInfo
from embridge.firmware_bridge.clock import ClockFit

MICROVOLTS: Final = {"uV": 1.0, "µV": 1.0, "mV": 1e3, "V": 1e6}  # in one of the unit
HUM_S: Final = 1.0  # of signal that the spectrum needs


@dataclass(frozen=True, slots=True)
class SignalLimits:
    """Above (or outside) these a signal is unfit; shares are of 1.

    rms_low_uv, rms_high_uv: of a raw channel in volts: below, no skin is touched; above, it is no
        EMG. Other units and envelopes are not judged by size
    """

    railed_share: float = CLIPPED_SHARE
    hum_share: float = HUM_SHARE
    rms_low_uv: float = 0.5
    rms_high_uv: float = 3000.0
    lost_share: float = 0.001  # of all samples
    rate_error_share: float = RATE_ERROR_SHARE


@dataclass(frozen=True, slots=True)
class ChannelSignal:
    """One channel; hum_share is None where there is no spectrum to judge (envelope, too short)."""

    channel: int
    rms: float  # about its mean, in the stream's unit
    railed_share: float
    hum_share: float | None  # of the worse of 50 and 60 Hz
    hum_hz: float | None
    faults: tuple[str, ...]  # each with what to do


@dataclass(frozen=True, slots=True)
class SignalReport:
    """What was found in `seconds` of signal."""

    seconds: float
    unit: str
    rate_hz: float  # declared
    measured_rate_hz: float | None  # by the host's clock; None: too short to tell
    gaps: int
    samples_lost: int
    channels: tuple[ChannelSignal, ...]
    stream_faults: tuple[str, ...]

    @property
    def fit(self) -> bool:
        """Nothing is wrong with it."""
        return not self.stream_faults and not any(channel.faults for channel in self.channels)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"fit": self.fit} | asdict(self)

    def lines(self) -> list[str]:
        """A table: one line for each channel, then the stream."""
        lines = [f"{'channel':>7}  {'rms ' + self.unit:>9}  {'railed':>7}  {'hum':>10}  verdict"]
        for one in self.channels:
            hum = "-" if one.hum_share is None else f"{one.hum_share:.0%} {one.hum_hz:g} Hz"
            verdict = "; ".join(one.faults) or "ok"
            lines.append(
                f"{one.channel:>7}  {one.rms:>9.4g}  {one.railed_share:>7.2%}  {hum:>10}  {verdict}"
            )
        measured = "unknown" if self.measured_rate_hz is None else f"{self.measured_rate_hz:.5g} Hz"
        lines.append(
            f"stream: {self.seconds:.1f} s, {self.rate_hz:g} Hz declared, {measured} measured, "
            f"{self.samples_lost} samples lost in {self.gaps} gaps"
        )
        return [*lines, *self.stream_faults, "fit to record" if self.fit else "NOT fit to record"]


def read_limits(path: Path) -> SignalLimits:
    """Limits from a TOML file of names and numbers, the rest as they are; ConfigError."""
    known = [field.name for field in fields(SignalLimits)]
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file of limits; check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path}: not TOML ({error}): write lines like hum_share = 0.4"
        ) from error
    for name, value in given.items():
        if name not in known or isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(
                f"{path}: {name} = {value!r}: expected a number for one of {', '.join(known)}"
            )
    return replace(SignalLimits(), **given)


def check_signal(
    source: Source,
    seconds: float = 10.0,
    limits: SignalLimits | None = None,
    *,
    judge_rate: bool = True,
    progress: Callable[[int, int, str], None] | None = None,
) -> SignalReport:
    """Judge `seconds` of an opened source, lost samples included.

    judge_rate: False for a recording that is not played in real time

    Raises ConfigError when the stream ends before half of it came, LinkError as the source.
    """
    limits = limits or SignalLimits()
    taken = _take(source, seconds, progress)
    info = source.info
    rate_hz = taken.fit.rate_hz if judge_rate else None
    return SignalReport(
        seconds=len(taken.counts) / info.rate_hz,
        unit=info.unit,
        rate_hz=info.rate_hz,
        measured_rate_hz=rate_hz,
        gaps=taken.gaps,
        samples_lost=taken.samples_lost,
        channels=_channels(taken.counts, info, limits),
        stream_faults=tuple(_stream_faults(info, taken, rate_hz, limits)),
    )


@dataclass(slots=True)
class _Taken:
    """What came from the source."""

    counts: NDArray[np.int16]  # T C
    gaps: int
    samples_lost: int
    restarts: int
    fit: ClockFit


def _take(
    source: Source, seconds: float, progress: Callable[[int, int, str], None] | None
) -> _Taken:
    info = source.info
    wanted, parts = seconds * info.rate_hz, [np.empty((0, info.n_ch), np.int16)]
    received = 0
    taken = _Taken(parts[0], 0, 0, 0, ClockFit())
    for item in source.blocks():
        if isinstance(item, Block):
            parts.append(item.samples)
            received += len(item.samples)
            taken.fit.push(item.first_sample / info.rate_hz, item.first_sample, item.arrived_s)
        elif isinstance(item, Gap):
            taken.gaps += 1
            taken.samples_lost += item.samples
        elif isinstance(item, Restarted):
            taken.restarts += 1
            taken.fit.restart()
        passed = received + taken.samples_lost
        if progress:
            progress(min(int(passed / info.rate_hz), int(seconds)), int(seconds), "check")
        if passed >= wanted:
            break
    if received < wanted / 2:
        raise ConfigError(
            f"expected {seconds:g} s of signal, {received / info.rate_hz:.1f} s came: check the "
            "link, or ask for less with --seconds"
        )
    taken.counts = np.concatenate(parts)
    return taken


def _stream_faults(
    info: StreamInfo, taken: _Taken, rate_hz: float | None, limits: SignalLimits
) -> Iterator[str]:
    share = taken.samples_lost / max(1, taken.samples_lost + len(taken.counts))
    if share > limits.lost_share:
        yield (
            f"{share:.2%} of the samples were lost: bring the wrist closer, or use a better cable "
            "or a higher baud rate"
        )
    if taken.restarts:
        yield f"the wrist restarted {taken.restarts} times: charge its battery, check its supply"
    if rate_hz is not None and abs(rate_hz / info.rate_hz - 1.0) > limits.rate_error_share:
        yield (
            f"{rate_hz:.5g} samples arrive per second where {info.rate_hz:g} are declared: correct "
            "the rate that its firmware declares, or its sampling clock"
        )


def _channels(
    counts: NDArray[np.int16], info: StreamInfo, limits: SignalLimits
) -> tuple[ChannelSignal, ...]:
    emg = physical(counts, info.scale)  # T C
    railed = np.maximum(_limit_share(counts, info), clipped_share(emg, info.envelope))  # C
    rms = emg.astype(np.float64).std(axis=0)  # C
    flat = np.ptp(counts, axis=0) == 0
    hum: list[tuple[NDArray[np.float64], float]] = []
    if not info.envelope and len(emg) >= HUM_S * info.rate_hz:
        hum = [(power_share(emg, info.rate_hz, hz), hz) for hz in (50.0, 60.0)]
    found = []
    for channel in range(info.n_ch):
        share, hz = max(((float(s[channel]), hz) for s, hz in hum), default=(None, None))
        on_rail = min(1.0, float(railed[channel]))
        one = ChannelSignal(channel, float(rms[channel]), on_rail, share, hz, ())
        faults = _channel_faults(one, info, bool(flat[channel]), limits)
        found.append(replace(one, faults=tuple(faults)))
    return tuple(found)


def _limit_share(counts: NDArray[np.int16], info: StreamInfo) -> NDArray[np.float64]:
    """Share of samples on the limits of the converter, (C,); an envelope may rest on the lower."""
    top = 2 ** (info.bits - 1) - 1
    on_limit = counts >= top  # T C
    if not info.envelope:
        on_limit |= counts <= -top - 1
    return np.asarray(on_limit.mean(axis=0), np.float64)


def _channel_faults(
    one: ChannelSignal, info: StreamInfo, flat: bool, limits: SignalLimits
) -> Iterator[str]:
    if flat:
        yield "flat, it never changes: check electrode and cable"
        return
    if one.railed_share > limits.railed_share:
        yield "railed: lower the amplifier's gain, check the reference electrode"
    if one.hum_share is not None and one.hum_share > limits.hum_share:
        yield f"{one.hum_hz:g} Hz hum: check skin contact, move off mains, switch the notch on"
    if info.envelope or info.unit not in MICROVOLTS:
        return
    rms_uv = one.rms * MICROVOLTS[info.unit]
    if rms_uv < limits.rms_low_uv:
        yield f"below {limits.rms_low_uv:g} uV: check that the electrode touches skin"
    elif rms_uv > limits.rms_high_uv:
        yield f"above {limits.rms_high_uv:g} uV: no EMG is so strong, check contact and scale"

"""`embridge bench link`: what a link to a wrist carries, loses, and costs the host.

Latency is what passes from the taking of a frame's last sample to its reading on the host. The two
clocks share no zero: the fastest frame is taken to need half the fastest round trip, and every
other frame what it was later. Where a source answers no pings, only the excess is known.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.source import Source
from embridge.device.sources import open_source
from embridge.firmware_bridge import Block, EndOfStream, WristLink

PING_EVERY_S: Final = 0.05
SEARCH_SECONDS: Final = 3.0
SEARCH_FACTOR: Final = 1.1  # how closely the largest rate is searched
FULL_RATE: Final = 0.99  # of the declared rate: what arrives slower does not hold
IN_PROCESS: Final = ("virtual", "virtual+ble")  # the wrist's own work counts as CPU, too
SPEED_SCHEMES: Final = (*IN_PROCESS, "qemu")

Progress = Callable[[int, int, str], None]


@dataclass
class Observed:
    """What was read: per frame its arrival, the wrist's time after its last sample, its size."""

    arrived_s: list[float] = field(default_factory=list)
    device_s: list[float] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    round_trip_s: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_s: float = 0.0
    dropped_before: int = 0  # by the wrist, when it first told


def bench_link(
    url: str,
    seconds: float = 10.0,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
    cpu_clock: Callable[[], float] = time.process_time,
) -> dict[str, Any]:
    """Read a source for `seconds`; plain values. Raises LinkError or ConfigError."""
    with open_source(url) as source:
        seen = _observe(source, seconds, progress or (lambda *_: None), clock, cpu_clock)
        return {"schema": 1, "source": url, "how": source.how, **_figures(source, seen, url)}


def largest_rate(url: str, progress: Progress | None = None) -> dict[str, Any]:
    """Search the largest sample rate that a URL with a `speed` holds without any loss.

    Doubles the speed until it fails, then halves the interval until its ends are SEARCH_FACTOR
    apart. ConfigError for other URLs: a real wrist's rate is its own.
    """
    if urlsplit(url).scheme not in SPEED_SCHEMES:
        raise ConfigError(
            f"{url}: the rate of this wrist is its own; a largest rate can be searched for "
            f"{', '.join(f'{scheme}://' for scheme in SPEED_SCHEMES)}"
        )
    tried: list[dict[str, Any]] = []

    def holds(speed: float) -> bool:
        if progress:
            progress(len(tried), len(tried) + 1, f"search {speed:.3g}x")
        result = bench_link(_with_speed(url, speed), SEARCH_SECONDS)
        tried.append(
            {"speed": speed}
            | {key: result[key] for key in ("rate_hz", "bytes_per_s", "cpu_share", "holds")}
        )
        return bool(result["holds"])

    low, high = _bracket(holds)
    while high > SEARCH_FACTOR * low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if holds(middle) else (low, middle)
    best = max((t for t in tried if t["holds"]), key=lambda t: t["speed"], default=None)
    return {"schema": 1, "source": url, "largest": best, "tried": tried}


def text(result: dict[str, Any]) -> str:
    """A few lines for people."""
    latency, trip = result["latency_ms"], result["round_trip_ms"]
    wrist = " (the wrist runs in this process and counts)" if result["cpu_includes_wrist"] else ""
    lines = [
        f"{result['source']}: {result['how']}",
        f"frames       {result['frames_sent']} sent, {result['frames_lost']} lost, "
        f"{result['frames_corrupt']} corrupt; dropped by the wrist: "
        f"{_count(result['frames_dropped_by_wrist'])}",
        f"rate         {result['rate_hz']:.2f} of {result['declared_rate_hz']:g} samples/s, "
        f"{result['bytes_per_s'] / 1000:.1f} kB/s, {result['real_time']:.4f}x real time",
        f"latency      p50 {_ms(latency['p50'])}, p95 {_ms(latency['p95'])}, "
        f"p99 {_ms(latency['p99'])}, jitter (p99 - p50) {_ms(result['jitter_ms'])}",
        f"round trip   p50 {_ms(trip['p50'])}, p99 {_ms(trip['p99'])}",
        f"clock        device {_ppm(result['drift_ppm'])} against this host",
        f"CPU          {100 * result['cpu_share']:.2f} % of one core{wrist}",
        "holds" if result["holds"] else "DOES NOT HOLD: frames were lost, or came too slowly",
    ]
    return "\n".join(lines)


def search_text(result: dict[str, Any]) -> str:
    """One line per rate that was tried."""
    lines = [
        f"{tried['rate_hz']:9.0f} samples/s {tried['bytes_per_s'] / 1000:8.1f} kB/s "
        f"CPU {100 * tried['cpu_share']:5.1f} %  {'holds' if tried['holds'] else 'does not hold'}"
        for tried in sorted(result["tried"], key=lambda tried: tried["speed"])
    ]
    best = result["largest"]
    said = f"largest that holds: {best['rate_hz']:.0f} samples/s" if best else "no rate holds"
    return "\n".join([*lines, said])


def _observe(
    source: Source,
    seconds: float,
    progress: Progress,
    clock: Callable[[], float],
    cpu_clock: Callable[[], float],
) -> Observed:
    seen, asked_s = Observed(), dict[int, float]()
    nonces, dropped_known = itertools.count(1), False
    began_s, cpu_began_s, ping_at_s = clock(), cpu_clock(), 0.0
    for item in source.blocks():
        now_s = clock()
        if isinstance(item, EndOfStream) or now_s - began_s >= seconds:
            break
        if isinstance(source, WristLink) and now_s >= ping_at_s:
            nonce = next(nonces)
            asked_s[nonce], ping_at_s = source.ping(nonce), now_s + PING_EVERY_S
        if isinstance(item, Block):
            _note(seen, item, source.info.rate_hz)
            if not dropped_known and (declared := source.stats.declared) is not None:
                seen.dropped_before, dropped_known = declared.frames_dropped, True
        progress(int(now_s - began_s), int(seconds), "link")
    seen.seconds, seen.cpu_s = clock() - began_s, cpu_clock() - cpu_began_s
    if isinstance(source, WristLink):
        answers = ((source.answered_s(nonce), sent_s) for nonce, sent_s in asked_s.items())
        seen.round_trip_s = [back_s - sent_s for back_s, sent_s in answers if back_s is not None]
    return seen


def _note(seen: Observed, block: Block, rate_hz: float) -> None:
    taken_s = block.first_sample / rate_hz
    if block.device_us is not None:
        taken_s = 1e-6 * block.device_us
    seen.arrived_s.append(block.arrived_s)
    seen.device_s.append(taken_s + len(block.samples) / rate_hz)
    seen.samples.append(len(block.samples))


def _figures(source: Source, seen: Observed, url: str) -> dict[str, Any]:
    stats, info = source.stats, source.info
    if len(seen.samples) < 2:
        raise ConfigError(f"{url}: hardly any samples arrived: is the wrist streaming?")
    latency_ms = _latency_ms(seen, stats.drift_ppm)
    real_time = sum(seen.samples[1:]) / info.rate_hz / (seen.arrived_s[-1] - seen.arrived_s[0])
    dropped = stats.declared.frames_dropped - seen.dropped_before if stats.declared else None
    return {
        "seconds": round(seen.seconds, 3),
        "frames_sent": stats.frames_received + stats.frames_lost,
        "frames_lost": stats.frames_lost,
        "frames_corrupt": stats.frames_corrupt,
        "frames_dropped_by_wrist": dropped,
        "samples_lost": stats.samples_lost,
        "gaps": stats.gaps,
        "reconnects": stats.reconnects,
        "declared_rate_hz": info.rate_hz,
        "rate_hz": info.rate_hz * real_time,
        "real_time": real_time,
        "bytes_per_s": stats.bytes_received / seen.seconds,
        "frame_ms": 1000 * float(np.median(seen.samples)) / info.rate_hz,
        "latency_ms": _percentiles(latency_ms),
        "jitter_ms": float(np.subtract(*np.percentile(latency_ms, [99, 50]))),
        "round_trip_ms": _percentiles(1000 * np.array(seen.round_trip_s, np.float64)),
        "latency_is": "absolute" if seen.round_trip_s else "above the fastest frame",
        "drift_ppm": stats.drift_ppm,
        "cpu_share": seen.cpu_s / seen.seconds,
        "cpu_includes_wrist": urlsplit(url).scheme in IN_PROCESS,
        "holds": not (stats.frames_lost or stats.frames_corrupt) and real_time >= FULL_RATE,
    }


def _latency_ms(seen: Observed, drift_ppm: float | None) -> NDArray[np.float64]:
    """Per frame, with the drift of the wrist's clock taken out."""
    device_s = np.array(seen.device_s) / (1 + 1e-6 * (drift_ppm or 0.0))
    lag_s = np.array(seen.arrived_s) - device_s
    fastest_s = min(seen.round_trip_s) / 2 if seen.round_trip_s else 0.0
    latency_ms: NDArray[np.float64] = 1000 * (lag_s - lag_s.min() + fastest_s)
    return latency_ms


def _percentiles(values_ms: NDArray[np.float64]) -> dict[str, float | None]:
    names = ("p50", "p95", "p99")
    if not values_ms.size:
        return dict.fromkeys(names)
    return dict(zip(names, map(float, np.percentile(values_ms, [50, 95, 99])), strict=True))


def _bracket(holds: Callable[[float], bool]) -> tuple[float, float]:
    """A speed that holds and one, twice as high, that does not."""
    speed = 1.0
    if holds(speed):
        while holds(2 * speed):
            speed *= 2
        return speed, 2 * speed
    while speed > 1 / 64:
        speed /= 2
        if holds(speed):
            return speed, 2 * speed
    return speed, speed


def _with_speed(url: str, speed: float) -> str:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True)) | {"speed": f"{speed:.6g}"}
    return f"{parts.scheme}://{parts.netloc}{parts.path}?{urlencode(options, safe='/:')}"


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} ms"


def _count(value: int | None) -> str:
    return "not told" if value is None else str(value)


def _ppm(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.0f} ppm"

"""Where samples come from: a wrist on a port, or a recording played through the same path.

serial:///dev/ttyACM0?baud=921600   socket://HOST:PORT   replay://FILE?speed=1 (speed=0: unpaced)
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.recordings import Recording, read_recording
from embridge.firmware_bridge import (
    Block,
    EndOfStream,
    Item,
    LinkStats,
    SerialTransport,
    Status,
    StreamInfo,
    WristLink,
    default_samples_per_frame,
    parse_url,
    to_counts,
)

LATER = {"ble": "BLE", "virtual": "in-process virtual wrists", "qemu": "emulated boards"}


class Source(Protocol):
    """A stream of blocks from a wrist or a file; `info` is what it declares about itself."""

    @property
    def info(self) -> StreamInfo:
        """What the stream carries."""

    @property
    def stats(self) -> LinkStats:
        """Counts so far."""

    def blocks(self) -> Iterator[Item]:
        """What arrives, in order."""

    def stop(self) -> None:
        """End `blocks` soon; safe from a signal handler."""

    def __enter__(self) -> Self:
        """Open."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Close."""


def open_source(url: str) -> Source:
    """The source a URL names, not yet opened; ConfigError for a URL that names none."""
    parts = urlsplit(url)
    if parts.scheme in ("serial", "socket"):
        return WristLink(SerialTransport(url, parse_url(url)))
    if parts.scheme == "replay":
        speed = parse_qs(parts.query).get("speed", ["1"])[0]
        try:
            return ReplaySource(Path(parts.netloc + parts.path), speed=float(speed))
        except ValueError as error:
            raise ConfigError(
                f"{url}: speed={speed!r}: expected a number, 0 for unpaced"
            ) from error
    if parts.scheme in LATER:
        raise ConfigError(f"{url}: {LATER[parts.scheme]} are not supported by this version")
    raise ConfigError(f"{url}: expected serial://PORT, socket://HOST:PORT or replay://FILE")


def physical(counts: NDArray[np.int16], scale: float) -> NDArray[np.float32]:
    """Counts -> values in the stream's unit; the one place where this is done."""
    return (counts * np.float64(scale)).astype(np.float32)


def stream_of(
    recording: Recording, model_sha256: bytes = bytes(32)
) -> tuple[NDArray[np.int16], StreamInfo]:
    """A recording as a wrist would send it: counts (T, C) and its declaration."""
    counts, scale = to_counts(recording.emg, recording.emg_unit_per_count)
    channels = recording.emg.shape[1]
    info = StreamInfo(
        n_ch=channels,
        rate_hz=recording.rate_hz,
        samples_per_frame=default_samples_per_frame(recording.rate_hz, channels),
        unit=recording.emg_unit,
        scale=scale,
        boot_id=int(np.random.default_rng().integers(2**32)),
        envelope=recording.is_envelope,
        firmware="virtual 1",
        device=recording.user[:16],
        model_sha256=model_sha256,
    )
    return counts, info


class ReplaySource:
    """Plays a recording without a wire, frame by frame, at `speed` times its rate."""

    def __init__(
        self,
        path: Path,
        *,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._path, self._speed, self._clock, self._sleep = path, speed, clock, sleep
        self._stopped = False
        self._stats = LinkStats()

    def __enter__(self) -> Self:
        """Read the recording."""
        self._counts, self._info = stream_of(read_recording(self._path))
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to close."""

    @property
    def info(self) -> StreamInfo:
        """What the recording declares."""
        return self._info

    @property
    def stats(self) -> LinkStats:
        """Counts so far; nothing can be lost."""
        return replace(self._stats)

    def stop(self) -> None:
        """End `blocks` soon."""
        self._stopped = True

    def blocks(self) -> Iterator[Item]:
        """The recording in frames, then the end."""
        step, began_s = self._info.samples_per_frame, self._clock()
        for start in range(0, len(self._counts), step):
            if self._stopped:
                return
            part = self._counts[start : start + step]
            if self._speed > 0:
                due_s = began_s + (start + len(part)) / self._info.rate_hz / self._speed
                self._sleep(max(0.0, due_s - self._clock()))
            self._stats.frames_received += 1
            self._stats.samples_received += len(part)
            yield Block(start, part, self._clock())
        self._stats.declared = Status(self._stats.frames_received, 0)
        yield EndOfStream(self._stats.declared)

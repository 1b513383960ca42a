"""A wrist without hardware: plays recorded counts through a pseudo-terminal, in real time.

It speaks the same bytes as firmware, and fails like it: a host that does not read loses whole
frames, and an `Outage` pulls the cable.

VirtualWrist, Outage         the player
default_samples_per_frame    how many samples to put in a frame
to_counts                    a recording in physical units -> int16 counts and their scale
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge.errors import EmbridgeError
from embridge.firmware_bridge.frames import (
    MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SAMPLES,
    Decoder,
    encode,
)
from embridge.firmware_bridge.protocol import Status
from embridge.firmware_bridge.pty_port import PtyPort
from embridge.firmware_bridge.stream_info import StreamInfo
from embridge.firmware_bridge.transmit_queue import DEFAULT_BYTES, TransmitQueue
from embridge.firmware_bridge.wrist_core import WristCore

FRAME_S: Final = 0.010  # 20 samples at 2 kHz: header and CRC add 3 %, latency stays small
POLL_S: Final = 0.005  # how soon a request of the host is seen
FULL_SCALE_COUNTS: Final = 32_000  # leaves 2 % of the int16 range above the largest value


@dataclass(frozen=True, slots=True)
class Outage:
    """The port disappears at `at_s` for `for_s`, both in seconds of the stream."""

    at_s: float
    for_s: float


def default_samples_per_frame(rate_hz: float, n_ch: int = 1) -> int:
    """Samples in about 10 ms, 1..255, and no more than a frame of n_ch channels can hold."""
    fits = MAX_PAYLOAD_BYTES // (2 * n_ch)
    return max(1, min(round(rate_hz * FRAME_S), MAX_SAMPLES, fits))


def to_counts(
    emg: NDArray[np.float32], unit_per_count: float | None
) -> tuple[NDArray[np.int16], float]:
    """emg: (T, C) in any unit -> (T, C) int16 counts, and the unit per count.

    Exact when the values are whole multiples of `unit_per_count`; with None, the largest value
    becomes 32000 counts. EmbridgeError when a value is not finite or does not fit int16.
    """
    if not np.isfinite(emg).all():
        raise EmbridgeError("the EMG holds NaN or infinity: cut those samples out before playing")
    if unit_per_count is None:
        largest = float(np.abs(emg).max(initial=0.0))
        unit_per_count = largest / FULL_SCALE_COUNTS if largest > 0 else 1.0
    counts = np.rint(emg.astype(np.float64) / unit_per_count)  # T C
    limits = np.iinfo(np.int16)
    if counts.size and (counts.min() < limits.min or counts.max() > limits.max):
        raise EmbridgeError(
            f"values of {counts.min():.0f} to {counts.max():.0f} counts do not fit int16 "
            f"(-32768..32767) at {unit_per_count:g} per count: give a larger unit per count"
        )
    return counts.astype(np.int16), unit_per_count


class VirtualWrist:
    """Plays samples (T, C) int16 as the wrist that `info` declares, behind a pseudo-terminal.

    speed, loop, frame_bytes: see WristCore
    link: symbolic link to the port, stable across outages
    outages: when the port disappears
    on_port: called with the path for the host to open, each time the port appears
    queue_bytes: size of the transmit buffer
    """

    def __init__(
        self,
        samples: NDArray[np.int16],
        info: StreamInfo,
        *,
        speed: float = 1.0,
        loop: bool = False,
        link: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        outages: Sequence[Outage] = (),
        on_port: Callable[[Path], None] | None = None,
        queue_bytes: int = DEFAULT_BYTES,
        frame_bytes: int = MAX_FRAME_BYTES,
    ) -> None:
        self._clock = clock
        self._outages = tuple(outages)
        self._on_port = on_port
        self._port = PtyPort(link)
        self._queue = TransmitQueue(queue_bytes)
        self._core = WristCore(
            samples,
            info,
            self._queue,
            encode,
            speed=speed,
            loop=loop,
            frame_bytes=frame_bytes,
            booted_s=clock(),
        )
        self._decoder = Decoder()
        self._outages_seen_s = 0.0  # stream time up to which outages were looked for

    def run(self, stop: threading.Event) -> Status:
        """Wait for a host and play until the end or until `stop` is set; return what was sent.

        LinkError when `link` exists and is no link.
        """
        self._open_port()
        try:
            while not stop.is_set():
                now_s = self._clock()
                self._follow_outages(now_s)
                self._listen(now_s)
                self._core.step(now_s, connected=self._port.path is not None)
                if self._port.path is not None:
                    self._port.write(self._queue)
                if self._core.is_over(now_s):
                    break
                stop.wait(self._pause_s())
        finally:
            self._close_port()
        return self._core.status(self._clock())

    def _open_port(self) -> None:
        path = self._port.open()
        self._decoder = Decoder()
        if self._on_port is not None:
            self._on_port(path)

    def _close_port(self) -> None:
        self._port.close()
        self._core.hang_up()

    def _follow_outages(self, now_s: float) -> None:
        """Take the port away, or bring it back, as the outages since the last look demand."""
        stream_s = self._core.stream_s(now_s)
        if stream_s is None:
            return
        since_s, self._outages_seen_s = self._outages_seen_s, stream_s
        away = any(
            outage.at_s <= stream_s and since_s < outage.at_s + outage.for_s
            for outage in self._outages
        )
        if away and self._port.path is not None:
            self._close_port()
        elif not away and self._port.path is None:
            self._open_port()

    def _listen(self, now_s: float) -> None:
        """Obey what the host has sent; forget the host that has hung up."""
        if self._port.path is None:
            return
        data = self._port.read()
        if data is None:
            self._core.hang_up()
            self._decoder = Decoder()
            return
        corrupt_before = self._decoder.frames_corrupt
        frames = self._decoder.feed(data)
        self._core.refuse(self._decoder.frames_corrupt - corrupt_before)
        for frame in frames:
            self._core.receive(frame, now_s)

    def _pause_s(self) -> float:
        """Until the next frame is due, but never deaf to the host for longer than POLL_S."""
        due_in_s = self._core.due_in_s(self._clock())
        return POLL_S if due_in_s is None else max(0.0, min(POLL_S, due_in_s))

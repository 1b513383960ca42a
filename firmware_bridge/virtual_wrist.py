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
    FLAG_STREAMING,
    MAX_PAYLOAD_BYTES,
    MAX_SAMPLES,
    DataFrame,
    Decoder,
    Frame,
    FrameType,
    encode,
    encode_data,
)
from embridge.firmware_bridge.protocol import (
    Control,
    ControlOp,
    Counters,
    Event,
    EventCode,
    StreamInfo,
)
from embridge.firmware_bridge.pty_port import PtyPort

FRAME_S: Final = 0.010  # 20 samples at 2 kHz: header and CRC add 3 %, latency stays small
QUEUE_BYTES: Final = 32_768  # half a second of 16 channels at 2 kHz
POLL_S: Final = 0.005  # how soon a request of the host is seen
DECLARE_S: Final = 1.0  # between two STREAM_INFO, each with a STATUS
END_AGAIN_S: Final = 0.2  # between two END_OF_STREAM
END_WAIT_S: Final = 2.0  # how long the host may take to notice the end
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
    """Plays samples (T, C) int16 as the wrist that `info` declares.

    The stream begins at the first START. From then on time runs: what cannot be written is
    dropped by whole frames and counted, as on a wrist whose transmit buffer is full.

    speed: seconds of stream per second
    loop: begin again at the end, for ever
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
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        if samples.dtype != np.int16 or samples.ndim != 2 or samples.shape[1] != info.n_ch:
            raise ValueError(
                f"expected (T, {info.n_ch}) int16, got {samples.shape} {samples.dtype}"
            )
        if not (len(samples) and speed > 0):
            raise ValueError(f"expected samples and a speed above 0, got {len(samples)}, {speed}")
        self._samples = samples  # T C
        self._info = info
        self._speed = speed
        self._loop = loop
        self._clock = clock
        self._outages = tuple(outages)
        self._on_port = on_port
        self._port = PtyPort(link, queue_bytes)
        self._decoder = Decoder()
        self._next = 0  # number of the frame that is due next, not wrapped
        self._dropped = 0
        self._overrun = False  # frames were dropped since the last one that was queued
        self._streaming = False  # a host wants frames
        self._began_s: float | None = None  # first START
        self._ended_s: float | None = None  # last frame played, and the port is there
        self._end_announced = False
        self._report_at_s = 0.0
        self._outages_seen_s = 0.0  # stream time up to which outages were looked for

    def run(self, stop: threading.Event) -> Counters:
        """Wait for a host and play until the end or until `stop` is set; return what was sent.

        LinkError when `link` exists and is no link; HandshakeError when the host sends nonsense.
        """
        self._open_port()
        try:
            while not stop.is_set():
                now_s = self._clock()
                self._follow_outages(now_s)
                self._listen(now_s)
                self._queue_due_frames(now_s)
                self._report(now_s)
                if self._port.path is not None:
                    self._port.write()
                if self._is_over(now_s):
                    break
                stop.wait(self._pause_s())
        finally:
            self._close_port()
        return self._counters()

    def _open_port(self) -> None:
        path = self._port.open()
        self._decoder = Decoder()
        if self._on_port is not None:
            self._on_port(path)

    def _close_port(self) -> None:
        self._streaming = False
        self._drop(self._port.close())

    def _follow_outages(self, now_s: float) -> None:
        """Take the port away, or bring it back, as the outages since the last look demand."""
        if self._began_s is None:
            return
        since_s, self._outages_seen_s = self._outages_seen_s, self._stream_s(now_s)
        away = any(
            outage.at_s <= self._outages_seen_s and since_s < outage.at_s + outage.for_s
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
            self._streaming = False
            self._drop(self._port.discard())
            self._decoder = Decoder()
            return
        for frame in self._decoder.feed(data):
            if frame.type is FrameType.CONTROL:
                self._obey(Control.unpack(frame.payload).op, now_s)

    def _obey(self, op: ControlOp, now_s: float) -> None:
        self._streaming = op is ControlOp.START or (self._streaming and op is ControlOp.HELLO)
        if op is ControlOp.START and self._began_s is None:
            self._began_s = now_s
        if op is not ControlOp.STOP:
            self._queue_other(FrameType.STREAM_INFO, self._info.pack())
            self._report_at_s = now_s + (DECLARE_S if self._ended_s is None else 0.0)

    def _queue_due_frames(self, now_s: float) -> None:
        """Queue each frame whose last sample has been taken by now, or drop it."""
        if self._began_s is None or self._ended_s is not None:
            return
        stream_s = self._stream_s(now_s)
        while (end := self._first(self._next + 1)) > (first := self._first(self._next)):
            if end > stream_s * self._info.rate_hz:
                return
            if not (self._streaming and self._queue_data(first, end)):
                self._drop(1)
            self._next += 1
        if self._port.path is not None:
            self._ended_s = self._report_at_s = now_s

    def _queue_data(self, first: int, end: int) -> bool:
        samples = self._samples.take(range(first, end), axis=0, mode="wrap")  # T C
        frame = encode_data(DataFrame(self._next % 2**16, first % 2**32, samples, self._overrun))
        taken = self._port.queue(frame, is_data=True)
        if taken:
            self._overrun = False
        return taken

    def _queue_other(self, kind: FrameType, payload: bytes) -> None:
        """Queue a frame that is no data; when there is no room, it is sent again later anyway."""
        flags = FLAG_STREAMING if self._streaming else 0
        first = self._first(self._next)
        self._port.queue(
            encode(Frame(kind, flags, self._next % 2**16, first % 2**32, payload=payload)),
            is_data=False,
        )

    def _report(self, now_s: float) -> None:
        """Once a second what is sent and how it goes; at the end, once all is written, that."""
        if not self._streaming or now_s < self._report_at_s:
            return
        if self._ended_s is None:
            self._queue_other(FrameType.STREAM_INFO, self._info.pack())
            self._queue_other(FrameType.EVENT, self._event(EventCode.STATUS))
            self._report_at_s = now_s + DECLARE_S
        elif self._port.idle:
            self._queue_other(FrameType.EVENT, self._event(EventCode.END_OF_STREAM))
            self._report_at_s = now_s + END_AGAIN_S
            self._end_announced = True

    def _event(self, code: EventCode) -> bytes:
        return Event(code, self._counters()).pack()

    def _counters(self) -> Counters:
        return Counters(self._port.frames_written, self._dropped)

    def _drop(self, frames: int) -> None:
        self._dropped += frames
        self._overrun = self._overrun or frames > 0

    def _is_over(self, now_s: float) -> bool:
        """Played to the end, and the host knows, or has had its time."""
        if self._ended_s is None:
            return False
        return (self._end_announced and not self._streaming) or now_s > self._ended_s + END_WAIT_S

    def _first(self, frame: int) -> int:
        """Index of the first sample of a frame; beyond the last frame, the number of samples."""
        first = frame * self._info.samples_per_frame
        return first if self._loop else min(first, len(self._samples))

    def _stream_s(self, now_s: float) -> float:
        assert self._began_s is not None
        return (now_s - self._began_s) * self._speed

    def _pause_s(self) -> float:
        """Until the next frame is due, but never deaf to the host for longer than POLL_S."""
        if self._began_s is None or self._ended_s is not None:
            return POLL_S
        due_s = self._first(self._next + 1) / self._info.rate_hz / self._speed
        return max(0.0, min(POLL_S, self._began_s + due_s - self._clock()))

"""The wrist as a state machine without I/O or clock; the firmware's twin in Python.

It plays recorded counts as they would be sampled: what cannot be sent is dropped by whole frames
and counted, as on a wrist whose transmit buffer is full.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge.codec import Encoding, guaranteed_bytes
from embridge.firmware_bridge.frames import (
    FLAG_STREAMING,
    MAX_FRAME_BYTES,
    MAX_PAYLOAD_BYTES,
    OVERHEAD_BYTES,
    DataFrame,
    Frame,
    FrameType,
    data_frame,
)
from embridge.firmware_bridge.protocol import (
    Control,
    ControlOp,
    Event,
    EventCode,
    LinkParameters,
    Pong,
    ResetCause,
    StartRequest,
    Status,
)
from embridge.firmware_bridge.stream_info import StreamInfo
from embridge.firmware_bridge.transmit_queue import TransmitQueue

DECLARE_S: Final = 1.0  # between two STREAM_INFO, each with a STATUS
FRAMES_PER_STEP: Final = 1024  # a wrist that cannot keep up is late, but still listens
END_AGAIN_S: Final = 0.2  # between two END_OF_STREAM
END_WAIT_S: Final = 2.0  # how long the host may take to notice the end
_LENGTHS: Final = {op: (0,) for op in ControlOp} | {ControlOp.START: (0, 2), ControlOp.PING: (4,)}


class WristCore:
    """Plays samples (T, C) int16 as the wrist that `info` declares, from the first START on.

    queue: where frames go; the owner moves them to the line
    framing: `encode` for a serial line, `pack` for BLE
    speed: seconds of the device per second of the host, for its samples and its clock alike
    loop: begin again at the end, for ever
    """

    def __init__(
        self,
        samples: NDArray[np.int16],
        info: StreamInfo,
        queue: TransmitQueue,
        framing: Callable[[Frame], bytes],
        *,
        speed: float = 1.0,
        loop: bool = False,
        frame_bytes: int = MAX_FRAME_BYTES,
        booted_s: float = 0.0,
    ) -> None:
        if samples.dtype != np.int16 or samples.ndim != 2 or samples.shape[1] != info.n_ch:
            raise ValueError(
                f"expected (T, {info.n_ch}) int16, got {samples.shape} {samples.dtype}"
            )
        if not (len(samples) and speed > 0):
            raise ValueError(f"expected samples and a speed above 0, got {len(samples)}, {speed}")
        self.info = info
        self.frame_bytes = frame_bytes  # most in a packed frame; BLE: what the MTU leaves
        self.link: LinkParameters | None = None  # BLE: told in answer to HELLO
        self.streaming = False  # a host wants frames
        self._samples = samples  # T C
        self._queue = queue
        self._framing = framing
        self._speed = speed
        self._loop = loop
        self._booted_s = booted_s
        self._next_frame = 0  # number of the frame that is due next, not wrapped
        self._next_sample = 0  # index of its first sample, not wrapped
        self._dropped = 0
        self._refused = 0
        self._overrun = False  # frames were dropped since the last one that was queued
        self._began_s: float | None = None  # first START
        self._ended_s: float | None = None  # last frame played, and somebody could hear it
        self._end_announced = False
        self._report_at_s = 0.0

    def receive(self, frame: Frame, now_s: float) -> None:
        """Obey a frame of the host; what is not understood is counted."""
        if frame.type is not FrameType.CONTROL:
            self._refused += 1
            return
        try:
            self._obey(Control.unpack(frame.payload), now_s)
        except ValueError:
            self._refused += 1

    def refuse(self, frames: int) -> None:
        """Count frames of the host that arrived damaged."""
        self._refused += frames

    def hang_up(self) -> None:
        """The host went away: nobody is sent anything until the next START."""
        self.streaming = False
        self.drop(self._queue.clear())

    def step(self, now_s: float, *, connected: bool = True) -> None:
        """Queue what is due by now: samples, declarations, the end."""
        self._queue_due_frames(now_s, connected)
        self._report(now_s)

    def announce(self, link: LinkParameters, now_s: float) -> None:
        """The radio link has other parameters now."""
        self.link = link
        self._queue_event(EventCode.LINK, link, now_s)

    def is_over(self, now_s: float) -> bool:
        """Played to the end, and the host knows, or has had its time."""
        if self._ended_s is None:
            return False
        return (self._end_announced and not self.streaming) or now_s > self._ended_s + END_WAIT_S

    def due_in_s(self, now_s: float) -> float | None:
        """Until the next frame is due; None while none ever is."""
        if self._began_s is None or self._ended_s is not None:
            return None
        end = self._end_of_frame(self.info.samples_per_frame)
        return self._began_s + end / self.info.rate_hz / self._speed - now_s

    def stream_s(self, now_s: float) -> float | None:
        """Seconds of the stream that have been played; None before the first START."""
        return None if self._began_s is None else (now_s - self._began_s) * self._speed

    def status(self, now_s: float) -> Status:
        """What the wrist says about itself."""
        return Status(
            self._queue.frames_sent,
            self._dropped,
            self._device_us(now_s),
            overruns=self._queue.overruns,
            frames_refused=self._refused,
            reset_cause=ResetCause.POWER_ON,
            battery_percent=100,
        )

    def drop(self, frames: int) -> None:
        """Count frames that will never be sent."""
        self._dropped += frames
        self._overrun = self._overrun or frames > 0

    def _obey(self, control: Control, now_s: float) -> None:
        if len(control.value) not in _LENGTHS[control.op]:
            raise ValueError(f"{control.op.name} with a value of {len(control.value)} bytes")
        if control.op is ControlOp.PING:
            (nonce,) = np.frombuffer(control.value, "<u4")
            self._queue_event(EventCode.PONG, Pong(self._device_us(now_s), int(nonce)), now_s)
            return
        if control.op is ControlOp.START:
            self._agree(StartRequest.unpack(control.value))
            self.streaming = True
            self._began_s = now_s if self._began_s is None else self._began_s
        elif control.op is ControlOp.STOP:
            self.streaming = False
        if control.op in (ControlOp.STOP, ControlOp.STATUS):
            self._queue_event(EventCode.STATUS, self.status(now_s), now_s)
            return
        if control.op is ControlOp.HELLO and self.link is not None:
            self._queue_event(EventCode.LINK, self.link, now_s)
        self._queue_other(FrameType.STREAM_INFO, self.info.pack(), now_s)
        self._report_at_s = now_s + (DECLARE_S if self._ended_s is None else 0.0)

    def _agree(self, request: StartRequest | None) -> None:
        """Send as the host asks, if that can be."""
        if request is None or request.encoding not in self.info.encodings:
            return
        samples = request.samples_per_frame or self.info.samples_per_frame
        if guaranteed_bytes(Encoding.INT16, samples, self.info.n_ch) > MAX_PAYLOAD_BYTES:
            return
        self.info = replace(self.info, encoding=request.encoding, samples_per_frame=samples)

    def _queue_due_frames(self, now_s: float, connected: bool) -> None:
        """Queue each frame whose last sample has been taken by now, or drop it."""
        if self._began_s is None or self._ended_s is not None:
            return
        taken = (now_s - self._began_s) * self._speed * self.info.rate_hz
        for _ in range(FRAMES_PER_STEP):
            end = self._end_of_frame(self.info.samples_per_frame)
            if end == self._next_sample:
                break
            if end > taken:
                return
            end = self._send(end, now_s) if self.streaming else self._skip(end)
            self._next_frame += 1
            self._next_sample = end
        else:
            return
        if connected:
            self._ended_s = self._report_at_s = now_s

    def _skip(self, end: int) -> int:
        self.drop(1)
        return end

    def _send(self, end: int, now_s: float) -> int:
        """Queue the samples up to `end`, fewer if they do not fit a frame; return where it ends."""
        frame = self._data(end)
        while len(frame.payload) > self.frame_bytes - OVERHEAD_BYTES and frame.n_samp > 1:
            frame = self._data(self._next_sample + frame.n_samp // 2)
        fits = len(frame.payload) <= self.frame_bytes - OVERHEAD_BYTES
        if fits and self._queue.put(self._framing(frame), is_data=True):
            self._overrun = False
        else:
            self.drop(1)
        return self._next_sample + frame.n_samp

    def _data(self, end: int) -> Frame:
        first = self._next_sample
        samples = self._samples.take(range(first, end), axis=0, mode="wrap")  # T C
        time_us = round(self._began_us() + 1e6 * first / self.info.rate_hz)
        return data_frame(
            DataFrame(
                self._next_frame % 2**16, first % 2**32, samples, time_us % 2**32, self._overrun
            ),
            Encoding(self.info.encoding),
        )

    def _queue_event(
        self, code: EventCode, report: Status | Pong | LinkParameters, now_s: float
    ) -> None:
        self._queue_other(FrameType.EVENT, Event(code, report).pack(), now_s)

    def _queue_other(self, kind: FrameType, payload: bytes, now_s: float) -> None:
        """Queue a frame that is no data; when there is no room, it is sent again later anyway."""
        header = (
            FLAG_STREAMING if self.streaming else 0,
            self._next_frame % 2**16,
            self._next_sample % 2**32,
            self._device_us(now_s) % 2**32,
        )
        self._queue.put(self._framing(Frame(kind, *header, payload=payload)), is_data=False)

    def _report(self, now_s: float) -> None:
        """Once a second what is sent and how it goes; at the end, once all is written, that."""
        if not self.streaming or now_s < self._report_at_s:
            return
        if self._ended_s is None:
            self._queue_other(FrameType.STREAM_INFO, self.info.pack(), now_s)
            self._queue_event(EventCode.STATUS, self.status(now_s), now_s)
            self._report_at_s = now_s + DECLARE_S
        elif self._queue.head() is None:
            self._queue_event(EventCode.END_OF_STREAM, self.status(now_s), now_s)
            self._report_at_s = now_s + END_AGAIN_S
            self._end_announced = True

    def _end_of_frame(self, samples: int) -> int:
        """Index after the last sample of the next frame; no further than the recording goes."""
        end = self._next_sample + samples
        return end if self._loop else min(end, len(self._samples))

    def _began_us(self) -> float:
        assert self._began_s is not None
        return 1e6 * (self._began_s - self._booted_s) * self._speed

    def _device_us(self, now_s: float) -> int:
        return round(1e6 * (now_s - self._booted_s) * self._speed)

"""A wrist on a serial port, or behind a TCP socket, read through pyserial.

    with SerialLink("serial:///dev/ttyACM0?baud=921600") as link:
        for item in link.blocks():
            match item:
                case Block(): ...

SerialLink                    opens, shakes hands, reads, reconnects, closes
Reconnected, Restarted, EndOfStream    what `blocks` yields besides Block and Gap
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Final

from embridge.firmware_bridge.errors import HandshakeError, LinkLost, PortNotFound
from embridge.firmware_bridge.frames import Decoder, Frame, FrameType, decode_data, encode
from embridge.firmware_bridge.ports import open_port, parse_url
from embridge.firmware_bridge.protocol import (
    Control,
    ControlOp,
    Counters,
    Event,
    EventCode,
    StreamInfo,
    check_baud,
)
from embridge.firmware_bridge.reassembly import Block, Gap, LinkStats, Reassembler

READ_BYTES: Final = 4096
ASK_AGAIN_S: Final = 0.2
REOPEN_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The port was lost and is back; a `Gap` with the samples missed follows."""

    away_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """The wrist booted: a new stream follows, with sample indices of its own."""

    boot_id: int


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """The wrist has played all it had."""

    counters: Counters


Item = Block | Gap | Reconnected | Restarted | EndOfStream


class SerialLink:
    """The connection to one wrist.

    url: `serial://DEVICE?baud=N` or `socket://HOST:PORT`
    timeout_s: how long the wrist may take to declare its stream
    reconnect_s: how long a lost port may stay away
    silence_s: without any intact frame for so long, the port counts as lost
    clock: seconds; stamps blocks and measures all of the above
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 5.0,
        reconnect_s: float = 10.0,
        silence_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self._address = parse_url(url)
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        self._silence_s = silence_s
        self._clock = clock
        self._stop = threading.Event()
        self._stats = LinkStats()
        self._port: Any = None
        self._decoder = Decoder()
        self._info: StreamInfo | None = None
        self._reassembler: Reassembler | None = None
        self._pending: list[Frame] = []  # arrived with the answer to START
        self._must_start = False
        self._silent_s = 0.0  # spent in reads since the last intact frame

    def __enter__(self) -> "SerialLink":
        """Open the port and start the stream."""
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the stream and close the port."""
        self.close()

    @property
    def info(self) -> StreamInfo:
        """What the wrist declared at the latest handshake; RuntimeError before `open`."""
        if self._info is None:
            raise RuntimeError("the link is not open: call open() or use `with`")
        return self._info

    @property
    def stats(self) -> LinkStats:
        """A copy of the counts so far."""
        return replace(self._stats)

    def open(self) -> None:
        """Open the port, learn what the wrist sends and start it.

        PortNotFound when the port cannot be opened; HandshakeError when the wrist does not answer
        within timeout_s or declares a stream that this port cannot carry.
        """
        try:
            self._connect(self._timeout_s)
        except OSError as error:
            raise HandshakeError(
                f"{self.url}: no wrist declared its stream within {self._timeout_s:g} s ({error}); "
                "check the device, its firmware and the baud rate"
            ) from error
        info = self.info
        self._reassembler = Reassembler(info.n_ch, info.samples_per_frame, self._stats)

    def stop(self) -> None:
        """End `blocks` soon; safe from any thread and from a signal handler."""
        self._stop.set()

    def close(self) -> None:
        """Ask the wrist to pause and close the port; does nothing when it is closed."""
        if self._port is not None:
            # The port may be gone already, and then nobody is left to be told.
            with contextlib.suppress(OSError):
                self._send(ControlOp.STOP)
            self._close_port()

    def blocks(self) -> Iterator[Item]:
        """What arrives, in stream order, until the stream ends or `stop` is called.

        LinkLost when a lost port does not come back within reconnect_s; HandshakeError when the
        wrist that comes back sends another signal, or contradicts what it declared.
        """
        while not self._stop.is_set():
            try:
                frames, arrived_s = self._receive(), self._clock()
            except OSError as error:  # pyserial's exceptions are OSErrors
                if (back := self._reconnect(str(error))) is not None:
                    yield back
                continue
            for frame in frames:
                for item in self._items(frame, arrived_s):
                    yield item
                    if isinstance(item, EndOfStream):
                        return

    def _items(self, frame: Frame, arrived_s: float) -> list[Item]:
        """What one frame from the wrist means."""
        assert self._reassembler is not None
        if frame.type is FrameType.DATA:
            return [*self._reassembler.push(decode_data(frame), arrived_s)]
        items: list[Item] = []
        if frame.type is FrameType.STREAM_INFO:
            items += self._adopt(StreamInfo.unpack(frame.payload))
            self._must_start = not frame.streaming  # it has booted, for instance
        if frame.streaming:
            items += self._reassembler.expect(frame.seq, frame.sample_index)
        if frame.type is FrameType.EVENT:
            event = Event.unpack(frame.payload)
            self._stats.declared = event.counters
            if event.code is EventCode.END_OF_STREAM:
                items.append(EndOfStream(event.counters))
        return items

    def _adopt(self, info: StreamInfo) -> list[Item]:
        """Compare a declaration with the one in use; a new boot_id begins a new stream."""
        assert self._reassembler is not None
        known, self._info = self.info, info
        if changed := known.differences(info):
            raise HandshakeError(
                f"{self.url}: the wrist now declares another stream ({'; '.join(changed)}): "
                "start again to use it"
            )
        if info.boot_id == known.boot_id:
            return []
        self._reassembler.restart()
        return [Restarted(info.boot_id)]

    def _connect(self, timeout_s: float) -> None:
        """Open the port, HELLO, START; OSError when there is no answer within timeout_s."""
        deadline_s = self._clock() + timeout_s
        self._port = open_port(self._address)
        self._decoder = Decoder()
        corrupt_before = self._stats.frames_corrupt
        try:
            hello = self._ask(ControlOp.HELLO, _is_stream_info, deadline_s)
            # The line was joined in the middle of a frame, perhaps: that is no fault of it.
            self._stats.frames_corrupt = corrupt_before
            info = StreamInfo.unpack(hello[0].payload)
            if self._address.baud is not None:
                check_baud(info, self._address.baud)
            if self._info is None:
                self._info = info
            self._pending = hello + self._ask(ControlOp.START, _begins_stream, deadline_s)
        except BaseException:
            self._close_port()
            raise
        self._silent_s = 0.0

    def _reconnect(self, cause: str) -> Reconnected | None:
        """Open the same port again and shake hands; None when `stop` was called meanwhile."""
        lost_s = self._clock()
        self._close_port()
        while not self._stop.wait(REOPEN_S):
            left_s = self._reconnect_s - (self._clock() - lost_s)
            if left_s <= 0:
                raise LinkLost(
                    f"{self.url}: the port was lost ({cause}) and no wrist answered there within "
                    f"{self._reconnect_s:g} s; plug it in again and restart"
                )
            try:
                self._connect(min(self._timeout_s, left_s))
            except (PortNotFound, OSError):
                continue  # not yet back, or still booting
            self._stats.reconnects += 1
            return Reconnected(self._clock() - lost_s, cause)
        return None

    def _ask(
        self, op: ControlOp, answers: Callable[[Frame], bool], deadline_s: float
    ) -> list[Frame]:
        """Send `op` until a frame answers it; return that frame and all that came after."""
        while self._clock() < deadline_s and not self._stop.is_set():
            self._send(op)
            again_s = min(deadline_s, self._clock() + ASK_AGAIN_S)
            while self._clock() < again_s:
                frames = self._read()
                for position, frame in enumerate(frames):
                    if answers(frame):
                        return frames[position:]
        raise TimeoutError(f"no answer to {op.name}")

    def _receive(self) -> list[Frame]:
        """Frames of one read; TimeoutError after silence_s without any."""
        if self._pending:
            frames, self._pending = self._pending, []
            return frames
        if self._must_start:
            self._send(ControlOp.START)
            self._must_start = False
        before_s = self._clock()
        frames = self._read()
        # Only time spent reading counts: a slow consumer must not look like a silent wrist.
        self._silent_s = 0.0 if frames else self._silent_s + self._clock() - before_s
        if self._silent_s > self._silence_s:
            raise TimeoutError(f"no intact frame for {self._silence_s:g} s")
        return frames

    def _read(self) -> list[Frame]:
        data: bytes = self._port.read(READ_BYTES)
        corrupt_before = self._decoder.frames_corrupt
        frames = self._decoder.feed(data)
        self._stats.frames_corrupt += self._decoder.frames_corrupt - corrupt_before
        self._stats.bytes_received += len(data)
        return frames

    def _send(self, op: ControlOp) -> None:
        self._port.write(encode(Frame(FrameType.CONTROL, payload=Control(op).pack())))

    def _close_port(self) -> None:
        if self._port is not None:
            self._port.close()
            self._port = None


def _is_stream_info(frame: Frame) -> bool:
    return frame.type is FrameType.STREAM_INFO


def _begins_stream(frame: Frame) -> bool:
    return frame.type is FrameType.DATA or frame.streaming

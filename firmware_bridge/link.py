"""A wrist on any line, read as blocks of samples.

    with WristLink(SerialTransport(url, parse_url(url))) as link:
        for item in link.blocks():
            match item:
                case Block(): ...

What it yields: `items` and `reassembly`.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import Final

from embridge.firmware_bridge.clock import ClockFit
from embridge.firmware_bridge.codec import Encoding
from embridge.firmware_bridge.errors import HandshakeError, LinkLost, PortNotFound
from embridge.firmware_bridge.frames import Frame, FrameType, decode_data
from embridge.firmware_bridge.items import EndOfStream, Item, Reconnected, Restarted
from embridge.firmware_bridge.protocol import ControlOp, Event, EventCode, Pong, Status
from embridge.firmware_bridge.reassembly import Block, Gap, LinkStats, Reassembler
from embridge.firmware_bridge.stream_info import StreamInfo
from embridge.firmware_bridge.talk import Talk
from embridge.firmware_bridge.transport import Choice, Transport

REOPEN_S: Final = 0.1  # before a lost line is tried again; half as much longer each time
LONGEST_REOPEN_S: Final = 1.0


class WristLink:
    """The connection to one wrist.

    encoding: ask for this one, instead of the best that the line carries
    timeout_s: how long the wrist may take to declare its stream
    reconnect_s: how long a lost line may stay away
    silence_s: without any intact frame for so long, the line counts as lost
    clock: seconds; stamps blocks and measures all of the above
    """

    def __init__(
        self,
        transport: Transport,
        *,
        encoding: Encoding | None = None,
        timeout_s: float = 5.0,
        reconnect_s: float = 10.0,
        silence_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = transport.url
        self._transport = transport
        self._encoding = encoding
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        self._silence_s = silence_s
        self._clock = clock
        self._stop = threading.Event()
        self._talk = Talk(transport, clock, self._stop)
        self._stats = LinkStats()
        self._fit = ClockFit()
        self._forgiven = 0  # damaged frames met while joining a line in the middle
        self._open = False
        self._info: StreamInfo | None = None
        self._choice: Choice | None = None
        self._reassembler: Reassembler | None = None
        self._pending: list[Frame] = []  # arrived with the answer to START
        self._must_start = False
        self._silent_s = 0.0  # spent in reads since the last intact frame
        self._pong_s: dict[int, float] = {}  # nonce -> when its answer arrived

    def __enter__(self) -> "WristLink":
        """Open the line and start the stream."""
        try:
            self.open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the stream and close the line."""
        self.close()

    @property
    def info(self) -> StreamInfo:
        """What the wrist declared latest; RuntimeError before `open`."""
        if self._info is None:
            raise RuntimeError("the link is not open: call open() or use `with`")
        return self._info

    @property
    def choice(self) -> Choice:
        """How the wrist was asked to send, and why; RuntimeError before `open`."""
        if self._choice is None:
            raise RuntimeError("the link is not open: call open() or use `with`")
        return self._choice

    @property
    def how(self) -> str:
        """How samples travel, in words."""
        return self.choice.text

    @property
    def stats(self) -> LinkStats:
        """A copy of the counts so far."""
        return replace(
            self._stats,
            frames_corrupt=self._transport.frames_corrupt - self._forgiven,
            bytes_received=self._transport.bytes_received,
            drift_ppm=self._fit.drift_ppm,
            rate_hz=self._fit.rate_hz,
        )

    def open(self) -> None:
        """Open the line, learn what the wrist sends and start it.

        PortNotFound when there is no such line; HandshakeError when the wrist does not answer
        within timeout_s or declares a stream that this line cannot carry.
        """
        try:
            self._connect(self._timeout_s)
        except OSError as error:
            raise HandshakeError(
                f"{self.url}: no wrist declared its stream within {self._timeout_s:g} s ({error}); "
                "check the device, its firmware and, on a serial line, the baud rate"
            ) from error

    def stop(self) -> None:
        """End `blocks` soon; safe from any thread and from a signal handler."""
        self._stop.set()

    def close(self) -> None:
        """Ask the wrist to pause, close the line and free it; the link is used up."""
        if self._open:
            # The line may be gone already, and then nobody is left to be told.
            with contextlib.suppress(OSError):
                self._talk.send(ControlOp.STOP)
            self._close_line()
        self._transport.release()

    def ping(self, nonce: int) -> float:
        """Send PING; return when, on the clock. `answered_s(nonce)` tells when it came back."""
        sent_s = self._clock()
        self._talk.send(ControlOp.PING, nonce.to_bytes(4, "little"))
        return sent_s

    def answered_s(self, nonce: int) -> float | None:
        """When the answer to that PING was read by `blocks`; None: not yet."""
        return self._pong_s.get(nonce)

    def blocks(self) -> Iterator[Item]:
        """What arrives, in stream order, until the stream ends or `stop` is called.

        LinkLost when a lost line does not come back within reconnect_s; HandshakeError when the
        wrist that comes back sends another signal, or contradicts what it declared.
        """
        while not self._stop.is_set():
            try:
                frames, arrived_s = self._receive(), self._clock()
            except OSError as error:
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
            pushed = self._reassembler.push(decode_data(frame), arrived_s)
            self._time(pushed)
            return [*pushed]
        items: list[Item] = []
        if frame.type is FrameType.STREAM_INFO:
            items += self._adopt(StreamInfo.unpack(frame.payload))
            self._must_start = not frame.streaming  # it has booted, for instance
        if frame.streaming:
            items += self._reassembler.expect(frame.seq, frame.sample_index)
        if frame.type is FrameType.EVENT and (event := Event.unpack(frame.payload)) is not None:
            items += self._hear(event, arrived_s)
        return items

    def _hear(self, event: Event, arrived_s: float) -> list[Item]:
        if isinstance(event.report, Pong):
            self._pong_s[event.report.nonce] = arrived_s
        if isinstance(event.report, Status):
            self._stats.declared = event.report
            if event.code is EventCode.END_OF_STREAM:
                return [EndOfStream(event.report)]
        return []

    def _time(self, pushed: list[Gap | Block]) -> None:
        for item in pushed:
            if isinstance(item, Block) and item.device_us is not None:
                self._fit.push(1e-6 * item.device_us, item.first_sample, item.arrived_s)

    def _adopt(self, info: StreamInfo) -> list[Item]:
        """Compare a declaration with the one in use; a new boot_id begins a new stream."""
        assert self._reassembler is not None
        known, self._info = self.info, info
        if changed := known.differences(info):
            raise HandshakeError(
                f"{self.url}: the wrist now declares another stream ({'; '.join(changed)}): "
                "start again to use it"
            )
        self._reassembler.adopt(info)
        if info.boot_id == known.boot_id:
            return []
        self._reassembler.restart()
        self._fit.restart()
        return [Restarted(info.boot_id)]

    def _connect(self, timeout_s: float) -> None:
        """Open the line, HELLO, choose, START; OSError when no answer comes within timeout_s."""
        self._transport.open()
        self._open = True
        deadline_s = self._clock() + timeout_s
        try:
            agreement = self._talk.shake_hands(self._encoding, deadline_s)
            if self._info is None:
                self._info = agreement.info
                self._reassembler = Reassembler(agreement.info, self._stats)
        except BaseException:
            self._close_line()
            raise
        self._choice, self._pending = agreement.choice, agreement.frames
        self._forgiven += agreement.frames_corrupt
        self._silent_s = 0.0

    def _reconnect(self, cause: str) -> Reconnected | None:
        """Open the same line again and shake hands; None when `stop` was called meanwhile."""
        lost_s, wait_s = self._clock(), REOPEN_S
        self._close_line()
        while not self._stop.wait(wait_s):
            wait_s = min(1.5 * wait_s, LONGEST_REOPEN_S)
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

    def _receive(self) -> list[Frame]:
        """Frames of one read; TimeoutError after silence_s without any."""
        if self._pending:
            frames, self._pending = self._pending, []
            return frames
        if self._must_start:
            self._talk.send(ControlOp.START, self.choice.request.pack())
            self._must_start = False
        before_s = self._clock()
        frames = self._transport.read()
        # Only time spent reading counts: a slow consumer must not look like a silent wrist.
        self._silent_s = 0.0 if frames else self._silent_s + self._clock() - before_s
        if self._silent_s > self._silence_s:
            raise TimeoutError(f"no intact frame for {self._silence_s:g} s")
        return frames

    def _close_line(self) -> None:
        self._transport.close()
        self._open = False

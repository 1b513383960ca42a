"""Requests to a wrist, and the handshake that begins every stream."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from embridge.firmware_bridge.codec import Encoding
from embridge.firmware_bridge.errors import HandshakeError
from embridge.firmware_bridge.frames import Frame, FrameType
from embridge.firmware_bridge.protocol import Control, ControlOp
from embridge.firmware_bridge.stream_info import StreamInfo
from embridge.firmware_bridge.transport import Choice, Transport, choose_encoding

ASK_AGAIN_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a handshake came to."""

    info: StreamInfo
    choice: Choice
    frames: list[Frame]  # that arrived meanwhile and belong to the stream
    frames_corrupt: int  # met while joining the line, perhaps in the middle of a frame


class Talk:
    """Requests over an open transport. stop: set to give up waiting for answers."""

    def __init__(
        self, transport: Transport, clock: Callable[[], float], stop: threading.Event
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._stop = stop

    def send(self, op: ControlOp, value: bytes = b"") -> None:
        """Send a request and do not wait; OSError when the line is gone."""
        self._transport.write(Frame(FrameType.CONTROL, payload=Control(op, value).pack()))

    def ask(
        self, op: ControlOp, value: bytes, answers: Callable[[Frame], bool], deadline_s: float
    ) -> list[Frame]:
        """Send `op` until a frame answers it; return that frame and all that came after.

        TimeoutError after deadline_s, OSError when the line is gone.
        """
        while self._clock() < deadline_s and not self._stop.is_set():
            self.send(op, value)
            again_s = min(deadline_s, self._clock() + ASK_AGAIN_S)
            while self._clock() < again_s:
                frames = self._transport.read()
                for position, frame in enumerate(frames):
                    if answers(frame):
                        return frames[position:]
        raise TimeoutError(f"no answer to {op.name}")

    def hello(self, deadline_s: float) -> list[Frame]:
        """Ask for STREAM_INFO; that frame and what came after."""
        return self.ask(ControlOp.HELLO, b"", _is_stream_info, deadline_s)

    def shake_hands(self, wanted: Encoding | None, deadline_s: float) -> Agreement:
        """HELLO, choose an encoding that the line carries, START.

        OSError when no answer comes in time; HandshakeError when there can be no agreement.
        """
        corrupt_before = self._transport.frames_corrupt
        hello = self.hello(deadline_s)
        corrupt = self._transport.frames_corrupt - corrupt_before
        info = StreamInfo.unpack(hello[0].payload)
        choice = choose_encoding(info, self._transport.capacity(), wanted)
        answer = self.ask(ControlOp.START, choice.request.pack(), _begins_stream, deadline_s)
        if answer[0].type is FrameType.STREAM_INFO:
            _check_agreed(self._transport.url, StreamInfo.unpack(answer[0].payload), choice)
        return Agreement(info, choice, hello + answer, corrupt)


def _check_agreed(url: str, info: StreamInfo, choice: Choice) -> None:
    if info.encoding is not choice.request.encoding:
        raise HandshakeError(
            f"{url}: asked for {choice.request.encoding.name}, the wrist sends "
            f"{info.encoding.name}: check its firmware"
        )


def _is_stream_info(frame: Frame) -> bool:
    return frame.type is FrameType.STREAM_INFO


def _begins_stream(frame: Frame) -> bool:
    return frame.type is FrameType.DATA or frame.streaming

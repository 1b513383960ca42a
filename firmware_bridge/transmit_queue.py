"""The transmit buffer of a wrist: whole frames or none, bounded in bytes."""

from collections import deque
from typing import Final

DEFAULT_BYTES: Final = 32_768  # half a second of 16 channels at 2 kHz


class TransmitQueue:
    """Frames on their way to the line. Not thread-safe.

    limit_bytes: frames beyond it are refused, as a wrist with a full buffer does
    """

    def __init__(self, limit_bytes: int = DEFAULT_BYTES) -> None:
        self.frames_sent = 0  # DATA frames of which the last byte was handed to the line
        self.overruns = 0  # times the buffer ran full
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._full = False
        self._frames: deque[tuple[memoryview, bool]] = deque()  # what is left of it, is it DATA

    def put(self, frame: bytes, *, is_data: bool) -> bool:
        """Take a whole frame, or refuse it (False) when the buffer is full."""
        taken = self._bytes + len(frame) <= self._limit_bytes
        if taken:
            self._frames.append((memoryview(frame), is_data))
            self._bytes += len(frame)
        if is_data:
            self.overruns += not (taken or self._full)
            self._full = not taken
        return taken

    def head(self) -> memoryview | None:
        """What is to be sent next: a frame, or what is left of one."""
        return self._frames[0][0] if self._frames else None

    def sent(self, count: int) -> None:
        """So many bytes of `head` were handed to the line."""
        left, is_data = self._frames.popleft()
        self._bytes -= count
        if count < len(left):
            self._frames.appendleft((left[count:], is_data))
        else:
            self.frames_sent += is_data

    def clear(self) -> int:
        """Forget everything; return how many DATA frames that were."""
        lost = sum(is_data for _, is_data in self._frames)
        self._frames.clear()
        self._bytes = 0
        self._full = False
        return lost

"""A wrist in this process: the bytes of a serial line without a line."""

import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge.frames import Decoder, Frame, encode
from embridge.firmware_bridge.stream_info import StreamInfo
from embridge.firmware_bridge.transmit_queue import DEFAULT_BYTES, TransmitQueue
from embridge.firmware_bridge.transport import Capacity
from embridge.firmware_bridge.wrist_core import WristCore

READ_S: Final = 0.005  # the longest that a read waits


class VirtualTransport:
    """Plays samples (T, C) int16 as the wrist that `info` declares; see WristCore.

    damage: what happens to the bytes on their way to the host
    """

    def __init__(
        self,
        url: str,
        samples: NDArray[np.int16],
        info: StreamInfo,
        *,
        speed: float = 1.0,
        loop: bool = False,
        queue_bytes: int = DEFAULT_BYTES,
        damage: Callable[[bytes], bytes] = bytes,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self.frames_corrupt = 0
        self.bytes_received = 0
        self._damage = damage
        self._clock = clock
        self._sleep = sleep
        self._queue = TransmitQueue(queue_bytes)
        self._core = WristCore(
            samples, info, self._queue, encode, speed=speed, loop=loop, booted_s=clock()
        )
        self._decoder = Decoder()

    def open(self) -> None:
        """Nothing to open."""

    def read(self) -> list[Frame]:
        """Frames that are due, after a wait of at most READ_S when none is."""
        data = self._due()
        if not data:
            due_in_s = self._core.due_in_s(self._clock())
            self._sleep(READ_S if due_in_s is None else max(0.0, min(READ_S, due_in_s)))
            data = self._due()
        data = self._damage(data)
        corrupt_before = self._decoder.frames_corrupt
        frames = self._decoder.feed(data)
        self.frames_corrupt += self._decoder.frames_corrupt - corrupt_before
        self.bytes_received += len(data)
        return frames

    def write(self, frame: Frame) -> None:
        """Hand a frame to the wrist."""
        self._core.receive(frame, self._clock())

    def close(self) -> None:
        """The host hangs up."""
        self._core.hang_up()
        self._decoder = Decoder()

    def release(self) -> None:
        """Nothing to free."""

    def capacity(self) -> Capacity:
        """Memory is fast."""
        return Capacity(text="memory of this process")

    def _due(self) -> bytes:
        self._core.step(self._clock())
        parts = []
        while (head := self._queue.head()) is not None:
            parts.append(bytes(head))
            self._queue.sent(len(head))
        return b"".join(parts)

"""Frames over a serial port or a TCP socket, by pyserial."""

import math
import time
from collections.abc import Callable
from typing import Any, Final

from embridge.firmware_bridge.frames import Decoder, Frame, encode
from embridge.firmware_bridge.ports import READ_TIMEOUT_S, Address, is_url, open_port
from embridge.firmware_bridge.transport import Capacity

READ_BYTES: Final = 65_536
BITS_PER_WIRE_BYTE: Final = 10  # start, 8 data, stop
STANDARD_BAUDS: Final = (
    9_600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600,
    1_000_000, 1_152_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000, 3_500_000, 4_000_000,
)  # fmt: skip


class SerialTransport:
    """A pyserial port that speaks frames.

    address: what to open, or a function that says so each time
    """

    def __init__(
        self,
        url: str,
        address: Address | Callable[[], Address],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url
        self._sleep = sleep
        self._pause_s = 0.0  # before each read
        self.frames_corrupt = 0
        self.bytes_received = 0
        self._address = address
        self._baud: int | None = None
        self._port: Any = None
        self._decoder = Decoder()

    def open(self) -> None:
        """Open the port; PortNotFound when that fails."""
        address = self._address if isinstance(self._address, Address) else self._address()
        self._baud = address.baud
        # A device hands over byte by byte: to wait for each costs several times the CPU of a pause,
        # after which one read takes them all. URLs have other buffers, and wait by themselves.
        self._pause_s = 0.0 if is_url(address.port) else READ_TIMEOUT_S
        self._port = open_port(address, READ_TIMEOUT_S - self._pause_s)
        self._decoder = Decoder()

    def read(self) -> list[Frame]:
        """Frames that the next bytes complete; OSError (pyserial's are) when the port is gone."""
        if self._pause_s:
            self._sleep(self._pause_s)
        data: bytes = self._port.read(READ_BYTES)
        corrupt_before = self._decoder.frames_corrupt
        frames = self._decoder.feed(data)
        self.frames_corrupt += self._decoder.frames_corrupt - corrupt_before
        self.bytes_received += len(data)
        return frames

    def write(self, frame: Frame) -> None:
        """Send a frame; OSError when the port is gone."""
        self._port.write(encode(frame))

    def close(self) -> None:
        """Close the port; does nothing when it is closed."""
        if self._port is not None:
            self._port.close()
            self._port = None

    def release(self) -> None:
        """Nothing outlives the port."""

    def capacity(self) -> Capacity:
        """The baud rate, 10 bits a byte; unlimited where the line has none."""
        if self._baud is None:
            return Capacity(text=f"{self.url}")
        faster = [baud for baud in STANDARD_BAUDS if baud > self._baud]
        advice = "use a higher ?baud= here and in the firmware" if faster else "send fewer channels"
        return Capacity(
            math.floor(self._baud / BITS_PER_WIRE_BYTE), text=f"{self._baud} baud", advice=advice
        )

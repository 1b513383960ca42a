"""Bytes from an OpenBCI Cyton -> packets of one sample; resynchronises after damage. Pure.

A packet is 33 bytes: 0xA0, sample number, 8 channels of 24 bits (two's complement, big-endian),
6 bytes of another kind, 0xC0 to 0xCF. There is no checksum. Source: OpenBCI's documentation,
"Cyton Data Format".
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

CHANNELS: Final = 8
PACKET_BYTES: Final = 33
NUMBERS: Final = 256  # what the sample number wraps at
_START: Final = 0xA0


class PacketDecoder:
    """Finds packets in a byte stream.

    packets_corrupt: times that bytes had to be dropped to find the next packet

    A packet counts when a start byte follows it, or nothing does; after damage, only when the
    packet that follows has the next number. Without a checksum this is what keeps bytes in the
    middle of a packet from being taken for one.
    """

    def __init__(self) -> None:
        self.packets_corrupt = 0
        self._buffer = bytearray()
        self._in_step = True  # the buffer begins with a packet, as far as is known

    def feed(self, data: bytes) -> list[bytes]:
        """Packets that `data` completes; no data means that the line is silent."""
        self._buffer += data
        packets = []
        while len(self._buffer) >= PACKET_BYTES:
            verdict = self._is_packet(silent=not data)
            if verdict is None:
                break
            if verdict:
                packets.append(bytes(self._buffer[:PACKET_BYTES]))
                del self._buffer[:PACKET_BYTES]
            else:
                following = self._buffer.find(_START, 1)
                del self._buffer[: following if following > 0 else len(self._buffer)]
                self.packets_corrupt += self._in_step
            self._in_step = verdict
        return packets

    def _is_packet(self, silent: bool) -> bool | None:
        """Whether the buffer begins with a packet; None when more bytes must tell."""
        here = self._buffer
        if here[0] != _START or here[PACKET_BYTES - 1] >> 4 != 0xC:
            return False
        after = here[PACKET_BYTES:]
        if self._in_step:
            return after[0] == _START if after else (True if silent else None)
        if len(after) < 2:
            return False if after and after[0] != _START else None
        return after[0] == _START and after[1] == (here[1] + 1) % NUMBERS


def numbers(packets: Sequence[bytes]) -> list[int]:
    """Sample number of each packet, 0..255."""
    return [packet[1] for packet in packets]


def adc_counts(packets: Sequence[bytes]) -> NDArray[np.int32]:
    """Packets -> (T, 8) int32, -2**23 .. 2**23 - 1."""
    whole = np.frombuffer(b"".join(packets), np.uint8).reshape(-1, PACKET_BYTES)
    parts = whole[:, 2 : 2 + 3 * CHANNELS].reshape(-1, CHANNELS, 3).astype(np.int32)  # T C 3
    unsigned = parts @ np.array([1 << 16, 1 << 8, 1], np.int32)  # T C
    return (unsigned ^ (1 << 23)) - (1 << 23)

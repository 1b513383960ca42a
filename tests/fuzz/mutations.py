"""Lines of frames that are almost right: structured damage for the decoders of both languages.

Most damage is done below the CRC, which is then made right again, so that the inner decoders see
it; the rest hits the CRC, the COBS packet, the delimiters and the limits of every length.
"""

import random
import zlib
from collections.abc import Callable

import numpy as np
from cobs import cobs

from embridge.firmware_bridge import DataFrame, Encoding, Frame, FrameType, data_frame, pack
from embridge.firmware_bridge.frames import HEADER, MAX_PACKET_BYTES, MAX_PAYLOAD_BYTES

POOL = 3000  # frames to begin from
BYTES = (0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF)
COUNTS = (0, 1, 2, 3, 4, 8, 16, 254, 255)
FIELDS = {0: (0, 1, 1, 1, 2, 4, 5, 255), 1: (0, 1, 2, 2, 3, 15, 0x12, 0xF2), 12: COUNTS, 13: COUNTS}


class Mutations:
    """Damaged frames without end; `rng` decides them all."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._bodies = _pool(np.random.default_rng(rng.getrandbits(64)))  # without CRC
        self._kinds: list[Callable[[bytes], bytes]] = rng.choices(
            (self._deep, self._rice, self._intact, self._packed, self._packet, self._delimiters,
             self._blocks, self._noise, self._extreme),
            (40, 12, 10, 8, 20, 6, 1, 2.5, 0.5),
            k=4096,
        )  # fmt: skip

    def next(self) -> bytes:
        """One input; it may join the one before and the one after it, when delimiters are lost."""
        return self._rng.choice(self._kinds)(self._rng.choice(self._bodies))

    def _intact(self, body: bytes) -> bytes:
        return _line(body)

    def _deep(self, body: bytes) -> bytes:
        """Damage that the CRC confirms."""
        data = bytearray(body)
        if self._rng.random() < 0.3:
            field = self._rng.choice((0, 1, 12, 13))
            data[field] = self._rng.choice(FIELDS[field])
        if self._rng.random() < 0.8:
            self._edit(data, min(len(data) - 1, HEADER.size))
        return _line(bytes(data))

    def _rice(self, body: bytes) -> bytes:
        """A Rice code that no encoder would write: free choice of order, k, quotients, padding."""
        rng = self._rng
        n_samp, n_ch = rng.randrange(1, 6), rng.randrange(1, 4)
        orders = rng.choices((0, 1, 2, 3), (10, 10, 10, 1), k=n_ch)
        ks = rng.choices((0, 1, 2, 7, 13, 14, 15), k=n_ch)
        quotients = rng.choices((0, 1, 2, 14, 15, 16), (20, 10, 10, 5, 20, 1), k=n_ch * n_samp)
        bits = "".join(f"{order:02b}{k:04b}" for order, k in zip(orders, ks, strict=True))
        bits += "".join("1" * quotient + "0" for quotient in quotients)
        for number, quotient in enumerate(quotients):
            width = 18 if quotient == 15 else ks[number // n_samp]
            value = rng.getrandbits(rng.choice((1, 5, 16, 18)))  # many of 18 bits leave int16
            bits += f"{value % (1 << width):0{width}b}" if width else ""
        bits += rng.choice(("", "", "", "1", "00000000")) + "0000000"  # cut to whole bytes below
        payload = int(bits[: len(bits) // 8 * 8], 2).to_bytes(len(bits) // 8, "big")
        return _line(bytes([1, 2]) + body[2:12] + bytes([n_ch, n_samp]) + payload)

    def _blocks(self, body: bytes) -> bytes:
        """Lengths around those of full COBS blocks, without a zero byte in them."""
        length = 254 * self._rng.randrange(1, 4) + self._rng.randrange(-1, 2) - 4
        return _line((body.replace(b"\0", b"\5") + b"\7" * length)[:length])

    def _packed(self, body: bytes) -> bytes:
        """Damage that the CRC refuses."""
        data = bytearray(_with_crc(body))
        self._edit(data, 0)
        return cobs.encode(bytes(data)) + b"\0"

    def _packet(self, body: bytes) -> bytes:
        """Damage on the line, the delimiter included."""
        data = bytearray(_line(body))
        self._edit(data, 0)
        return bytes(data)

    def _delimiters(self, body: bytes) -> bytes:
        packet = _line(body)[:-1]
        cut = self._rng.randrange(len(packet))
        return self._rng.choice((
            packet, packet + b"\0\0\0", packet + b"\1", b"\0" + packet + b"\1\0",
            packet[:cut] + b"\0" + packet[cut:] + b"\0", packet + packet + b"\0",
            packet[:cut] + _line(body), b"\xff" + packet + b"\0",
        ))  # fmt: skip

    def _noise(self, body: bytes) -> bytes:
        return self._rng.randbytes(self._rng.randrange(60))

    def _extreme(self, body: bytes) -> bytes:
        """Lengths around the least and the most that there may be."""
        rng = self._rng
        longest = bytes([rng.choice(BYTES)]) * (MAX_PAYLOAD_BYTES + rng.randrange(-2, 3))
        return rng.choice((
            lambda: _line(body[: HEADER.size] + longest),
            lambda: _line(bytes([1, 2]) + body[2:12] + b"\xff\xff" + longest),
            lambda: _line(body[: rng.randrange(HEADER.size + 2)]),
            lambda: b"\x01" * (MAX_PACKET_BYTES + rng.randrange(-2, 3)) + b"\0",
            lambda: b"\x02" * (MAX_PACKET_BYTES + rng.randrange(3)) + _line(body),
        ))()  # fmt: skip

    def _edit(self, data: bytearray, first: int) -> None:
        """One to three edits of what follows offset `first`."""
        for _ in range(self._rng.randrange(1, 4)):
            at = self._rng.randrange(first, len(data) + 1)
            kind = self._rng.randrange(6)
            if at == len(data) or kind == 0:
                data.insert(at, self._rng.choice(BYTES))
            elif kind == 1:
                data[at] = self._rng.choice(BYTES)
            elif kind == 2:
                del data[at]
            elif kind == 3 and self._rng.random() < 0.3:
                del data[at:]
            elif kind == 4 and self._rng.random() < 0.3:
                data[at:at] = data[at : at + self._rng.randrange(1, 9)]
            else:
                data[at] ^= 1 << self._rng.randrange(8)


def _line(body: bytes) -> bytes:
    return cobs.encode(_with_crc(body)) + b"\0"


def _with_crc(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


def _pool(rng: np.random.Generator) -> list[bytes]:
    """Header and payload of valid frames, most of them small, in all encodings and of all sizes."""
    bodies = []
    for number in range(POOL):
        n_samp, n_ch = rng.integers(1, 9), rng.integers(1, 5)
        if number % 100 == 0:
            n_samp, n_ch = rng.integers(1, 256), rng.integers(1, 17)
        level = 2.0 ** rng.uniform(0, 17)
        samples = np.clip(rng.normal(0, level, (n_samp, n_ch)), -32768, 32767)
        if number % 3 == 0:
            samples = np.clip(np.cumsum(samples, axis=0), -32768, 32767)
        header = (int(rng.integers(2**16)), int(rng.integers(2**32)))
        encoding = Encoding(int(rng.choice((0, 1, 2, 2, 2, 2))))
        frame = data_frame(
            DataFrame(*header, samples.astype(np.int16), int(rng.integers(2**32))), encoding
        )
        if number % 10 == 0:
            kind = FrameType(int(rng.integers(2, 5)))
            frame = Frame(kind, 0x20, *header, payload=rng.bytes(int(rng.integers(0, 100))))
        bodies.append(pack(frame)[:-4])
    return bodies

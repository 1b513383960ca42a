"""Frames on the wire: bytes <-> values, no I/O and no clock. PROTOCOL.md is the specification.

A packed frame is header, payload and CRC-32; that is what one BLE notification carries. On a serial
line it is COBS encoded, so that it holds no zero byte, and a zero byte ends it.

Frame                        any frame; `pack` and `unpack`, `encode` and `decode` are inverse
DataFrame                    a frame of samples; `data_frame` and `decode_data`
Decoder                      bytes in chunks of any size -> frames, resynchronised after errors
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final, NamedTuple

import numpy as np
from cobs import cobs
from numpy.typing import NDArray

from embridge.firmware_bridge.codec import Encoding, decode_samples, encode_samples
from embridge.firmware_bridge.errors import HandshakeError

HEADER: Final = struct.Struct("<BBHIIBB")
CRC: Final = struct.Struct("<I")
CRC_RESIDUE: Final = 0x2144DF1C  # CRC-32 of any bytes followed by their own CRC-32
DELIMITER: Final = b"\x00"

ENCODING_MASK: Final = 0x0F
FLAG_OVERRUN: Final = 0x10  # the sender dropped frames just before this one
FLAG_STREAMING: Final = 0x20  # the DATA frame numbered in this header follows on this line

MAX_SAMPLES: Final = 255  # n_samp is one byte
MAX_PAYLOAD_BYTES: Final = 8192  # 255 samples of 16 channels fit; a receiver needs a bound
OVERHEAD_BYTES: Final = HEADER.size + CRC.size  # of a packed frame over its payload
MAX_FRAME_BYTES: Final = OVERHEAD_BYTES + MAX_PAYLOAD_BYTES
MAX_PACKET_BYTES: Final[int] = cobs.max_encoded_length(MAX_FRAME_BYTES)


@unique
class FrameType(IntEnum):
    """What a frame carries."""

    DATA = 1  # samples, wrist -> host
    STREAM_INFO = 2  # protocol.StreamInfo, wrist -> host
    CONTROL = 3  # protocol.Control, host -> wrist
    EVENT = 4  # protocol.Event, wrist -> host


_TYPES: Final = {int(kind): kind for kind in FrameType}


class Frame(NamedTuple):
    """One frame of any type, as it stands on the wire.

    seq, sample_index and time_us are modulo 2**16, 2**32 and 2**32; payload is at most
    MAX_PAYLOAD_BYTES. A tuple, because half the time of decoding would go into a dataclass.
    """

    type: FrameType
    flags: int = 0
    seq: int = 0
    sample_index: int = 0
    time_us: int = 0  # device clock
    n_ch: int = 0
    n_samp: int = 0
    payload: bytes = b""

    @property
    def overrun(self) -> bool:
        """True when the sender dropped frames just before this one."""
        return bool(self.flags & FLAG_OVERRUN)

    @property
    def streaming(self) -> bool:
        """True when the DATA frame numbered in this header follows on this line."""
        return bool(self.flags & FLAG_STREAMING)


@dataclass(frozen=True, slots=True, eq=False)
class DataFrame:
    """One block of consecutive samples as the wrist sent it.

    samples: (T, C) int16, device counts; StreamInfo.scale turns them into StreamInfo.unit
    seq: counts frames modulo 2**16
    sample_index: index of samples[0] since the stream began, modulo 2**32
    time_us: device clock when samples[0] was taken, modulo 2**32
    overrun: the sender dropped frames just before this one
    """

    seq: int
    sample_index: int
    samples: NDArray[np.int16]
    time_us: int = 0
    overrun: bool = False


def wire_bytes(payload_bytes: int) -> int:
    """Most bytes a frame with such a payload takes on a serial line, delimiter included."""
    return int(cobs.max_encoded_length(OVERHEAD_BYTES + payload_bytes)) + len(DELIMITER)


def pack(frame: Frame) -> bytes:
    """Frame -> header, payload, CRC-32; ValueError when the payload is too large.

    >>> frame = Frame(FrameType.DATA, FLAG_OVERRUN, 1, 20, 10_000, 2, 1, b"\\x01\\0\\xff\\xff")
    >>> pack(frame).hex(" ")
    '01 10 01 00 14 00 00 00 10 27 00 00 02 01 01 00 ff ff 94 51 62 f9'
    """
    if len(frame.payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(
            f"payload of {len(frame.payload)} bytes does not fit a frame of {MAX_PAYLOAD_BYTES}"
        )
    body = HEADER.pack(*frame[:7]) + frame.payload
    return body + CRC.pack(zlib.crc32(body))


def unpack(packed: bytes) -> Frame:
    """The inverse of `pack`; ValueError when the frame is damaged."""
    size = len(packed)
    if not OVERHEAD_BYTES <= size <= MAX_FRAME_BYTES:
        raise ValueError(f"frame of {size} bytes, {OVERHEAD_BYTES}..{MAX_FRAME_BYTES} expected")
    if zlib.crc32(packed) != CRC_RESIDUE:
        raise ValueError("CRC-32 differs")
    kind, flags, seq, sample_index, time_us, n_ch, n_samp = HEADER.unpack_from(packed)
    if kind not in _TYPES:
        raise ValueError(f"frame of unknown type {kind}")
    payload = packed[HEADER.size : -CRC.size]
    return Frame(_TYPES[kind], flags, seq, sample_index, time_us, n_ch, n_samp, payload)


def encode(frame: Frame) -> bytes:
    """Frame -> bytes on a serial line, delimiter included; ValueError as `pack`."""
    return bytes(cobs.encode(pack(frame))) + DELIMITER


def decode(packet: bytes) -> Frame:
    """One COBS packet, without its delimiter -> frame; ValueError when it is damaged."""
    try:
        packed: bytes = cobs.decode(packet)
    except cobs.DecodeError as error:
        raise ValueError(f"not a COBS packet: {error}") from error
    return unpack(packed)


def data_frame(frame: DataFrame, encoding: Encoding = Encoding.INT16) -> Frame:
    """DataFrame -> Frame; ValueError unless int16, 1..255 samples and channels."""
    samples = frame.samples  # T C
    if samples.dtype != np.int16 or samples.ndim != 2:
        raise ValueError(f"expected (T, C) int16, got {samples.shape} {samples.dtype}")
    n_samp, n_ch = samples.shape
    if not (1 <= n_samp <= MAX_SAMPLES and 1 <= n_ch <= 255):
        raise ValueError(f"expected 1..255 samples of 1..255 channels, got {samples.shape}")
    return Frame(
        FrameType.DATA,
        encoding | (FLAG_OVERRUN if frame.overrun else 0),
        frame.seq,
        frame.sample_index,
        frame.time_us,
        n_ch,
        n_samp,
        encode_samples(samples, encoding),
    )


def decode_data(frame: Frame) -> DataFrame:
    """The samples of an intact DATA frame.

    HandshakeError when they cannot be: the CRC was right, so this is no noise.
    """
    try:
        encoding = Encoding(frame.flags & ENCODING_MASK)
        samples = decode_samples(frame.payload, encoding, frame.n_samp, frame.n_ch)  # T C
    except ValueError as error:
        raise HandshakeError(
            f"the wrist sent an intact frame that cannot be read ({error}): update the older of "
            "wrist and host"
        ) from error
    return DataFrame(frame.seq, frame.sample_index, samples, frame.time_us, frame.overrun)


class Decoder:
    """Frames out of a byte stream; the result does not depend on how the bytes were chunked.

    After damage it resumes at the next delimiter. The buffer never exceeds MAX_PACKET_BYTES plus
    one chunk.
    """

    def __init__(self) -> None:
        self.frames_ok = 0
        self.frames_corrupt = 0  # delimited pieces that were no frame; a torn frame can leave two
        self._tail = b""
        self._skipping = False  # inside a piece that is already longer than any frame

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes; return the frames that they completed."""
        *pieces, self._tail = (self._tail + data).split(DELIMITER)
        frames = [frame for piece in pieces if (frame := self._finish(piece)) is not None]
        if len(self._tail) > MAX_PACKET_BYTES:
            self._tail = b""
            self._skipping = True
        return frames

    def _finish(self, piece: bytes) -> Frame | None:
        """The frame in a delimited piece, or None when it is empty or damaged."""
        too_long = self._skipping or len(piece) > MAX_PACKET_BYTES
        self._skipping = False
        if not piece and not too_long:
            return None
        try:
            if too_long:
                raise ValueError("longer than any frame")
            frame = decode(piece)
        except ValueError:
            self.frames_corrupt += 1
            return None
        self.frames_ok += 1
        return frame

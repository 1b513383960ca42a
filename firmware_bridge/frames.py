"""Frames on the wire: bytes <-> values, no I/O and no clock.

One frame, little-endian, before COBS:

    offset  size  field
    0       1     type          FrameType
    1       1     flags         low nibble: payload encoding; bit 4 OVERRUN; bit 5 STREAMING
    2       2     seq           counts DATA frames, modulo 2**16
    4       4     sample_index  index of the first sample since the stream began, modulo 2**32
    8       1     n_ch          channels in the payload, 0 without samples
    9       1     n_samp        samples in the payload, 0 without samples
    10      ...   payload
    end-4   4     CRC-32 (zlib polynomial) of header and payload

The whole is COBS encoded, so that it holds no zero byte, and a zero byte ends it. Frames other than
DATA do not count in `seq`: from the wrist they carry the seq and sample_index of the DATA frame
that comes next, which STREAMING declares to be meant.

Frame                        any frame; `encode` and `decode` are inverse
DataFrame                    a frame of samples; `encode_data` and `decode_data`
Decoder                      bytes in chunks of any size -> frames, resynchronised after errors
"""

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final

import numpy as np
from cobs import cobs
from numpy.typing import NDArray

from embridge.firmware_bridge.errors import HandshakeError

HEADER: Final = struct.Struct("<BBHIBB")
CRC: Final = struct.Struct("<I")
DELIMITER: Final = b"\x00"

ENCODING_MASK: Final = 0x0F
ENCODING_INT16: Final = 0  # int16 little-endian, time-major: n_samp rows of n_ch
FLAG_OVERRUN: Final = 0x10  # the sender dropped frames just before this one
FLAG_STREAMING: Final = 0x20  # the DATA frame numbered in this header follows on this line

MAX_SAMPLES: Final = 255  # n_samp is one byte
MAX_PAYLOAD_BYTES: Final = 8192  # 255 samples of 16 channels fit; a receiver needs a bound
MAX_PACKET_BYTES: Final[int] = cobs.max_encoded_length(HEADER.size + MAX_PAYLOAD_BYTES + CRC.size)


@unique
class FrameType(IntEnum):
    """What a frame carries."""

    DATA = 1  # samples, wrist -> host
    STREAM_INFO = 2  # protocol.StreamInfo, wrist -> host
    CONTROL = 3  # protocol.Control, host -> wrist
    EVENT = 4  # protocol.Event, wrist -> host


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of any type, as it stands on the wire.

    seq and sample_index are modulo 2**16 and 2**32; payload is at most MAX_PAYLOAD_BYTES.
    """

    type: FrameType
    flags: int = 0
    seq: int = 0
    sample_index: int = 0
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
    overrun: the sender dropped frames just before this one
    """

    seq: int
    sample_index: int
    samples: NDArray[np.int16]
    overrun: bool = False


def wire_bytes(payload_bytes: int) -> int:
    """Most bytes a frame with such a payload takes on the line, delimiter included."""
    packed = HEADER.size + payload_bytes + CRC.size
    return int(cobs.max_encoded_length(packed)) + len(DELIMITER)


def encode(frame: Frame) -> bytes:
    """Frame -> bytes on the line, delimiter included; ValueError when the payload is too large.

    >>> encode(Frame(FrameType.DATA, FLAG_OVERRUN, 1, 20, 2, 1, b"\\x01\\x00\\xff\\xff")).hex(" ")
    '04 01 10 01 02 14 01 01 04 02 01 01 07 ff ff b7 ae 61 3b 00'
    """
    if len(frame.payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(
            f"payload of {len(frame.payload)} bytes does not fit a frame of {MAX_PAYLOAD_BYTES}"
        )
    body = _header(frame) + frame.payload
    return bytes(cobs.encode(body + CRC.pack(zlib.crc32(body)))) + DELIMITER


def _header(frame: Frame) -> bytes:
    return HEADER.pack(
        frame.type, frame.flags, frame.seq, frame.sample_index, frame.n_ch, frame.n_samp
    )


def decode(packet: bytes) -> Frame:
    """One COBS packet, without its delimiter -> frame; ValueError when it is damaged."""
    try:
        packed: bytes = cobs.decode(packet)
    except cobs.DecodeError as error:
        raise ValueError(f"not a COBS packet: {error}") from error
    if len(packed) < HEADER.size + CRC.size:
        raise ValueError(f"frame of {len(packed)} bytes, at least {HEADER.size + CRC.size} needed")
    body = packed[: -CRC.size]
    if CRC.pack(zlib.crc32(body)) != packed[-CRC.size :]:
        raise ValueError("CRC-32 differs")
    kind, flags, seq, sample_index, n_ch, n_samp = HEADER.unpack_from(body)
    return Frame(
        FrameType(kind), flags, seq, sample_index, n_ch, n_samp, payload=body[HEADER.size :]
    )


def encode_data(frame: DataFrame) -> bytes:
    """DataFrame -> bytes on the line; ValueError unless int16, 1..255 samples and channels."""
    samples = frame.samples  # T C
    if samples.dtype != np.int16 or samples.ndim != 2:
        raise ValueError(f"expected (T, C) int16, got {samples.shape} {samples.dtype}")
    n_samp, n_ch = samples.shape
    if not (1 <= n_samp <= MAX_SAMPLES and 1 <= n_ch <= 255):
        raise ValueError(f"expected 1..255 samples of 1..255 channels, got {samples.shape}")
    flags = ENCODING_INT16 | (FLAG_OVERRUN if frame.overrun else 0)
    payload = samples.astype("<i2").tobytes()
    return encode(
        Frame(FrameType.DATA, flags, frame.seq, frame.sample_index, n_ch, n_samp, payload)
    )


def decode_data(frame: Frame) -> DataFrame:
    """The samples of an intact DATA frame.

    HandshakeError when the wrist encodes them in a way this host does not read: the CRC was right,
    so this is no noise.
    """
    encoding = frame.flags & ENCODING_MASK
    if encoding != ENCODING_INT16:
        raise HandshakeError(
            f"the wrist sends samples in encoding {encoding}, this host reads {ENCODING_INT16} "
            "(int16) only: use firmware that sends int16"
        )
    if not frame.payload or len(frame.payload) != 2 * frame.n_ch * frame.n_samp:
        raise HandshakeError(
            f"the wrist sent {len(frame.payload)} bytes for {frame.n_samp} samples of "
            f"{frame.n_ch} channels, expected {2 * frame.n_ch * frame.n_samp}: check its firmware"
        )
    samples = np.frombuffer(frame.payload, "<i2").reshape(frame.n_samp, frame.n_ch)  # T C
    return DataFrame(
        frame.seq, frame.sample_index, samples.astype(np.int16, copy=False), frame.overrun
    )


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

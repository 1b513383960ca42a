"""What the wrist and the host say to each other, besides samples.

    host                                    wrist
    CONTROL HELLO          ->
                           <-  STREAM_INFO              what it sends; nothing of it is ever guessed
    CONTROL START          ->
                           <-  STREAM_INFO | STREAMING  number of the first DATA frame
                           <-  DATA, DATA, ...
                           <-  STREAM_INFO, EVENT STATUS, once a second
    CONTROL STOP           ->
                           <-  EVENT END_OF_STREAM      players of recordings only

Every DATA frame holds `samples_per_frame` samples; only the last of a stream may hold fewer.
A wrist that drops frames keeps counting seq and sample_index. A wrist that boots draws a new
boot_id, counts from 0 and sends no DATA before START.

StreamInfo    what the wrist sends, 96 bytes that a C struct without padding can emit
Control, Event, Counters    the small payloads
required_baud, check_baud   whether a line can carry a stream
"""

import math
import struct
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final, TypeVar

from embridge.firmware_bridge.errors import HandshakeError
from embridge.firmware_bridge.frames import MAX_PAYLOAD_BYTES, MAX_SAMPLES, wire_bytes

PROTOCOL_VERSION: Final = 1
BITS_PER_WIRE_BYTE: Final = 10  # start, 8 data, stop
STANDARD_BAUDS: Final = (
    9_600, 19_200, 38_400, 57_600, 115_200, 230_400, 460_800, 500_000, 576_000, 921_600,
    1_000_000, 1_152_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000, 3_500_000, 4_000_000,
)  # fmt: skip

NO_MODEL: Final = bytes(32)

_STREAM_INFO: Final = struct.Struct("<4BfdIB3x8s16s16s32s")
_COUNTERS: Final = struct.Struct("<II")

Code = TypeVar("Code", bound=IntEnum)


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a wrist declares about its stream; value in `unit` = count * scale.

    Packed little-endian, every field at a multiple of its size; texts end in zeros, if shorter:

        0 version u8    1 n_ch u8    2 bits u8    3 samples_per_frame u8    4 rate_hz f32
        8 scale f64    16 boot_id u32    20 envelope u8    21 three zeros    24 unit 8 bytes
        32 firmware 16 bytes    48 device 16 bytes    64 model_sha256 32 bytes

    ValueError when a field is out of range or a text does not fit.
    """

    n_ch: int  # 1..255
    rate_hz: float  # carried as float32
    samples_per_frame: int  # 1..255
    unit: str  # "uV", "V", "a.u."; at most 8 bytes of UTF-8
    scale: float  # `unit` per count
    boot_id: int  # random per boot; a change means that sample_index began again
    bits: int = 16  # resolution of the counts, 1..16
    envelope: bool = False  # True: rectified and smoothed before it is sent
    firmware: str = ""  # version, at most 16 bytes of UTF-8
    device: str = ""  # name, at most 16 bytes of UTF-8
    model_sha256: bytes = NO_MODEL  # of the model package it holds; all zero: none

    def __post_init__(self) -> None:
        """Refuse what cannot be packed."""
        for name, value, low, high in (
            ("n_ch", self.n_ch, 1, 255),
            ("bits", self.bits, 1, 16),
            ("samples_per_frame", self.samples_per_frame, 1, MAX_SAMPLES),
            ("boot_id", self.boot_id, 0, 2**32 - 1),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}, expected {low}..{high}")
        for name, number in (("rate_hz", self.rate_hz), ("scale", self.scale)):
            if not (math.isfinite(number) and number > 0):
                raise ValueError(f"{name} is {number}, expected a positive number")
        for name, text, size in (
            ("unit", self.unit, 8),
            ("firmware", self.firmware, 16),
            ("device", self.device, 16),
        ):
            if len(text.encode()) > size or "\0" in text:
                raise ValueError(f"{name} {text!r} does not fit {size} bytes of UTF-8")
        if len(self.model_sha256) != len(NO_MODEL):
            raise ValueError(f"model_sha256 has {len(self.model_sha256)} bytes, expected 32")
        if 2 * self.n_ch * self.samples_per_frame > MAX_PAYLOAD_BYTES:
            raise ValueError(
                f"{self.samples_per_frame} samples of {self.n_ch} channels do not fit a frame of "
                f"{MAX_PAYLOAD_BYTES} bytes"
            )

    def pack(self) -> bytes:
        """The payload of a STREAM_INFO frame, 96 bytes."""
        return _STREAM_INFO.pack(
            PROTOCOL_VERSION,
            self.n_ch,
            self.bits,
            self.samples_per_frame,
            self.rate_hz,
            self.scale,
            self.boot_id,
            self.envelope,
            self.unit.encode(),
            self.firmware.encode(),
            self.device.encode(),
            self.model_sha256,
        )

    @classmethod
    def unpack(cls, payload: bytes) -> "StreamInfo":
        """Read a STREAM_INFO payload; HandshakeError on another version, size or nonsense."""
        if payload[:1] != bytes([PROTOCOL_VERSION]):
            version = payload[0] if payload else "none"
            raise HandshakeError(
                f"the wrist speaks protocol version {version}, this host {PROTOCOL_VERSION}: "
                "update the older of the two"
            )
        if len(payload) != _STREAM_INFO.size:
            raise HandshakeError(
                f"the wrist declared its stream in {len(payload)} bytes, expected "
                f"{_STREAM_INFO.size}: check its firmware"
            )
        (_, n_ch, bits, per_frame, rate_hz, scale, boot_id, envelope, *texts, model) = (
            _STREAM_INFO.unpack(payload)
        )
        try:
            unit, firmware, device = (text.rstrip(b"\0").decode() for text in texts)
            return cls(
                n_ch, rate_hz, per_frame, unit, scale, boot_id, bits, bool(envelope), firmware,
                device, model,
            )  # fmt: skip
        except ValueError as error:
            raise HandshakeError(
                f"the wrist declared a stream that cannot be: {error}; check its firmware"
            ) from error

    def differences(self, other: "StreamInfo") -> list[str]:
        """Fields in which `other` describes another signal: "n_ch 16, then 8", ..."""
        names = ("n_ch", "rate_hz", "samples_per_frame", "unit", "scale", "bits", "envelope")
        return [
            f"{name} {getattr(self, name)}, then {getattr(other, name)}"
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]


@unique
class ControlOp(IntEnum):
    """Requests of the host."""

    HELLO = 1  # please send STREAM_INFO
    START = 2  # please stream; repeated until the stream begins, so it must be idempotent
    STOP = 3  # please pause


@dataclass(frozen=True, slots=True)
class Control:
    """Payload of a CONTROL frame: op u8, len u8, then len bytes."""

    op: ControlOp
    value: bytes = b""

    def pack(self) -> bytes:
        """The payload; ValueError when the value has more than 255 bytes."""
        return _pack_op(self.op, self.value)

    @classmethod
    def unpack(cls, payload: bytes) -> "Control":
        """Read a CONTROL payload; HandshakeError on an unknown op or a wrong length."""
        op, value = _unpack_op(payload, ControlOp)
        return cls(op, value)


@unique
class EventCode(IntEnum):
    """Reports of the wrist."""

    END_OF_STREAM = 1  # a player of a recording has played it all
    STATUS = 2  # once a second


@dataclass(frozen=True, slots=True)
class Counters:
    """What the wrist says about its own frames since it first started to stream."""

    frames_sent: int  # handed to the line
    frames_dropped: int  # due, but never handed to the line


@dataclass(frozen=True, slots=True)
class Event:
    """Payload of an EVENT frame: code u8, len u8 (= 8), frames_sent u32, frames_dropped u32."""

    code: EventCode
    counters: Counters

    def pack(self) -> bytes:
        """The payload; counters are carried modulo 2**32."""
        sent, dropped = self.counters.frames_sent, self.counters.frames_dropped
        return _pack_op(self.code, _COUNTERS.pack(sent % 2**32, dropped % 2**32))

    @classmethod
    def unpack(cls, payload: bytes) -> "Event":
        """Read an EVENT payload; HandshakeError on an unknown code or a wrong length."""
        code, value = _unpack_op(payload, EventCode)
        if len(value) != _COUNTERS.size:
            raise HandshakeError(
                f"the wrist sent event {code.name} with {len(value)} bytes, expected "
                f"{_COUNTERS.size}: check its firmware"
            )
        return cls(code, Counters(*_COUNTERS.unpack(value)))


def _pack_op(op: int, value: bytes) -> bytes:
    """{op u8, len u8, value}; ValueError when the value has more than 255 bytes."""
    return bytes([op, len(value)]) + value


def _unpack_op(payload: bytes, codes: type[Code]) -> tuple[Code, bytes]:
    """The inverse; HandshakeError, because the CRC was right and the sender is not."""
    known = [code for code in codes if payload[:1] == bytes([code])]
    if not known or [*payload[1:2]] != [len(payload) - 2]:
        raise HandshakeError(
            f"expected a {codes.__name__}, a length and that many bytes, got "
            f"{payload.hex(' ') or 'nothing'}: update the older of wrist and host"
        )
    return known[0], payload[2:]


def required_baud(n_ch: int, rate_hz: float, samples_per_frame: int) -> int:
    """Bits per second that a stream takes on a serial line, 10 bits a byte.

    Counts the STREAM_INFO and EVENT STATUS of each second.
    """
    data_bytes = wire_bytes(2 * n_ch * samples_per_frame) * rate_hz / samples_per_frame
    other_bytes = wire_bytes(_STREAM_INFO.size) + wire_bytes(2 + _COUNTERS.size)
    return math.ceil(BITS_PER_WIRE_BYTE * (data_bytes + other_bytes))


def check_baud(info: StreamInfo, baud: int) -> None:
    """HandshakeError when the declared stream does not fit a line of `baud` bits per second."""
    needed = required_baud(info.n_ch, info.rate_hz, info.samples_per_frame)
    if needed <= baud:
        return
    fits = next((standard for standard in STANDARD_BAUDS if standard >= needed), None)
    advice = f"use ?baud={fits} here and in the firmware" if fits else "send fewer channels"
    raise HandshakeError(
        f"{info.n_ch} channels at {info.rate_hz:g} Hz need {needed} baud, the port was opened with "
        f"{baud}: {advice}"
    )

"""What a wrist declares about its stream: the 96 bytes of STREAM_INFO (PROTOCOL.md)."""

import math
import struct
from dataclasses import dataclass
from typing import Final

from embridge.firmware_bridge.codec import Encoding
from embridge.firmware_bridge.errors import HandshakeError
from embridge.firmware_bridge.frames import MAX_PAYLOAD_BYTES, MAX_SAMPLES

PROTOCOL_VERSION: Final = 2
NO_MODEL: Final = bytes(32)

_STREAM_INFO: Final = struct.Struct("<4BfdI3Bx8s16s16s32s")
STREAM_INFO_BYTES: Final = _STREAM_INFO.size


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a wrist declares about its stream; value in `unit` = count * scale.

    ValueError when a field is out of range or a text does not fit.
    """

    n_ch: int  # 1..255
    rate_hz: float  # carried as float32
    samples_per_frame: int  # 1..255, the most in a frame
    unit: str  # "uV", "V", "a.u."; at most 8 bytes of UTF-8
    scale: float  # `unit` per count
    boot_id: int  # random per boot; a change means that sample_index began again
    bits: int = 16  # resolution of the counts, 1..16
    envelope: bool = False  # True: rectified and smoothed before it is sent
    firmware: str = ""  # version, at most 16 bytes of UTF-8
    device: str = ""  # name, at most 16 bytes of UTF-8
    model_sha256: bytes = NO_MODEL  # of the model package it holds; all zero: none
    encodings: tuple[Encoding, ...] = tuple(Encoding)  # that START may ask for; INT16 always
    encoding: Encoding = Encoding.INT16  # in use

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
        if Encoding.INT16 not in self.encodings or self.encoding not in self.encodings:
            raise ValueError(
                f"encoding {self.encoding.name} of {[e.name for e in self.encodings]}, expected "
                "one of them, and INT16 among them"
            )
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
            sum(1 << encoding for encoding in self.encodings),
            self.encoding,
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
        (_, n_ch, bits, per_frame, rate_hz, scale, boot_id, envelope, mask, encoding, *texts,
         model) = _STREAM_INFO.unpack(payload)  # fmt: skip
        offered = tuple(known for known in Encoding if mask >> known & 1)
        try:
            unit, firmware, device = (text.rstrip(b"\0").decode() for text in texts)
            return cls(
                n_ch, rate_hz, per_frame, unit, scale, boot_id, bits, bool(envelope), firmware,
                device, model, offered, Encoding(encoding),
            )  # fmt: skip
        except ValueError as error:
            raise HandshakeError(
                f"the wrist declared a stream that cannot be: {error}; check its firmware"
            ) from error

    def differences(self, other: "StreamInfo") -> list[str]:
        """Fields in which `other` describes another signal: "n_ch 16, then 8", ..."""
        names = ("n_ch", "rate_hz", "unit", "scale", "bits", "envelope")
        return [
            f"{name} {getattr(self, name)}, then {getattr(other, name)}"
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]

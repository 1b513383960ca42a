"""What the wrist and the host say to each other, besides samples. PROTOCOL.md is the specification.

Control     a request of the host; START carries a StartRequest
Event       a report of the wrist: its Status, a Pong, the LinkParameters of a radio link
"""

import struct
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Final

from embridge.firmware_bridge.codec import Encoding
from embridge.firmware_bridge.errors import HandshakeError

BATTERY_UNKNOWN: Final = 255

_STATUS: Final = struct.Struct("<Q5I2B2x")
_PONG: Final = struct.Struct("<QI")
_LINK: Final = struct.Struct("<IHHB3x")


@unique
class ControlOp(IntEnum):
    """Requests of the host."""

    HELLO = 1  # please send STREAM_INFO
    START = 2  # please stream; repeated until the stream begins, so it must be idempotent
    STOP = 3  # please pause
    PING = 4  # please send back this nonce, u32
    STATUS = 5  # please send STATUS


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
        """Read a CONTROL payload; ValueError on an unknown op or a wrong length."""
        op, value = _unpack_op(payload)
        return cls(ControlOp(op), value)


@dataclass(frozen=True, slots=True)
class StartRequest:
    """Value of START: how to send. samples_per_frame 0: as it is."""

    encoding: Encoding
    samples_per_frame: int = 0

    def pack(self) -> bytes:
        """Two bytes."""
        return bytes([self.encoding, self.samples_per_frame])

    @classmethod
    def unpack(cls, value: bytes) -> "StartRequest | None":
        """Read the value of START; None when it is empty or asks for an unknown encoding.

        ValueError on another size.
        """
        if len(value) not in (0, 2):
            raise ValueError(f"start request of {len(value)} bytes, expected 0 or 2")
        if not value or value[0] not in tuple(Encoding):
            return None
        return cls(Encoding(value[0]), value[1])


@unique
class EventCode(IntEnum):
    """Reports of the wrist."""

    END_OF_STREAM = 1  # a player of a recording has played it all
    STATUS = 2  # once a second
    PONG = 3  # answers PING
    LINK = 4  # a radio link's parameters


@unique
class ResetCause(IntEnum):
    """Why the wrist booted."""

    UNKNOWN = 0
    POWER_ON = 1
    WATCHDOG = 2
    SOFTWARE = 3


@dataclass(frozen=True, slots=True)
class Status:
    """What the wrist says about itself; counts since it first started to stream."""

    frames_sent: int  # handed to the line
    frames_dropped: int  # due, but never handed to the line
    time_us: int = 0  # device clock since boot
    overruns: int = 0  # times the transmit buffer ran full
    samples_missed: int = 0  # not taken in time; counted in sample_index
    frames_refused: int = 0  # damaged or unknown, from the host
    reset_cause: ResetCause = ResetCause.UNKNOWN
    battery_percent: int = BATTERY_UNKNOWN

    def pack(self) -> bytes:
        """32 bytes; counts are carried modulo 2**32."""
        counts = (
            self.frames_sent, self.frames_dropped, self.overruns, self.samples_missed,
            self.frames_refused,
        )  # fmt: skip
        wrapped = (count % 2**32 for count in counts)
        return _STATUS.pack(self.time_us, *wrapped, self.reset_cause, self.battery_percent)

    @classmethod
    def unpack(cls, value: bytes) -> "Status":
        """The inverse; ValueError on nonsense."""
        if len(value) != _STATUS.size:
            raise ValueError(f"status of {len(value)} bytes, expected {_STATUS.size}")
        time_us, sent, dropped, overruns, missed, refused, cause, battery = _STATUS.unpack(value)
        return cls(sent, dropped, time_us, overruns, missed, refused, ResetCause(cause), battery)


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to PING."""

    time_us: int  # device clock
    nonce: int

    def pack(self) -> bytes:
        """12 bytes."""
        return _PONG.pack(self.time_us, self.nonce)

    @classmethod
    def unpack(cls, value: bytes) -> "Pong":
        """The inverse; ValueError on another size."""
        if len(value) != _PONG.size:
            raise ValueError(f"pong of {len(value)} bytes, expected {_PONG.size}")
        return cls(*_PONG.unpack(value))


@dataclass(frozen=True, slots=True)
class LinkParameters:
    """Of a BLE connection, as the wrist sees it."""

    interval_us: int  # between connection events
    mtu: int  # ATT
    octets: int  # most data in one link-layer PDU, wrist -> host
    phy: int  # 1: 1M, 2: 2M, 3: coded

    def pack(self) -> bytes:
        """12 bytes."""
        return _LINK.pack(self.interval_us, self.mtu, self.octets, self.phy)

    @classmethod
    def unpack(cls, value: bytes) -> "LinkParameters":
        """The inverse; ValueError on another size."""
        if len(value) != _LINK.size:
            raise ValueError(f"link parameters of {len(value)} bytes, expected {_LINK.size}")
        return cls(*_LINK.unpack(value))


Report = Status | Pong | LinkParameters
_REPORTS: Final[dict[int, type[Status] | type[Pong] | type[LinkParameters]]] = {
    EventCode.END_OF_STREAM: Status,
    EventCode.STATUS: Status,
    EventCode.PONG: Pong,
    EventCode.LINK: LinkParameters,
}


@dataclass(frozen=True, slots=True)
class Event:
    """Payload of an EVENT frame: code u8, len u8, then the report."""

    code: EventCode
    report: Report

    def pack(self) -> bytes:
        """The payload."""
        return _pack_op(self.code, self.report.pack())

    @classmethod
    def unpack(cls, payload: bytes) -> "Event | None":
        """Read an EVENT payload; None for a code of the future, HandshakeError on nonsense."""
        try:
            number, value = _unpack_op(payload)
            if number not in _REPORTS:
                return None
            code = EventCode(number)
            return cls(code, _REPORTS[code].unpack(value))
        except ValueError as error:
            raise HandshakeError(
                f"the wrist sent an intact event that cannot be read ({error}): check its firmware"
            ) from error


def _pack_op(op: int, value: bytes) -> bytes:
    """{op u8, len u8, value}; ValueError when the value has more than 255 bytes."""
    return bytes([op, len(value)]) + value


def _unpack_op(payload: bytes) -> tuple[int, bytes]:
    """The inverse; ValueError on a wrong length."""
    if len(payload) < 2 or payload[1] != len(payload) - 2:
        raise ValueError(
            f"expected a code, a length and that many bytes, got {payload.hex(' ') or 'nothing'}"
        )
    return payload[0], payload[2:]

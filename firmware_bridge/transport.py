"""What a link needs of the line below it, and which encoding a line can carry.

Transport           serial ports and BLE connections alike: frames in, frames out
Capacity            what a line carries
choose_encoding     exact if it fits, else compressed, else one line why not
"""

from dataclasses import dataclass
from typing import Final, Protocol

from embridge.firmware_bridge.codec import Encoding, guaranteed_bytes
from embridge.firmware_bridge.errors import HandshakeError
from embridge.firmware_bridge.frames import MAX_FRAME_BYTES, OVERHEAD_BYTES, Frame, wire_bytes
from embridge.firmware_bridge.protocol import StartRequest
from embridge.firmware_bridge.stream_info import STREAM_INFO_BYTES, StreamInfo

RICE_SHARE: Final = 0.62  # of int16, assumed when a link is chosen; `bench codec` measures it
STATUS_BYTES: Final = 34
_PREFERENCE: Final = (Encoding.INT16, Encoding.RICE, Encoding.INT8)


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a line carries."""

    bytes_per_s: float | None = None  # None: unknown, or more than anyone asks for
    frame_bytes: int = MAX_FRAME_BYTES  # most in one packed frame
    text: str = "a line of unknown speed"
    advice: str = "send fewer channels"  # what to do when nothing fits


class Transport(Protocol):
    """The line to one wrist. Counts go on when it is opened again."""

    url: str
    frames_corrupt: int
    bytes_received: int

    def open(self) -> None:
        """Open the line; PortNotFound when there is none."""

    def read(self) -> list[Frame]:
        """Intact frames of about the next 5 ms, maybe none; OSError when the line is gone."""

    def write(self, frame: Frame) -> None:
        """Send a frame; OSError when the line is gone."""

    def close(self) -> None:
        """Close the line; does nothing when it is closed."""

    def release(self) -> None:
        """Free what outlives `close`, as an emulated board does; the transport is used up."""

    def capacity(self) -> Capacity:
        """What the open line carries."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How the wrist shall send."""

    request: StartRequest
    bytes_per_s: float  # needed; for RICE as expected, since it depends on the samples
    text: str


def choose_encoding(info: StreamInfo, capacity: Capacity, wanted: Encoding | None = None) -> Choice:
    """The first of INT16, RICE, INT8 that the wrist offers and the line carries.

    wanted: this one only. HandshakeError when none fits.
    """
    order = [e for e in _PREFERENCE if e in info.encodings and wanted in (None, e)]
    if not order:
        offered = ", ".join(e.name for e in info.encodings)
        raise HandshakeError(
            f"the wrist cannot send as {wanted and wanted.name}, it offers {offered}"
        )
    for encoding in order:
        samples = _samples_per_frame(info, encoding, capacity.frame_bytes)
        needed = bytes_per_s(info, encoding, samples) if samples else float("inf")
        if capacity.bytes_per_s is None or needed <= capacity.bytes_per_s:
            break
    else:
        raise HandshakeError(
            f"{info.n_ch} channels at {info.rate_hz:g} Hz need {needed / 1000:.1f} kB/s as "
            f"{order[-1].name}, and {capacity.text} carries {_rate(capacity)}: {capacity.advice}"
        )
    if not samples:
        raise HandshakeError(
            f"one sample of {info.n_ch} channels does not fit a frame of {capacity.frame_bytes} "
            f"bytes, the most that {capacity.text} carries: {capacity.advice}"
        )
    lossy = ", lossy" if encoding is Encoding.INT8 else ""
    text = (
        f"{encoding.name.lower()}{lossy}, {samples} samples a frame: {needed / 1000:.1f} kB/s of "
        f"{_rate(capacity)} ({capacity.text})"
    )
    return Choice(StartRequest(encoding, samples), needed, text)


def bytes_per_s(info: StreamInfo, encoding: Encoding, samples_per_frame: int) -> float:
    """Bytes per second on the line, the STREAM_INFO and STATUS of each second included."""
    data = wire_bytes(_payload_bytes(info, encoding, samples_per_frame))
    other = wire_bytes(STREAM_INFO_BYTES) + wire_bytes(STATUS_BYTES)
    return data * info.rate_hz / samples_per_frame + other


def _payload_bytes(info: StreamInfo, encoding: Encoding, samples: int) -> int:
    if encoding is Encoding.RICE:
        return round(RICE_SHARE * guaranteed_bytes(Encoding.INT16, samples, info.n_ch))
    return guaranteed_bytes(encoding, samples, info.n_ch)


def _samples_per_frame(info: StreamInfo, encoding: Encoding, frame_bytes: int) -> int:
    """Most samples that fit a frame, and no more than the wrist declares; 0 when none fits."""
    room = frame_bytes - OVERHEAD_BYTES
    fits = (
        samples
        for samples in range(info.samples_per_frame, 0, -1)
        if _payload_bytes(info, encoding, samples) <= room
    )
    return next(fits, 0)


def _rate(capacity: Capacity) -> str:
    known = capacity.bytes_per_s
    return "an unknown rate" if known is None else f"{known / 1000:.1f} kB/s"

"""The wire between the host and the wrist: frames, links, and wrists without hardware.

    recording -> VirtualWrist -> pty ----------\\
    wrist firmware ------------> serial, BLE --> WristLink.blocks() -> Block, Gap, Reconnected ...

PROTOCOL.md      the specification, with byte vectors in vectors/
codec, rice      samples <-> payload in three encodings
frames           bytes <-> frames: header, CRC-32, COBS; resynchronises after damage
stream_info, protocol   what is said besides samples
reassembly       frames in arrival order -> blocks on one sample index, every loss located
clock            how fast the wrist's clocks run against the host's
transport        what a link needs of a line, and which encoding a line can carry
link, talk, items       WristLink: handshake, reading, reconnecting; what it yields
ports, serial_transport     URL -> open serial port; frames over it
wrist_core, transmit_queue  the wrist as a state machine in Python
pty_port, virtual_wrist     VirtualWrist: it plays counts in real time behind a pseudo-terminal
firmware/        the same wrist in C99, for boards
errors           the root of the project's exceptions

Pure, without I/O or clock: codec, frames, protocol, reassembly, clock, wrist_core. Nothing here
imports torch.
"""

from embridge.firmware_bridge.codec import Encoding, decode_samples, encode_samples
from embridge.firmware_bridge.errors import (
    EmbridgeError,
    HandshakeError,
    LinkError,
    LinkLost,
    PortNotFound,
)
from embridge.firmware_bridge.frames import (
    FLAG_OVERRUN,
    FLAG_STREAMING,
    DataFrame,
    Decoder,
    Frame,
    FrameType,
    data_frame,
    decode,
    decode_data,
    encode,
    pack,
    unpack,
    wire_bytes,
)
from embridge.firmware_bridge.items import EndOfStream, Item, Reconnected, Restarted
from embridge.firmware_bridge.link import WristLink
from embridge.firmware_bridge.ports import DEFAULT_BAUD, parse_url
from embridge.firmware_bridge.protocol import (
    Control,
    ControlOp,
    Event,
    EventCode,
    LinkParameters,
    Pong,
    ResetCause,
    StartRequest,
    Status,
)
from embridge.firmware_bridge.reassembly import Block, Gap, LinkStats, Reassembler
from embridge.firmware_bridge.serial_transport import SerialTransport
from embridge.firmware_bridge.stream_info import NO_MODEL, PROTOCOL_VERSION, StreamInfo
from embridge.firmware_bridge.transmit_queue import TransmitQueue
from embridge.firmware_bridge.transport import Capacity, Choice, Transport, choose_encoding
from embridge.firmware_bridge.virtual_wrist import (
    Outage,
    VirtualWrist,
    default_samples_per_frame,
    to_counts,
)
from embridge.firmware_bridge.wrist_core import WristCore

__all__ = [
    "DEFAULT_BAUD",
    "FLAG_OVERRUN",
    "FLAG_STREAMING",
    "NO_MODEL",
    "PROTOCOL_VERSION",
    "Block",
    "Capacity",
    "Choice",
    "Control",
    "ControlOp",
    "DataFrame",
    "Decoder",
    "EmbridgeError",
    "Encoding",
    "EndOfStream",
    "Event",
    "EventCode",
    "Frame",
    "FrameType",
    "Gap",
    "HandshakeError",
    "Item",
    "LinkError",
    "LinkLost",
    "LinkParameters",
    "LinkStats",
    "Outage",
    "Pong",
    "PortNotFound",
    "Reassembler",
    "Reconnected",
    "ResetCause",
    "Restarted",
    "SerialTransport",
    "StartRequest",
    "Status",
    "StreamInfo",
    "TransmitQueue",
    "Transport",
    "VirtualWrist",
    "WristCore",
    "WristLink",
    "choose_encoding",
    "data_frame",
    "decode",
    "decode_data",
    "decode_samples",
    "default_samples_per_frame",
    "encode",
    "encode_samples",
    "pack",
    "parse_url",
    "to_counts",
    "unpack",
    "wire_bytes",
]

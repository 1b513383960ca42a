"""The wire between the host and the wrist: frames, handshake, losses, and a wrist without hardware.

    recording -> VirtualWrist -> pty ----------\
    wrist firmware ------------> serial port ---> SerialLink.blocks() -> Block, Gap, Reconnected ...

frames         bytes <-> frames: header, CRC-32, COBS; resynchronises after damage
protocol       what is said besides samples: StreamInfo, Control, Event; the baud budget
reassembly     frames in arrival order -> blocks on one sample index, every loss located
ports          URL -> open serial port, or one line why not
serial_link    SerialLink: handshake, reading, reconnecting
pty_port       a serial port made of a pseudo-terminal
virtual_wrist  VirtualWrist: plays counts in real time with the bytes of the firmware
errors         the root of the project's exceptions

Pure, without I/O or clock: frames, protocol, reassembly. Nothing here imports torch.
"""

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
    decode,
    decode_data,
    encode,
    encode_data,
    wire_bytes,
)
from embridge.firmware_bridge.ports import DEFAULT_BAUD
from embridge.firmware_bridge.protocol import (
    NO_MODEL,
    PROTOCOL_VERSION,
    Control,
    ControlOp,
    Counters,
    Event,
    EventCode,
    StreamInfo,
    check_baud,
    required_baud,
)
from embridge.firmware_bridge.reassembly import Block, Gap, LinkStats, Reassembler
from embridge.firmware_bridge.serial_link import (
    EndOfStream,
    Item,
    Reconnected,
    Restarted,
    SerialLink,
)
from embridge.firmware_bridge.virtual_wrist import (
    Outage,
    VirtualWrist,
    default_samples_per_frame,
    to_counts,
)

__all__ = [
    "DEFAULT_BAUD",
    "FLAG_OVERRUN",
    "FLAG_STREAMING",
    "NO_MODEL",
    "PROTOCOL_VERSION",
    "Block",
    "Control",
    "ControlOp",
    "Counters",
    "DataFrame",
    "Decoder",
    "EmbridgeError",
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
    "LinkStats",
    "Outage",
    "PortNotFound",
    "Reassembler",
    "Reconnected",
    "Restarted",
    "SerialLink",
    "StreamInfo",
    "VirtualWrist",
    "check_baud",
    "decode",
    "decode_data",
    "default_samples_per_frame",
    "encode",
    "encode_data",
    "required_baud",
    "to_counts",
    "wire_bytes",
]

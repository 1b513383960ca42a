"""Which serial ports and which BLE peripherals in reach speak the protocol."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from serial.tools import list_ports

from embridge.firmware_bridge import gatt
from embridge.firmware_bridge.errors import LinkError
from embridge.firmware_bridge.ports import DEFAULT_BAUD, parse_url
from embridge.firmware_bridge.serial_transport import SerialTransport
from embridge.firmware_bridge.stream_info import StreamInfo
from embridge.firmware_bridge.talk import Talk
from embridge.firmware_bridge.transport import Transport

if TYPE_CHECKING:
    from embridge.firmware_bridge.ble_transport import Backends

ANSWER_S = 1.0  # how long a wrist on a serial port may take to answer

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Found:
    """One port or peripheral. text: what it is, or why it is no wrist."""

    url: str
    is_wrist: bool
    text: str


def scan(
    urls: Sequence[str] = (),
    *,
    seconds: float = 5.0,
    baud: int = DEFAULT_BAUD,
    backends: "Backends | None" = None,
    progress: Progress = lambda *_: None,
) -> list[Found]:
    """Ask every serial port of this machine and the given URLs, then listen for BLE `seconds`."""
    ports = [f"serial://{port.device}?baud={baud}" for port in sorted(list_ports.comports())]
    targets, found = [*ports, *urls], list[Found]()
    for done, url in enumerate(targets):
        progress(done, len(targets) + 1, "scan")
        found.append(ask_port(url))
    progress(len(targets), len(targets) + 1, "scan")
    return found + scan_ble(seconds, backends)


def ask_port(url: str, timeout_s: float = ANSWER_S) -> Found:
    """Say HELLO on a serial port, or any URL of pyserial."""
    try:
        return ask(SerialTransport(url, parse_url(url)), timeout_s)
    except LinkError as error:
        return Found(url, False, str(error))


def ask(
    transport: Transport, timeout_s: float, clock: Callable[[], float] = time.monotonic
) -> Found:
    """Open a line, say HELLO, close it; what goes wrong is part of the answer."""
    try:
        transport.open()
        hello = Talk(transport, clock, threading.Event()).hello(clock() + timeout_s)
        return Found(transport.url, True, describe(StreamInfo.unpack(hello[0].payload)))
    except (LinkError, OSError) as error:
        return Found(transport.url, False, str(error))
    finally:
        transport.close()
        transport.release()


def scan_ble(seconds: float, backends: "Backends | None" = None) -> list[Found]:
    """Peripherals that advertise the service; one entry that says why when there is no radio."""
    try:
        from bleak import BleakScanner
        from bleak.exc import BleakError
    except ImportError:
        return [Found("ble://", False, "bleak is not installed: pip install 'embridge[ble]'")]
    choice: dict[str, Any] = {} if backends is None else {"backend": backends.scanner}
    try:
        heard = asyncio.run(BleakScanner.discover(seconds, return_adv=True, **choice))
    except (BleakError, OSError) as error:
        return [Found("ble://", False, f"Bluetooth cannot be used here: {error}")]
    return [
        Found(f"ble://{device.address}", True, f"{said.local_name or '?'}, {said.rssi} dBm")
        for device, said in heard.values()
        if gatt.SERVICE in said.service_uuids
    ]


def describe(info: StreamInfo) -> str:
    """One line on a wrist."""
    encodings = ", ".join(encoding.name.lower() for encoding in info.encodings)
    return (
        f"{info.device or '?'} (firmware {info.firmware or '?'}): {info.n_ch} channels at "
        f"{info.rate_hz:g} Hz in {info.unit}; {encodings}"
    )


def as_json(found: Sequence[Found]) -> dict[str, Any]:
    """Plain values."""
    return {
        "schema": 1,
        "wrists": [asdict(one) for one in found if one.is_wrist],
        "others": [asdict(one) for one in found if not one.is_wrist],
    }


def as_text(found: Sequence[Found]) -> str:
    """Wrists first."""
    ordered = sorted(found, key=lambda one: not one.is_wrist)
    lines = [f"{'wrist' if one.is_wrist else '-':6}{one.url}  {one.text}" for one in ordered]
    return "\n".join(lines) or "no serial port and no peripheral found"

"""From a URL to an open pyserial port, or one clear line why not."""

import errno
import os
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import serial
from serial.tools import list_ports

from embridge.firmware_bridge.errors import PortNotFound

DEFAULT_BAUD: Final = 921_600
PYSERIAL_SCHEMES: Final = ("socket", "rfc2217", "loop", "spy", "hwgrep", "alt", "cp2110")
READ_TIMEOUT_S: Final = 0.002  # the longest that a complete frame waits in the kernel
WRITE_TIMEOUT_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Address:
    """What pyserial opens, and the baud rate; None where the line has none."""

    port: str
    baud: int | None


def parse_url(url: str) -> Address:
    """`serial://DEVICE?baud=N`, or a URL of pyserial; PortNotFound when it is neither."""
    parts = urlsplit(url)
    port = unquote(parts.netloc + parts.path)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    baud = options.pop("baud", None)
    if baud is None or (baud.isdecimal() and int(baud) > 0):
        if parts.scheme == "serial" and port and not options:
            return Address(port, int(baud or DEFAULT_BAUD))
        if parts.scheme in PYSERIAL_SCHEMES and (port or parts.scheme == "loop"):
            query = f"?{urlencode(options, safe='/')}" if options else ""
            own = f"{parts.scheme}://{parts.netloc}{parts.path}{query}"
            return Address(own, int(baud) if baud else None)
    raise PortNotFound(
        f"expected serial:///dev/ttyACM0?baud={DEFAULT_BAUD} or a URL of pyserial as "
        f"socket://host:port, got {url!r}"
    )


def open_port(address: Address, timeout_s: float = READ_TIMEOUT_S) -> Any:
    """The open pyserial port, locked against other programs; PortNotFound when that fails.

    timeout_s: the longest that a read waits for as much as it wants

    Flow control stays off and modem lines are not read: pseudo-terminals answer ENOTTY.
    """
    try:
        return serial.serial_for_url(
            address.port,
            baudrate=address.baud or DEFAULT_BAUD,
            timeout=timeout_s,
            **_limits(address.port),
        )
    except (OSError, ValueError) as error:  # ValueError: a baud rate that the driver refuses
        raise PortNotFound(_why_not(address, error)) from error


def _limits(port: str) -> dict[str, Any]:
    """Options that not every kind of port knows."""
    if port.startswith("rfc2217://"):
        return {}
    limits: dict[str, Any] = {"write_timeout": WRITE_TIMEOUT_S}
    return limits if is_url(port) else limits | {"exclusive": True}


def is_url(port: str) -> bool:
    """True for one of pyserial's URLs, False for a device."""
    return "://" in port


def _why_not(address: Address, error: OSError | ValueError) -> str:
    code = error.errno if isinstance(error, OSError) else None
    if code == errno.ENOENT:
        found = ", ".join(sorted(port.device for port in list_ports.comports())) or "none"
        return f"no port {address.port}; ports found: {found}; plug the wrist in or name another"
    if code == errno.EACCES:
        return (
            f"no permission to open {address.port}; join the group that owns it (often `dialout`) "
            "and log in again"
        )
    if code == errno.EWOULDBLOCK:
        return f"{address.port} is used by another program; close that first"
    reason = os.strerror(code) if code else str(error)
    return f"cannot open {address.port}: {reason}; check the device and the URL"

"""Frames over BLE, by bleak: BlueZ, macOS, Windows, or any other backend that bleak is given."""

import contextlib
import queue
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from embridge.firmware_bridge import gatt
from embridge.firmware_bridge.ble_thread import LoopThread
from embridge.firmware_bridge.capacity import ATT_HEADER_BYTES, ble_capacity
from embridge.firmware_bridge.errors import HandshakeError, PortNotFound
from embridge.firmware_bridge.frames import Frame, FrameType, pack, unpack
from embridge.firmware_bridge.protocol import Event, LinkParameters
from embridge.firmware_bridge.transport import Capacity

if TYPE_CHECKING:
    from bleak import BleakClient
    from bleak.backends.client import BaseBleakClient
    from bleak.backends.device import BLEDevice
    from bleak.backends.scanner import AdvertisementData, BaseBleakScanner

READ_TIMEOUT_S: Final = 0.005
SCAN_S: Final = 5.0
CONNECT_S: Final = 10.0
WRITE_S: Final = 3.0
LINK_EVENT_S: Final = 0.3  # after STREAM_INFO, until the wrist has told its link parameters
UNTOLD_BYTES: Final = 20  # what BlueZ before 5.62 says for any MTU

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Backends:
    """What `backend=` of BleakScanner and of BleakClient takes."""

    scanner: "type[BaseBleakScanner]"
    client: "type[BaseBleakClient]"


@dataclass(slots=True)
class _Connection:
    """One connection, from `open` to `close`."""

    client: "BleakClient"
    frames: queue.SimpleQueue[Frame | None]  # None: the connection is gone
    link: LinkParameters | None = None
    link_told: threading.Event = field(default_factory=threading.Event)
    gone: bool = False

    def hear(self, event: Event | None) -> None:
        """Take note of what an event says about the connection."""
        if event is not None and isinstance(event.report, LinkParameters):
            self.link = event.report
            self.link_told.set()


class BleTransport:
    """A wrist heard over the air.

    url: `ble://NAME`, `ble://ADDRESS`, or `ble://` for the first wrist that advertises the service
    backends: None for those of the operating system
    thread: whose loop to use; None for one of its own
    scan_s: how long to listen for the wrist
    """

    def __init__(
        self,
        url: str,
        backends: Backends | None = None,
        thread: LoopThread | None = None,
        *,
        scan_s: float = SCAN_S,
    ) -> None:
        self.url = url
        self.frames_corrupt = 0
        self.bytes_received = 0
        self._wanted = _parse_url(url)
        self._backends = backends
        self._scan_s = scan_s
        self._thread = thread
        self._owns_thread = thread is None
        self._connection: _Connection | None = None

    def open(self) -> None:
        """Find the wrist, connect and subscribe.

        PortNotFound when bleak or Bluetooth is missing, or no such wrist is heard; OSError when the
        connection fails.
        """
        errors = _bleak_errors()
        if self._thread is None:
            self._thread = LoopThread("ble")
        try:
            device = self._find(errors)
            self._call(self._connect(device), CONNECT_S)
        except errors as error:
            self.close()
            raise ConnectionError(f"cannot connect: {error}") from error
        except BaseException:
            self.close()
            raise

    def read(self) -> list[Frame]:
        """Intact frames of about the next 5 ms, maybe none; OSError when the connection is gone."""
        connection = self._open_connection()
        frames: list[Frame] = []
        try:
            frame = None if connection.gone else connection.frames.get(timeout=READ_TIMEOUT_S)
            while frame is not None:
                frames.append(frame)
                frame = connection.frames.get_nowait()
        except queue.Empty:
            return frames
        connection.gone = True
        if not frames:
            raise ConnectionError("the wrist is no longer connected")
        return frames

    def write(self, frame: Frame) -> None:
        """Send a frame and wait until it has arrived; OSError when the connection is gone."""
        connection = self._open_connection()
        write = connection.client.write_gatt_char(gatt.CONTROL, pack(frame), response=True)
        try:
            self._call(write, WRITE_S)
        except _bleak_errors() as error:
            raise ConnectionError(str(error)) from error

    def close(self) -> None:
        """Disconnect; does nothing when that is done."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # It may be gone already, and the radio with it.
            with contextlib.suppress(*_bleak_errors()):
                self._call(connection.client.disconnect(), CONNECT_S)
        if self._owns_thread and self._thread is not None:
            self._thread.close()
            self._thread = None

    def release(self) -> None:
        """Nothing is kept beyond `close`."""

    def capacity(self) -> Capacity:
        """By the link parameters that the wrist tells after HELLO; unknown when it does not."""
        connection = self._open_connection()
        connection.link_told.wait(LINK_EVENT_S)
        if connection.link is not None:
            return ble_capacity(connection.link)
        # Not mtu_size, which BlueZ does not know.
        control = connection.client.services.get_characteristic(gatt.CONTROL)
        known = UNTOLD_BYTES if control is None else control.max_write_without_response_size
        return Capacity(
            frame_bytes=gatt.MIN_MTU - ATT_HEADER_BYTES if known == UNTOLD_BYTES else known,
            text="BLE with parameters that the wrist does not tell",
        )

    def _find(self, errors: tuple[type[Exception], ...]) -> "BLEDevice":
        from bleak import BleakScanner

        heard: set[str] = set()

        def is_wanted(device: "BLEDevice", advertised: "AdvertisementData") -> bool:
            heard.add(f"{device.name or 'unnamed'} {device.address}")
            if self._wanted:
                return self._wanted.casefold() in (
                    (advertised.local_name or "").casefold(),
                    device.address.casefold(),
                )
            return gatt.SERVICE in advertised.service_uuids

        choice: dict[str, Any] = {}
        if self._backends is not None:
            choice["backend"] = self._backends.scanner
        scan = BleakScanner.find_device_by_filter(is_wanted, timeout=self._scan_s, **choice)
        try:
            device = self._call(scan, self._scan_s + SCAN_S)
        except errors as error:
            raise PortNotFound(
                f"{self.url}: Bluetooth cannot be used here ({error}); switch the adapter on and "
                "start its service (Linux: bluetoothd)"
            ) from error
        if device is None:
            raise PortNotFound(
                f"{self.url}: no such wrist within {self._scan_s:g} s; heard: "
                f"{', '.join(sorted(heard)) or 'nothing'}; switch it on, and end other connections "
                "to it"
            )
        return device

    async def _connect(self, device: "BLEDevice") -> None:
        from bleak import BleakClient

        frames: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        client = BleakClient(
            device,
            disconnected_callback=lambda _: frames.put(None),
            timeout=CONNECT_S,
            backend=None if self._backends is None else self._backends.client,
        )
        connection = self._connection = _Connection(client, frames)
        await client.connect()
        for characteristic in (gatt.EVENTS, gatt.DATA):
            await client.start_notify(
                characteristic, lambda _, value: self._on_notification(connection, bytes(value))
            )

    def _on_notification(self, connection: _Connection, packed: bytes) -> None:
        """In the loop's thread."""
        self.bytes_received += len(packed)
        try:
            frame = unpack(packed)
        except ValueError:
            self.frames_corrupt += 1
            return
        if frame.type is FrameType.EVENT:
            with contextlib.suppress(HandshakeError):  # whoever reads the frame raises it
                connection.hear(Event.unpack(frame.payload))
        connection.frames.put(frame)

    def _open_connection(self) -> _Connection:
        if self._connection is None:
            raise RuntimeError("the transport is not open: call open()")
        return self._connection

    def _call(self, work: Coroutine[Any, Any, Result], timeout_s: float) -> Result:
        assert self._thread is not None
        return self._thread.call(work, timeout_s)


def _parse_url(url: str) -> str:
    """Name or address, empty for any; PortNotFound when it is no such URL."""
    parts = urlsplit(url)
    if parts.scheme != "ble" or parts.path.strip("/") or parts.query:
        raise PortNotFound(f"expected ble://NAME, ble://ADDRESS or ble://, got {url!r}")
    return unquote(parts.netloc)


def _bleak_errors() -> tuple[type[Exception], ...]:
    """What bleak raises; PortNotFound when it is not installed."""
    try:
        from bleak.exc import BleakError
    except ImportError as error:
        raise PortNotFound(
            "ble:// needs bleak, which is not installed: pip install 'embridge[ble]'"
        ) from error
    return (BleakError, OSError)

"""The wrist as a BLE peripheral: the GATT services of PROTOCOL.md on a Bumble device.

The device may stand on the virtual radio or on a real controller. What is sent, dropped and counted
is `WristCore`'s business; here its queue meets the connection. A notification is handed over only
when the controller has room, so that frames wait, and are dropped, in the wrist's own buffer.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bumble import att, core, hci
from bumble.device import Connection, Device
from bumble.gatt import Service

from embridge.firmware_bridge import gatt
from embridge.firmware_bridge.ble_services import (
    advertisement,
    battery_service,
    device_information_service,
    notifying,
    readable,
    writable,
)
from embridge.firmware_bridge.capacity import ATT_HEADER_BYTES, PHY_1M, PHY_2M
from embridge.firmware_bridge.errors import HandshakeError
from embridge.firmware_bridge.frames import OVERHEAD_BYTES, FrameType, unpack
from embridge.firmware_bridge.protocol import LinkParameters
from embridge.firmware_bridge.transmit_queue import TransmitQueue
from embridge.firmware_bridge.wrist_core import WristCore

MTU_TOO_SMALL: Final = 0x80  # ATT application error
MAX_TX_TIME_US: Final = 17_040

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wishes:
    """Connection parameters that the wrist asks its host for.

    supervision_ms: of silence, until the connection counts as lost
    """

    phy: int = PHY_2M
    octets: int = 251
    mtu: int = gatt.MTU
    interval_ms: float = 15.0
    supervision_ms: float = 2_000.0

    def __post_init__(self) -> None:
        """ValueError when the Core specification, or the protocol, does not allow them."""
        for name, low, high in (
            ("phy", PHY_1M, PHY_2M),
            ("octets", 27, 251),
            ("mtu", gatt.MIN_MTU, gatt.MTU),
            ("interval_ms", 7.5, 4_000.0),
            ("supervision_ms", 100.0, 32_000.0),
        ):
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name} {getattr(self, name):g} is not in {low:g}..{high:g}")
        if self.interval_ms % 1.25:
            raise ValueError(f"interval_ms {self.interval_ms:g} is not a multiple of 1.25")
        if self.supervision_ms <= 2 * self.interval_ms:
            raise ValueError("supervision_ms must be more than twice interval_ms")


def check_channels(n_ch: int) -> None:
    """HandshakeError when one sample does not fit the smallest notification there may be."""
    most = (gatt.MIN_MTU - ATT_HEADER_BYTES - OVERHEAD_BYTES) // 2
    if n_ch > most:
        raise HandshakeError(
            f"a sample of {n_ch} channels does not fit a BLE notification, which holds {most}: use "
            "a serial line, or send fewer channels"
        )


class BlePeripheral:
    """Serves one wrist to one host at a time.

    device: a Bumble device that is not powered yet
    wrist, queue: what is played, and where it puts its frames
    clock: seconds, the same that `step` is called with

    ValueError when the device's name is too long, HandshakeError for too many channels.
    """

    def __init__(
        self,
        device: Device,
        wrist: WristCore,
        queue: TransmitQueue,
        wishes: Wishes,
        clock: Callable[[], float],
    ) -> None:
        if len(device.name.encode()) > gatt.MAX_NAME_BYTES:
            raise ValueError(f"name {device.name!r} does not fit {gatt.MAX_NAME_BYTES} bytes")
        check_channels(wrist.info.n_ch)
        self._device = device
        self._wrist = wrist
        self._queue = queue
        self._wishes = wishes
        self._clock = clock
        self._connection: Connection | None = None
        self._phy = PHY_1M
        self._asking: asyncio.Task[None] | None = None
        self._subscribed: set[int] = set()  # handles of characteristics
        self._data = notifying(gatt.DATA)
        self._events = notifying(gatt.EVENTS)

    async def start(self) -> None:
        """Power the device and advertise, now and after every connection."""
        self._device.gatt_server.max_mtu = self._wishes.mtu
        self._device.add_services(self._services())
        self._device.on(Device.EVENT_CONNECTION, self._on_connection)
        await self._device.power_on()
        assert self._device.host.le_acl_packet_queue is not None
        self._device.host.le_acl_packet_queue.on("flow", self._hand_over)
        await self._device.start_advertising(
            advertising_data=advertisement(self._device.name), auto_restart=True
        )

    def step(self, now_s: float) -> None:
        """Make the frames that are due and hand over what the controller takes."""
        self._wrist.step(now_s, connected=self._connection is not None)
        self._hand_over()

    def _services(self) -> list[Service]:
        for characteristic in (self._data, self._events):
            characteristic.on(characteristic.EVENT_SUBSCRIPTION, self._on_subscription)
        control = writable(gatt.CONTROL, self._on_control)
        info = readable(gatt.INFO, lambda _: self._wrist.info.pack())
        declared = self._wrist.info
        texts = {
            gatt.MANUFACTURER_NAME: "embridge",
            gatt.MODEL_NUMBER: declared.device or self._device.name,
            gatt.FIRMWARE_REVISION: declared.firmware,
        }
        return [
            Service(gatt.SERVICE, [self._data, control, info, self._events]),
            battery_service(lambda: self._wrist.status(self._clock()).battery_percent),
            device_information_service(texts),
        ]

    def _on_connection(self, connection: Connection) -> None:
        self._connection = connection
        self._phy = PHY_1M
        self._subscribed.clear()
        for change in (
            Connection.EVENT_CONNECTION_ATT_MTU_UPDATE,
            Connection.EVENT_CONNECTION_DATA_LENGTH_CHANGE,
            Connection.EVENT_CONNECTION_PARAMETERS_UPDATE,
        ):
            connection.on(change, self._on_change)
        connection.on(Connection.EVENT_CONNECTION_PHY_UPDATE, self._on_phy)
        connection.on(Connection.EVENT_DISCONNECTION, self._on_disconnection)
        self._on_change()
        self._asking = asyncio.create_task(self._ask(connection))

    def _on_disconnection(self, _reason: int) -> None:
        self._connection = None
        if self._asking is not None:
            self._asking.cancel()
        self._wrist.link = None
        self._wrist.hang_up()

    async def _ask(self, connection: Connection) -> None:
        """Ask for the parameters; the link event says what came of it."""
        wishes = self._wishes
        try:
            await connection.set_data_length(wishes.octets, MAX_TX_TIME_US)
            if wishes.phy == PHY_2M:
                await connection.set_phy([hci.Phy.LE_2M], [hci.Phy.LE_2M])
            await connection.update_parameters(
                wishes.interval_ms, wishes.interval_ms, 0, wishes.supervision_ms
            )
        except hci.HCI_Error as error:
            _log.warning("the host refused connection parameters: %s", error)

    def _on_phy(self, phy: core.ConnectionPHY) -> None:
        self._phy = int(phy.tx_phy)
        self._on_change()

    def _on_change(self) -> None:
        """Tell the host, and the wrist, what the connection is like now."""
        if self._connection is None:
            return
        link = LinkParameters(
            interval_us=round(1000 * self._connection.parameters.connection_interval),
            mtu=self._connection.att_mtu,
            octets=self._connection.data_length.max_tx_octets,
            phy=self._phy,
        )
        if link != self._wrist.link:
            self._wrist.frame_bytes = max(gatt.MIN_MTU, link.mtu) - ATT_HEADER_BYTES
            self._wrist.announce(link, self._clock())
            self._hand_over()

    def _on_subscription(self, bearer: att.Bearer, _notify: bool, _indicate: bool) -> None:
        self._subscribed = {
            characteristic.handle
            for characteristic in (self._data, self._events)
            if self._device.gatt_server.read_cccd(bearer, characteristic)[0] & 1
        }

    def _on_control(self, connection: Connection, value: bytes) -> None:
        if connection.att_mtu < gatt.MIN_MTU:
            raise att.ATT_Error(MTU_TOO_SMALL)
        try:
            frame = unpack(value)
        except ValueError:
            self._wrist.refuse(1)
            return
        self._wrist.receive(frame, self._clock())
        self._hand_over()

    def _hand_over(self) -> None:
        """Notify as many frames as the controller has room for."""
        room = self._device.host.le_acl_packet_queue
        assert room is not None
        while (
            self._connection is not None
            and room.pending < room.max_in_flight
            and (frame := self._queue.head()) is not None
        ):
            is_data = frame[0] == FrameType.DATA
            to = self._data if is_data else self._events
            if to.handle in self._subscribed:
                notification = att.ATT_Handle_Value_Notification(
                    attribute_handle=to.handle, attribute_value=bytes(frame)
                )
                self._device.gatt_server.send_gatt_pdu(self._connection, bytes(notification))
            elif is_data:
                return  # until the host subscribes; meanwhile the buffer overflows, and that counts
            self._queue.sent(len(frame))

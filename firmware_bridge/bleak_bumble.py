"""bleak on a Bumble device: unchanged bleak code talks to a virtual radio, or to an HCI controller.

    backends = bleak_backends(device)                 # a powered bumble.device.Device
    found = await BleakScanner.find_device_by_name("wrist", backend=backends.scanner)
    async with BleakClient(found, backend=backends.client) as client: ...

No pairing.
"""

import asyncio
import contextlib
from collections.abc import Awaitable
from typing import Any, ClassVar, Final, TypeVar

from bleak.args import SizedBuffer
from bleak.assigned_numbers import gatt_char_props_to_strs
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.client import BaseBleakClient, NotifyCallback
from bleak.backends.descriptor import BleakGATTDescriptor
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData, BaseBleakScanner
from bleak.backends.service import BleakGATTService, BleakGATTServiceCollection
from bleak.exc import BleakDeviceNotFoundError, BleakError, BleakGATTProtocolError
from bleak.uuids import normalize_uuid_str
from bumble import att, core
from bumble.device import Advertisement, Connection, Device, Peer
from bumble.gatt_client import CharacteristicProxy, ServiceProxy

from embridge.firmware_bridge.ble_transport import Backends

PREFERRED_MTU: Final = 517  # what BlueZ asks for

Result = TypeVar("Result")


class BumbleScanner(BaseBleakScanner):
    """Scans with `device`; other arguments of BleakScanner have no effect."""

    device: ClassVar[Device]

    def __init__(
        self, detection_callback: Any, service_uuids: list[str] | None, *_: Any, **__: Any
    ) -> None:
        super().__init__(detection_callback, service_uuids)

    async def start(self) -> None:
        """Begin."""
        self.seen_devices = {}
        self.device.on(Device.EVENT_ADVERTISEMENT, self._on_advertisement)
        await self.device.start_scanning(filter_duplicates=False)

    async def stop(self) -> None:
        """End."""
        self.device.remove_listener(Device.EVENT_ADVERTISEMENT, self._on_advertisement)
        await self.device.stop_scanning()

    def _on_advertisement(self, advertisement: Advertisement) -> None:
        heard = _read_advertisement(advertisement)
        if self.is_allowed_uuid(heard.service_uuids):
            address = advertisement.address.to_string(with_type_qualifier=False)
            known = self.create_or_update_device(
                address, address, heard.local_name, advertisement, heard
            )
            self.call_detection_callbacks(known, heard)


class BumbleClient(BaseBleakClient):
    """A connection made with `device`."""

    device: ClassVar[Device]

    def __init__(self, address_or_ble_device: BLEDevice | str, **options: Any) -> None:
        super().__init__(address_or_ble_device, **options)
        known = getattr(address_or_ble_device, "name", None)
        self._name = known or self.address.replace(":", "-")
        self._connection: Connection | None = None

    @property
    def name(self) -> str:
        """Of the device."""
        return self._name

    @property
    def mtu_size(self) -> int:
        """The MTU agreed on."""
        return att.ATT_DEFAULT_MTU if self._connection is None else self._connection.att_mtu

    @property
    def is_connected(self) -> bool:
        """True from `connect` until either end, or the radio, hangs up."""
        return self._connection is not None

    async def connect(self, pair: bool, **_: Any) -> None:
        """Connect, agree on an MTU, and learn the services."""
        if pair:
            raise BleakError("pairing is not supported by this backend")
        try:
            self._connection = await self.device.connect(self.address, timeout=self._timeout)
        except core.TimeoutError as error:
            raise BleakDeviceNotFoundError(
                self.address, f"Device with address {self.address} was not found."
            ) from error
        self._connection.on(Connection.EVENT_DISCONNECTION, self._on_disconnection)
        try:
            self.services = await self._while_connected(self._discover(Peer(self._connection)))
        except BaseException:
            await self.disconnect()
            raise

    async def disconnect(self) -> None:
        """Hang up, and wait until that is done."""
        connection = self._connection
        if connection is None:
            return
        with contextlib.suppress(core.BaseBumbleError):  # the other end may have been faster
            await connection.disconnect()
        self._on_disconnection(0)

    async def pair(self, *_: Any, **__: Any) -> None:
        """Not supported."""
        raise BleakError("pairing is not supported by this backend")

    async def unpair(self) -> None:
        """Not supported."""
        raise BleakError("pairing is not supported by this backend")

    async def read_gatt_char(
        self, characteristic: BleakGATTCharacteristic, *, use_cached: bool = False, **_: Any
    ) -> bytearray:
        """Read from the other end; nothing is cached."""
        return bytearray(await self._while_connected(characteristic.obj.read_value()))

    async def read_gatt_descriptor(
        self, descriptor: BleakGATTDescriptor, *, use_cached: bool = False, **_: Any
    ) -> bytearray:
        """Read from the other end; nothing is cached."""
        return bytearray(await self._while_connected(descriptor.obj.read_value()))

    async def write_gatt_char(
        self, characteristic: BleakGATTCharacteristic, data: SizedBuffer, response: bool
    ) -> None:
        """Write; BleakError when it is too long to be written without response."""
        if not response and len(data) > characteristic.max_write_without_response_size:
            raise BleakError(f"{len(data)} bytes do not fit one write without response")
        write = characteristic.obj.write_value(bytes(data), with_response=response)
        await self._while_connected(write)

    async def write_gatt_descriptor(
        self, descriptor: BleakGATTDescriptor, data: SizedBuffer
    ) -> None:
        """Write and wait for the answer."""
        write = descriptor.obj.write_value(bytes(data), with_response=True)
        await self._while_connected(write)

    async def start_notify(
        self, characteristic: BleakGATTCharacteristic, callback: NotifyCallback, **_: Any
    ) -> None:
        """Subscribe, to notifications rather than indications."""
        prefer_notify = "notify" in characteristic.properties
        subscribe = characteristic.obj.subscribe(
            lambda value: callback(bytearray(value)), prefer_notify=prefer_notify
        )
        await self._while_connected(subscribe)

    async def stop_notify(self, characteristic: BleakGATTCharacteristic) -> None:
        """Unsubscribe."""
        await self._while_connected(characteristic.obj.unsubscribe())

    def _on_disconnection(self, _reason: int) -> None:
        if self._connection is None:
            return
        self._connection = None
        self.services = None
        if self._disconnected_callback is not None:
            self._disconnected_callback()

    async def _while_connected(self, request: Awaitable[Result]) -> Result:
        """The answer to a request; BleakError when it is refused, or the connection ends first."""
        connection = self._connection
        if connection is None:
            raise BleakError("Not connected")
        asked = asyncio.ensure_future(request)
        hang_up = connection.on(Connection.EVENT_DISCONNECTION, lambda _: asked.cancel())
        try:
            await asyncio.wait({asked})
            return asked.result()
        except att.ATT_Error as error:
            raise BleakGATTProtocolError(int(error.error_code)) from error
        except asyncio.CancelledError as error:
            if self._connection is None:
                raise BleakError("disconnected before the answer came") from error
            asked.cancel()
            raise
        finally:
            connection.remove_listener(Connection.EVENT_DISCONNECTION, hang_up)

    async def _discover(self, peer: Peer) -> BleakGATTServiceCollection:
        await peer.request_mtu(PREFERRED_MTU)
        services = BleakGATTServiceCollection()
        for service in await peer.discover_services():
            await self._add(services, service)
        return services

    async def _add(self, services: BleakGATTServiceCollection, service: ServiceProxy) -> None:
        known = BleakGATTService(service, service.handle, _uuid(service.uuid))
        services.add_service(known)
        for found in await service.discover_characteristics():
            characteristic = self._characteristic(found, known)
            services.add_characteristic(characteristic)
            for descriptor in await found.discover_descriptors():
                services.add_descriptor(
                    BleakGATTDescriptor(
                        descriptor, descriptor.handle, _uuid(descriptor.type), characteristic
                    )
                )

    def _characteristic(
        self, found: CharacteristicProxy[bytes], service: BleakGATTService
    ) -> BleakGATTCharacteristic:
        return BleakGATTCharacteristic(
            found,
            found.handle,
            _uuid(found.uuid),
            list(gatt_char_props_to_strs(int(found.properties))),
            lambda: self.mtu_size - 3,
            service,
        )


def _read_advertisement(advertisement: Advertisement) -> AdvertisementData:
    kinds = core.AdvertisingData
    name = advertisement.data.get(kinds.COMPLETE_LOCAL_NAME)
    uuids = [
        _uuid(uuid)
        for kind in (
            kinds.COMPLETE_LIST_OF_16_BIT_SERVICE_CLASS_UUIDS,
            kinds.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS,
        )
        for uuid in advertisement.data.get(kind) or []
    ]
    return AdvertisementData(
        local_name=name,
        manufacturer_data={},
        service_data={},
        service_uuids=uuids,
        tx_power=None,
        rssi=advertisement.rssi,
        platform_data=(advertisement,),
    )


def _uuid(uuid: core.UUID) -> str:
    return normalize_uuid_str(uuid.to_hex_str("-"))


def bleak_backends(device: Device) -> Backends:
    """Backends that use a powered Bumble device; bleak makes the instances itself."""
    return Backends(
        type("BoundBumbleScanner", (BumbleScanner,), {"device": device}),
        type("BoundBumbleClient", (BumbleClient,), {"device": device}),
    )

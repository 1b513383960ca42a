"""GATT services of the wrist as Bumble has them, and its advertisement.

Bumble checks no permissions, and a handler that is missing, or that raises anything but ATT_Error,
leaves the client without an answer for 30 s. So every characteristic made here answers everything.
"""

from collections.abc import Callable

from bumble import att, core
from bumble.device import Connection
from bumble.gatt import Characteristic, CharacteristicValue, Service

from embridge.firmware_bridge import gatt

Read = Callable[[Connection], bytes]
Write = Callable[[Connection, bytes], None]


def notifying(uuid: str) -> Characteristic[bytes]:
    """A characteristic that only notifies."""
    return _characteristic(uuid, Characteristic.Properties.NOTIFY)


def readable(uuid: str, read: Read) -> Characteristic[bytes]:
    """A characteristic that is read."""
    return _characteristic(uuid, Characteristic.Properties.READ, read=read)


def writable(uuid: str, write: Write) -> Characteristic[bytes]:
    """A characteristic that is written, with response; `write` may raise ATT_Error."""
    return _characteristic(uuid, Characteristic.Properties.WRITE, write=write)


def battery_service(percent: Callable[[], int]) -> Service:
    """Battery Service 1.1."""
    level = readable(gatt.BATTERY_LEVEL, lambda _: bytes([percent()]))
    return Service(gatt.BATTERY_SERVICE, [level])


def device_information_service(texts: dict[str, str]) -> Service:
    """Device Information Service 1.1. texts: UUID of a string characteristic -> its value."""

    def constant(uuid: str, text: str) -> Characteristic[bytes]:
        return readable(uuid, lambda _: text.encode())

    characteristics = [constant(uuid, text) for uuid, text in texts.items()]
    return Service(gatt.DEVICE_INFORMATION_SERVICE, characteristics)


def advertisement(name: str) -> bytes:
    """Flags, service and name: 31 bytes at most, so that no scan response is needed."""
    kinds = core.AdvertisingData
    service = bytes(core.UUID(gatt.SERVICE))
    return bytes(
        core.AdvertisingData(
            [
                (kinds.FLAGS, bytes([0x06])),  # general discoverable, no BR/EDR
                (kinds.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS, service),
                (kinds.COMPLETE_LOCAL_NAME, name.encode()),
            ]
        )
    )


def _characteristic(
    uuid: str,
    properties: Characteristic.Properties,
    read: Read | None = None,
    write: Write | None = None,
) -> Characteristic[bytes]:
    value = CharacteristicValue(read=read or _refuse_read, write=write or _refuse_write)
    return Characteristic(uuid, properties, Characteristic.Permissions(0), value)


def _refuse_read(_: Connection) -> bytes:
    raise att.ATT_Error(att.ATT_READ_NOT_PERMITTED_ERROR)


def _refuse_write(_: Connection, _value: bytes) -> None:
    raise att.ATT_Error(att.ATT_WRITE_NOT_PERMITTED_ERROR)

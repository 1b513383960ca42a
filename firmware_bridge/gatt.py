"""Names of the wrist on BLE; PROTOCOL.md is the specification."""

from typing import Final


def _uuid(number: int) -> str:
    return f"ea0f{number:04x}-fa1e-4941-a691-6981b602afab"


SERVICE: Final = _uuid(1)
DATA: Final = _uuid(2)  # notify: DATA frames
CONTROL: Final = _uuid(3)  # write: CONTROL frames
INFO: Final = _uuid(4)  # read: STREAM_INFO
EVENTS: Final = _uuid(5)  # notify: STREAM_INFO and EVENT frames

BATTERY_SERVICE: Final = "180F"  # these are the Bluetooth SIG's
BATTERY_LEVEL: Final = "2A19"
DEVICE_INFORMATION_SERVICE: Final = "180A"
MANUFACTURER_NAME: Final = "2A29"
MODEL_NUMBER: Final = "2A24"
FIRMWARE_REVISION: Final = "2A26"

MAX_NAME_BYTES: Final = 8  # so that it fits an advertisement beside the service
MTU: Final = 247  # one notification fills one link-layer packet of 251 octets
MIN_MTU: Final = 185  # a frame with STREAM_INFO fits

"""What can be wrong before there is a BLE connection: one line each."""

import sys

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("bumble", reason="pip install bumble: the virtual radio is tested with it")

from embridge.firmware_bridge.ble_transport import BleTransport
from embridge.firmware_bridge.errors import HandshakeError, PortNotFound
from embridge.firmware_bridge.stream_info import StreamInfo
from embridge.firmware_bridge.virtual_ble import VirtualBleTransport


def silence(channels: int = 16) -> NDArray[np.int16]:
    return np.zeros((100, channels), np.int16)  # T C


def declare(channels: int = 16) -> StreamInfo:
    return StreamInfo(channels, 2000.0, 20, "uV", 0.5, boot_id=1)


@pytest.mark.parametrize(
    "options",
    [{"phy": "3M"}, {"octets": "252"}, {"interval_ms": "8"}, {"cut": "5"}, {"loss": "1"}],
)
def test_options_out_of_range_are_refused_with_what_is_expected(options: dict[str, str]) -> None:
    with pytest.raises(PortNotFound, match="expected phy=1M or 2M"):
        VirtualBleTransport("virtual+ble://", silence(), declare(), options)


def test_more_channels_than_a_notification_holds_are_refused() -> None:
    with pytest.raises(HandshakeError, match="which holds 82"):
        VirtualBleTransport("virtual+ble://", silence(83), declare(83))


@pytest.mark.parametrize("url", ["ble:///dev/ttyACM0", "ble://x?baud=1", "serial://x"])
def test_urls_that_name_no_wrist_are_refused(url: str) -> None:
    with pytest.raises(PortNotFound, match="ble://NAME"):
        BleTransport(url)


def test_a_machine_without_bluetooth_gets_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent")
    with pytest.raises(PortNotFound, match="Bluetooth cannot be used here"):
        BleTransport("ble://").open()


def test_missing_bleak_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bleak.exc", None)
    with pytest.raises(PortNotFound, match=r"pip install 'embridge\[ble\]'"):
        BleTransport("ble://").open()

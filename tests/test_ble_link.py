"""A wrist behind the virtual radio, read through the link that every wrist is read through."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("bumble", reason="pip install bumble: the virtual radio is tested with it")

from bleak import BleakClient, BleakScanner
from bleak.exc import BleakGATTProtocolError
from bumble import att
from bumble.device import Connection, Device
from bumble.gatt import Service

from embridge.firmware_bridge import gatt
from embridge.firmware_bridge.ble_peripheral import BlePeripheral, Wishes
from embridge.firmware_bridge.ble_services import advertisement, notifying, writable
from embridge.firmware_bridge.ble_thread import LoopThread
from embridge.firmware_bridge.ble_transport import Backends, BleTransport
from embridge.firmware_bridge.bleak_bumble import bleak_backends
from embridge.firmware_bridge.codec import Encoding
from embridge.firmware_bridge.errors import HandshakeError, PortNotFound
from embridge.firmware_bridge.frames import Frame, FrameType, pack
from embridge.firmware_bridge.items import EndOfStream, Item, Reconnected
from embridge.firmware_bridge.link import WristLink
from embridge.firmware_bridge.protocol import Control, ControlOp
from embridge.firmware_bridge.reassembly import Block, Gap, LinkStats
from embridge.firmware_bridge.stream_info import StreamInfo
from embridge.firmware_bridge.transmit_queue import TransmitQueue
from embridge.firmware_bridge.virtual_ble import VirtualBleTransport
from embridge.firmware_bridge.virtual_radio import Radio
from embridge.firmware_bridge.wrist_core import WristCore

RATE_HZ = 2000.0
ADDRESS = "F0:F1:F2:F3:F4:F5"


def signal(seconds: float, channels: int = 16) -> NDArray[np.int16]:
    """Smooth noise of a few hundred counts, as EMG is: (T, C)."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((round(seconds * RATE_HZ) + 4, channels))
    smooth = sum(noise[shift : len(noise) - 4 + shift] for shift in range(5))
    return np.asarray(80 * smooth).astype(np.int16)


def declare(channels: int = 16) -> StreamInfo:
    return StreamInfo(channels, RATE_HZ, 20, "uV", 0.5, boot_id=1, firmware="1.0", device="wrist")


def play(
    options: dict[str, str], seconds: float = 2.0, channels: int = 16
) -> tuple[list[Item], LinkStats, VirtualBleTransport, NDArray[np.int16]]:
    """Read a whole recording through the radio; what came, the counts, and what was played."""
    samples = signal(seconds, channels)
    transport = VirtualBleTransport("virtual+ble://", samples, declare(channels), options)
    with WristLink(transport) as link:
        items = list(link.blocks())
        stats = link.stats
    return items, stats, transport, samples


def check_samples(items: list[Item], samples: NDArray[np.int16]) -> None:
    """Blocks and gaps cover the recording without overlap, and every sample is as it was."""
    position = 0
    for item in items:
        if isinstance(item, Gap):
            assert item.first_sample == position
            position += item.samples
        elif isinstance(item, Block):
            assert item.first_sample == position
            position += len(item.samples)
            assert np.array_equal(item.samples, samples[item.first_sample : position])
    assert position == len(samples)


@pytest.mark.parametrize("options", [{}, {"loss": "0.4", "interval_ms": "7.5"}, {"phy": "1M"}])
def test_the_raw_stream_passes_without_loss(options: dict[str, str]) -> None:
    items, stats, transport, samples = play(options)
    check_samples(items, samples)
    assert (stats.samples_lost, stats.frames_corrupt, stats.reconnects) == (0, 0, 0)
    assert transport.status.frames_dropped == 0
    assert (transport.air.retransmissions > 0) == ("loss" in options)


def test_a_slow_link_gets_a_compressed_stream_that_is_still_exact() -> None:
    slow = {"phy": "1M", "octets": "27"}
    transport = VirtualBleTransport("virtual+ble://", signal(1.0, 8), declare(8), slow)
    with WristLink(transport) as link:
        assert link.choice.request.encoding is Encoding.RICE
        assert "BLE on the 1M PHY, 27 octets" in link.choice.text
        check_samples(list(link.blocks()), signal(1.0, 8))


def test_a_stream_that_no_encoding_squeezes_through_is_refused_in_one_line() -> None:
    slow = {"phy": "1M", "octets": "27"}
    transport = VirtualBleTransport("virtual+ble://", signal(1.0), declare(), slow)
    with pytest.raises(HandshakeError, match=r"1M PHY, 27 octets.* carries 28\.6 kB/s") as refusal:
        WristLink(transport).open()
    transport.release()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("buffer_ms", "gaps"), [("42", 3), ("210", 2), ("2100", 0)])
def test_outages_cost_what_the_buffer_does_not_hold_and_the_wrist_counts_it(
    buffer_ms: str, gaps: int
) -> None:
    cuts = {"cut": "0.9:0.1,1.3:0.3,1.9:1.0", "buffer_ms": buffer_ms}
    items, stats, transport, samples = play(cuts, seconds=2.8)
    check_samples(items, samples)
    assert stats.gaps == transport.status.overruns == gaps
    assert stats.frames_lost == transport.status.frames_dropped
    assert stats.reconnects == 0


def test_a_lost_connection_comes_back_without_a_restart_and_the_gap_is_exact() -> None:
    options = {"cut": "1.2:0.6", "supervision_ms": "200"}
    items, stats, transport, samples = play(options, seconds=3.0)
    check_samples(items, samples)
    assert (stats.reconnects, stats.restarts, stats.gaps) == (1, 0, 1)
    assert any(isinstance(item, Reconnected) for item in items)
    assert isinstance(items[-1], EndOfStream)
    wrist = transport.status
    in_the_controller = wrist.frames_sent - stats.frames_received
    assert stats.frames_lost == wrist.frames_dropped + in_the_controller
    assert 0 <= in_the_controller <= 12  # its packets


# ---- GATT


@contextmanager
def radio_with(
    make: Callable[[Radio, Device], BlePeripheral | None],
) -> Iterator[tuple[LoopThread, Backends]]:
    """A radio in a thread, with a device that `make` furnishes, and bleak's backends."""
    thread = LoopThread("radio")

    async def switch_on(radio: Radio) -> Backends:
        device = radio.device("wrist", ADDRESS)
        peripheral = make(radio, device)
        if peripheral is None:
            await device.power_on()
            data = advertisement("wrist")
            await device.start_advertising(advertising_data=data, auto_restart=True)
        else:
            await peripheral.start()
            radio.on_time(peripheral.step)
        host = radio.device("host", "F0:F1:F2:F3:F4:F6")
        await host.power_on()
        radio.switch_on()
        return bleak_backends(host)

    radio = Radio(pace=5.0)
    try:
        yield thread, thread.call(switch_on(radio), 10)
    finally:
        thread.call(radio.switch_off(), 10)
        thread.close()


def wrist(radio: Radio, device: Device) -> BlePeripheral:
    queue = TransmitQueue()
    core = WristCore(signal(1.0), declare(), queue, pack, loop=True)
    return BlePeripheral(device, core, queue, Wishes(), clock=lambda: radio.now_s)


def test_a_plain_bleak_client_finds_the_wrist_and_its_services() -> None:
    async def use(backends: Backends) -> None:
        found = await BleakScanner.find_device_by_filter(
            lambda _, advertised: gatt.SERVICE in advertised.service_uuids,
            backend=backends.scanner,
        )
        assert found is not None
        assert (found.name, found.address) == ("wrist", ADDRESS)
        async with BleakClient(found, backend=backends.client) as client:
            assert client.mtu_size == 247
            info = StreamInfo.unpack(bytes(await client.read_gatt_char(gatt.INFO)))
            assert info.n_ch == 16
            assert list(await client.read_gatt_char("2a19")) == [100]
            assert await client.read_gatt_char("2a24") == b"wrist"
            assert await client.read_gatt_char("2a26") == b"1.0"
            with pytest.raises(BleakGATTProtocolError, match=r"(?i)not permitted"):
                await client.read_gatt_char(gatt.DATA)

    with radio_with(wrist) as (thread, backends):
        thread.call(use(backends), 30)


def test_the_transport_finds_by_name_address_or_service_and_tells_what_the_line_carries() -> None:
    with radio_with(wrist) as (thread, backends):
        for url in ("ble://wrist", f"ble://{ADDRESS.lower()}", "ble://"):
            transport = BleTransport(url, backends, thread)
            transport.open()
            transport.write(Frame(FrameType.CONTROL, payload=Control(ControlOp.HELLO).pack()))
            capacity = transport.capacity()
            assert capacity.text == "BLE on the 2M PHY, 251 octets, MTU 247, every 15 ms"
            assert capacity.frame_bytes == 244
            transport.close()


def test_a_name_that_nobody_has_is_not_found_and_what_was_heard_is_named() -> None:
    with radio_with(wrist) as (thread, backends):
        transport = BleTransport("ble://other", backends, thread, scan_s=0.5)
        with pytest.raises(PortNotFound, match=f"heard: wrist {ADDRESS}"):
            transport.open()


def test_a_program_that_stalls_costs_no_samples_even_with_a_small_buffer() -> None:
    stalls = [1.2, 0.8]  # radio time, the next one last

    def stall(now_s: float) -> None:
        if stalls and now_s > stalls[-1]:
            stalls.pop()
            threading.Event().wait(0.5)

    def make(radio: Radio, device: Device) -> BlePeripheral:
        queue = TransmitQueue(12 * 242)  # 42 ms
        core = WristCore(signal(1.0), declare(), queue, pack)
        radio.on_time(stall)
        return BlePeripheral(device, core, queue, Wishes(), clock=lambda: radio.now_s)

    with (
        radio_with(make) as (thread, backends),
        WristLink(BleTransport("ble://wrist", backends, thread)) as link,
    ):
        check_samples(list(link.blocks()), signal(1.0))
        assert link.stats.gaps == 0
    assert not stalls


def babbler(_: Radio, device: Device) -> None:
    """A device with the service of a wrist that answers each write with noise and hangs up at 3."""
    writes: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    def answer(connection: Connection, value: bytes) -> None:
        writes.append(value)
        if len(writes) == 3:
            tasks.add(asyncio.create_task(connection.disconnect()))
        noise = att.ATT_Handle_Value_Notification(
            attribute_handle=data.handle, attribute_value=value[:-1] + b"!"
        )
        device.gatt_server.send_gatt_pdu(connection, bytes(noise))

    data = notifying(gatt.DATA)
    told = writable(gatt.CONTROL, answer)
    device.add_services([Service(gatt.SERVICE, [data, told, notifying(gatt.EVENTS)])])


def test_damage_is_counted_and_a_hang_up_is_an_oserror() -> None:
    hello = Frame(FrameType.CONTROL, payload=Control(ControlOp.HELLO).pack())
    with radio_with(babbler) as (thread, backends):
        transport = BleTransport("ble://wrist", backends, thread)
        transport.open()
        assert transport.capacity().bytes_per_s is None
        for _ in range(2):
            transport.write(hello)
        while transport.frames_corrupt < 2:
            assert transport.read() == []
        assert transport.bytes_received == 2 * len(pack(hello))
        with pytest.raises(OSError, match="connect"):
            read_until_gone(transport, hello)
        transport.close()


def read_until_gone(transport: BleTransport, frame: Frame) -> None:
    transport.write(frame)
    while True:
        transport.read()

"""The virtual radio: times on air, losses, and unchanged bleak code on it."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("bumble", reason="pip install bumble: the virtual radio is tested with it")

from bleak import BleakClient, BleakScanner
from bleak.exc import BleakDeviceNotFoundError, BleakError, BleakGATTProtocolError
from bumble import att, hci
from bumble.device import Connection, Device
from bumble.gatt import Service

from embridge.firmware_bridge import gatt
from embridge.firmware_bridge.ble_services import (
    advertisement,
    battery_service,
    device_information_service,
    notifying,
    writable,
)
from embridge.firmware_bridge.ble_transport import Backends
from embridge.firmware_bridge.bleak_bumble import bleak_backends
from embridge.firmware_bridge.capacity import (
    MARGIN,
    ble_capacity,
    ble_payload_bytes_per_s,
    pair_us,
    pdu_us,
)
from embridge.firmware_bridge.errors import HandshakeError
from embridge.firmware_bridge.protocol import LinkParameters
from embridge.firmware_bridge.virtual_air import AirLink, AirStats, End, Packet
from embridge.firmware_bridge.virtual_radio import Cut, Radio

ADDRESS = "F0:F1:F2:F3:F4:F5"
ECHO, HEARD, SAID = (f"7e57000{n}-0000-4000-8000-000000000000" for n in range(3))


# ---- times, by hand from the packet formats of the Core specification


@pytest.mark.parametrize(
    ("octets", "phy", "us"),
    [
        (0, 1, 80),  # 10 bytes of 8 us
        (27, 1, 296),
        (251, 1, 2088),  # 2120 of the specification less 32 for the 4 octets of encryption
        (0, 2, 44),  # 11 bytes of 4 us
        (251, 2, 1048),  # 1064 less 16
        (0, 3, 720),
        (251, 3, 16_784),  # 17040 less 256
    ],
)
def test_a_packet_takes_the_time_of_its_bits(octets: int, phy: int, us: int) -> None:
    assert pdu_us(octets, phy) == us


@pytest.mark.parametrize(
    ("link", "bytes_per_s"),
    [
        # a pair takes 44 + 150 + 1048 + 150 = 1392 us: 10 fit 15 ms, 5 fit 7.5 ms, 35 fit 50 ms
        (LinkParameters(15_000, 247, 251, 2), 10 * 244 / 0.015),
        (LinkParameters(7_500, 247, 251, 2), 5 * 244 / 0.0075),
        (LinkParameters(50_000, 247, 251, 2), 35 * 244 / 0.050),
        # 80 + 150 + 2088 + 150 = 2468 us: 3 fit 7.5 ms
        (LinkParameters(7_500, 247, 251, 1), 3 * 244 / 0.0075),
        # 251 octets in 9 packets of 27 and one of 8: 676 and 524 us, 11 fit 7.5 ms either way
        (LinkParameters(7_500, 247, 27, 1), 1.1 * 244 / 0.0075),
        # coded, 8 symbols a bit: a pair of 251 octets takes 17.8 ms, longer than the interval
        (LinkParameters(15_000, 247, 251, 3), 0.0),
    ],
)
def test_capacity_is_what_the_core_specification_leaves(
    link: LinkParameters, bytes_per_s: float
) -> None:
    assert ble_payload_bytes_per_s(link) == pytest.approx(bytes_per_s, rel=0.003)
    capacity = ble_capacity(link)
    assert capacity.bytes_per_s == pytest.approx((1 - MARGIN) * bytes_per_s, rel=0.003)
    assert capacity.frame_bytes == 244


@pytest.mark.parametrize(
    "link", [LinkParameters(0, 247, 251, 2), LinkParameters(15_000, 247, 0, 2)]
)
def test_impossible_parameters_are_the_wrists_fault(link: LinkParameters) -> None:
    with pytest.raises(HandshakeError, match="impossible parameters"):
        ble_capacity(link)


# ---- the air


def air_link(loss: float = 0.0, seed: int = 0, **given: int) -> AirLink:
    air = AirLink(15_000, 1_000_000, 0, loss, random.Random(seed), AirStats())
    for name, value in given.items():
        setattr(air, name, value)
    return air


def packet(octets: int, deliver: Callable[[], None] = lambda: None) -> Packet:
    return Packet(octets, deliver, wanted=lambda: True)


@pytest.mark.parametrize("phy", [1, 2])
@pytest.mark.parametrize("octets", [27, 125, 251])
@pytest.mark.parametrize("interval_us", [7_500, 15_000, 30_000])
def test_the_air_carries_what_capacity_promises(phy: int, octets: int, interval_us: int) -> None:
    air = air_link(interval_us=interval_us, phy=phy, octets=octets)
    for _ in range(5_000):
        air.send(End.PERIPHERAL, packet(4 + 247))
    arrived = sum(len(list(air.event())) for _ in range(100))
    promised = ble_payload_bytes_per_s(LinkParameters(interval_us, 247, octets, phy))
    assert arrived * 244 / (100 * 1e-6 * interval_us) == pytest.approx(promised, rel=0.01)


@given(
    sizes=st.lists(st.tuples(st.sampled_from(End), st.integers(1, 600)), max_size=40),
    loss=st.floats(0, 0.8),
    seed=st.integers(0, 99),
)
def test_every_packet_arrives_once_and_in_order(
    sizes: list[tuple[End, int]], loss: float, seed: int
) -> None:
    air = air_link(loss, seed)
    arrived: dict[End, list[int]] = {end: [] for end in End}
    for number, (end, octets) in enumerate(sizes):
        air.send(end, packet(octets, partial(arrived[end].append, number)))
    while any(air.has_more(end) for end in End):
        for whole in air.event():
            whole.deliver()
    for end in End:
        assert arrived[end] == [n for n, (sender, _) in enumerate(sizes) if sender is end]
    octets_of = air.octets
    assert air.stats.packets == sum(-(-octets // octets_of) for _, octets in sizes)


def test_two_damaged_packets_in_a_row_end_the_event() -> None:
    air = air_link(loss=1.0)
    air.send(End.PERIPHERAL, packet(27))
    assert list(air.event()) == []
    assert air.stats.retransmissions == 2
    assert air.now_us == 2 * pair_us(0, 27, phy=1)


def test_what_nobody_waits_for_is_not_sent() -> None:
    air = air_link()
    air.send(End.CENTRAL, Packet(27, lambda: None, wanted=lambda: False))
    assert list(air.event()) == []
    assert air.stats.packets == 0


# ---- bleak on it


async def make_peripheral(radio: Radio) -> Device:
    """Battery, device information, and a characteristic that is written and notifies."""
    device = radio.device("things", ADDRESS)

    def answer(connection: Connection, value: bytes) -> None:
        notification = att.ATT_Handle_Value_Notification(
            attribute_handle=heard.handle, attribute_value=value
        )
        device.gatt_server.send_gatt_pdu(connection, bytes(notification))

    heard, said = notifying(HEARD), writable(SAID, answer)
    texts = {gatt.MANUFACTURER_NAME: "embridge", gatt.FIRMWARE_REVISION: "1.2.3"}
    echo = Service(ECHO, [heard, said])
    device.add_services([echo, battery_service(lambda: 87), device_information_service(texts)])
    await device.power_on()
    await device.start_advertising(advertising_data=advertisement("things"), auto_restart=True)
    return device


def on_air(radio: Radio, use: Callable[[Device, Backends], Awaitable[None]]) -> None:
    """Run `use` with a peripheral and bleak's backends, while the radio's time passes."""

    async def main() -> None:
        peripheral = await make_peripheral(radio)
        host = radio.device("host", "F0:F1:F2:F3:F4:F6")
        await host.power_on()
        radio.switch_on()
        try:
            await asyncio.wait_for(use(peripheral, bleak_backends(host)), 60)
        finally:
            await radio.switch_off()

    asyncio.run(main())


FAST = 20.0  # seconds of radio time per second


def test_a_plain_bleak_client_reads_battery_and_device_information() -> None:
    async def use(_: Device, backends: Backends) -> None:
        found = await BleakScanner.find_device_by_name("things", backend=backends.scanner)
        assert found is not None
        assert found.address == ADDRESS
        async with BleakClient(found, backend=backends.client) as client:
            assert list(await client.read_gatt_char("2a19")) == [87]
            assert await client.read_gatt_char("2a26") == b"1.2.3"
            assert await client.read_gatt_char("2a29") == b"embridge"
            with pytest.raises(BleakGATTProtocolError, match=r"(?i)read not permitted"):
                await client.read_gatt_char(HEARD)
            with pytest.raises(BleakGATTProtocolError, match=r"(?i)write not permitted"):
                await client.write_gatt_char("2a19", b"1", response=True)

    on_air(Radio(pace=FAST), use)


def test_what_is_written_comes_back_as_notifications_in_order_in_spite_of_losses() -> None:
    async def use(_: Device, backends: Backends) -> None:
        heard: list[bytes] = []
        async with BleakClient(ADDRESS, backend=backends.client) as client:
            await client.start_notify(HEARD, lambda _, value: heard.append(bytes(value)))
            for number in range(50):
                await client.write_gatt_char(SAID, bytes([number]) * 60, response=True)
            await client.stop_notify(HEARD)
        assert heard == [bytes([number]) * 60 for number in range(50)]

    radio = Radio(loss=0.3, pace=FAST)
    on_air(radio, use)
    assert radio.stats.retransmissions > 0


def test_the_same_device_is_connected_to_again_and_again() -> None:
    async def use(_: Device, backends: Backends) -> None:
        for _again in range(3):
            async with BleakClient(ADDRESS, backend=backends.client) as client:
                assert client.is_connected
            assert not client.is_connected

    on_air(Radio(pace=FAST), use)


def test_parameters_that_are_asked_for_take_effect_at_both_ends() -> None:
    async def use(peripheral: Device, backends: Backends) -> None:
        async with BleakClient(ADDRESS, backend=backends.client):
            (connection,) = peripheral.connections.values()
            before = connection.parameters.connection_interval
            await connection.set_phy([hci.Phy.LE_2M], [hci.Phy.LE_2M])
            await connection.set_data_length(251, 2120)
            await connection.update_parameters(30, 30, 0, 1000)
            phy = await connection.get_phy()
            assert (before, connection.parameters.connection_interval) == (15, 30)
            assert (phy.tx_phy, connection.data_length.max_tx_octets) == (2, 251)

    on_air(Radio(pace=FAST), use)


def test_silence_ends_a_connection_at_both_ends_and_a_request_with_it() -> None:
    async def use(peripheral: Device, backends: Backends) -> None:
        lost = asyncio.Event()
        client = BleakClient(
            ADDRESS, disconnected_callback=lambda _: lost.set(), backend=backends.client
        )
        await client.connect()

        async def read_on() -> None:
            while True:
                await client.read_gatt_char("2a19")

        with pytest.raises(BleakError, match="disconnected"):
            await read_on()
        await lost.wait()
        assert not client.is_connected
        assert not peripheral.connections
        async with BleakClient(ADDRESS, backend=backends.client) as again:
            assert list(await again.read_gatt_char("2a19")) == [87]

    on_air(Radio(cuts=[Cut(2.0, 1.5)], pace=FAST), use)


def test_a_device_that_is_not_there_is_not_found() -> None:
    async def use(_: Device, backends: Backends) -> None:
        absent = BleakClient("F0:00:00:00:00:01", timeout=0.2, backend=backends.client)
        with pytest.raises(BleakDeviceNotFoundError):
            await absent.connect()
        async with BleakClient(ADDRESS, backend=backends.client) as client:
            assert client.is_connected

    on_air(Radio(pace=FAST), use)

"""A Myo armband with its public protocol on a virtual radio, read through unchanged bleak."""

import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.foreign.myo import (
    COMMAND,
    CONTROL_SERVICE,
    EMG,
    FIRMWARE,
    MAY_SLEEP,
    NEVER_SLEEP,
    MyoSource,
    set_mode,
    uuid,
)
from embridge.firmware_bridge import (
    Block,
    Gap,
    HandshakeError,
    Item,
    PortNotFound,
    Reconnected,
)

pytest.importorskip("bumble", reason="no bumble: pip install 'embridge[dev]'")
pytest.importorskip("bleak", reason="no bleak: pip install 'embridge[ble]'")

from bumble import att, core
from bumble.device import Connection, Device
from bumble.gatt import Characteristic, CharacteristicValue, Service

from embridge.firmware_bridge.ble_thread import LoopThread
from embridge.firmware_bridge.bleak_bumble import Backends, bleak_backends
from embridge.firmware_bridge.virtual_radio import Cut, Radio

ADDRESS = "F0:F1:F2:F3:F4:F5"
NOTIFICATIONS_PER_S = 100
WAIT_S = 60.0
PACE = 4.0  # the radio's seconds per second


def emg(samples: int) -> NDArray[np.int8]:
    return np.random.default_rng(0).integers(-128, 128, (samples, 8), np.int8)


class FakeMyo:
    """Sends nothing before it is told to; then two samples a notification, each in its turn.

    dropped: notifications that are made and never sent
    """

    def __init__(
        self, device: Device, played: NDArray[np.int8], dropped: frozenset[int] = frozenset()
    ) -> None:
        self._device, self._played, self._dropped = device, played, dropped
        self._connection: Connection | None = None
        self._mode = 0
        self._began_s: float | None = None
        self._made = 0
        self.commands: list[bytes] = []
        self._emg = [
            Characteristic(name, Characteristic.Properties.NOTIFY, Characteristic.READABLE, b"")
            for name in EMG
        ]

    async def start(self) -> None:
        read, write = Characteristic.Properties.READ, Characteristic.Properties.WRITE
        command = CharacteristicValue(write=self._obey)
        version = bytes([1, 0, 5, 0, 0xB2, 7, 2, 0])
        control = [
            Characteristic(FIRMWARE, read, Characteristic.READABLE, version),
            Characteristic(COMMAND, write, Characteristic.WRITEABLE, command),
        ]
        self._device.add_services(
            [Service(CONTROL_SERVICE, control), Service(uuid(0x0005), self._emg)]
        )
        self._device.on(Device.EVENT_CONNECTION, self._on_connection)
        await advertise(self._device, CONTROL_SERVICE)

    def _on_connection(self, connection: Connection) -> None:
        self._connection = connection
        connection.on(Connection.EVENT_DISCONNECTION, lambda _: self._hang_up())

    def _hang_up(self) -> None:
        self._connection, self._mode, self._began_s = None, 0, None

    def _obey(self, _: Connection, value: bytes) -> None:
        if value[1] != len(value) - 2:
            raise att.ATT_Error(0x80)
        self.commands.append(bytes(value))
        if value[0] == 1:
            self._mode, self._began_s = value[2], None

    def step(self, now_s: float) -> None:
        if self._connection is None or self._mode not in (2, 3):
            return
        if self._began_s is None:
            self._began_s, self._made = now_s, 0
        while self._made < int((now_s - self._began_s) * NOTIFICATIONS_PER_S):
            pair = self._played[2 * self._made : 2 * self._made + 2]
            if len(pair) == 2 and self._made not in self._dropped:
                self._notify(self._emg[self._made % 4], pair.tobytes())
            self._made += 1

    def _notify(self, characteristic: Characteristic[bytes], value: bytes) -> None:
        server = self._device.gatt_server
        if server.read_cccd(self._connection, characteristic)[0] & 1:
            handle = characteristic.handle
            sent = att.ATT_Handle_Value_Notification(attribute_handle=handle, attribute_value=value)
            server.send_gatt_pdu(self._connection, bytes(sent))


async def advertise(device: Device, service: str) -> None:
    kinds = core.AdvertisingData
    data = core.AdvertisingData(
        [
            (kinds.FLAGS, bytes([6])),
            (kinds.COMPLETE_LIST_OF_128_BIT_SERVICE_CLASS_UUIDS, bytes(core.UUID(service))),
            (kinds.COMPLETE_LOCAL_NAME, device.name.encode()),
        ]
    )
    await device.power_on()
    await device.start_advertising(advertising_data=bytes(data), auto_restart=True)


class Air:
    """A radio in a thread, with a host on it."""

    def __init__(self, cuts: tuple[Cut, ...]) -> None:
        self.loop = LoopThread("radio")
        self.backends = self.loop.call(self._start(cuts), WAIT_S)

    async def _start(self, cuts: tuple[Cut, ...]) -> Backends:
        self.radio = Radio(cuts=cuts, pace=PACE)
        host = self.radio.device("host", "C0:00:00:00:00:01")
        await host.power_on()
        self.radio.switch_on()
        return bleak_backends(host)

    def add(self, played: NDArray[np.int8], dropped: frozenset[int] = frozenset()) -> FakeMyo:
        return self.loop.call(self._add(played, dropped), WAIT_S)

    async def _add(self, played: NDArray[np.int8], dropped: frozenset[int]) -> FakeMyo:
        myo = FakeMyo(self.radio.device("Myo", ADDRESS), played, dropped)
        self.radio.on_time(myo.step)
        await myo.start()
        return myo

    async def add_other(self, name: str) -> None:
        await advertise(self.radio.device(name, ADDRESS), uuid(0x0009))

    def source(self, url: str = "myo://", **options: object) -> MyoSource:
        return MyoSource(
            url,
            client=self.backends.client,
            scanner=self.backends.scanner,
            loop=self.loop,
            **options,
        )


@pytest.fixture
def air() -> Iterator[Callable[..., Air]]:
    started: list[Air] = []

    def start(*cuts: Cut) -> Air:
        started.append(Air(cuts))
        return started[-1]

    yield start
    for each in started:
        each.loop.close()


def until(source: MyoSource, sample: int) -> list[Item]:
    items: list[Item] = []
    for item in source.blocks():
        items.append(item)
        if isinstance(item, Block) and item.first_sample + len(item.samples) >= sample:
            return items
    raise AssertionError("the stream ended")


def joined(items: list[Item]) -> NDArray[np.int16]:
    return np.concatenate([item.samples for item in items if isinstance(item, Block)])


def test_every_sample_arrives_as_the_armband_made_it(air):
    radio, played = air(), emg(400)
    myo = radio.add(played)
    with radio.source() as source:
        items = until(source, 400)
        assert (source.info.n_ch, source.info.rate_hz, source.info.unit) == (8, 200, "a.u.")
        assert (source.info.firmware, source.info.device) == ("1.5.1970", "Myo")
        assert source.stats.samples_received == 400
        assert source.stats.bytes_received == 3200
    assert np.array_equal(joined(items), played)
    assert [item.first_sample for item in items] == list(range(0, 400, 2))
    assert myo.commands == [NEVER_SLEEP, set_mode(2), set_mode(0), MAY_SLEEP]


def test_lost_notifications_are_located_unless_there_are_four(air):
    radio, played = air(), emg(600)
    lost = {50, 80, 81, 120, 121, 122}
    unseen = {200, 201, 202, 203}
    radio.add(played, frozenset(lost | unseen))
    with radio.source() as source:
        items = until(source, 600 - 8)
        assert source.stats.samples_lost == 2 * len(lost)
    assert [item for item in items if isinstance(item, Gap)] == [
        Gap(100, 2),
        Gap(160, 4),
        Gap(240, 6),
    ]
    kept = [n for n in range(300) if n not in lost | unseen]
    assert np.array_equal(joined(items), played.reshape(300, 2, 8)[kept].reshape(-1, 8))


@pytest.mark.parametrize("name", ["Myo", ADDRESS, ADDRESS.lower(), ""])
def test_it_is_found_by_name_by_address_or_as_the_first(air, name):
    radio = air()
    myo = radio.add(emg(40))
    with radio.source(f"myo://{name}?mode=raw") as source:
        until(source, 20)
    assert set_mode(3) in myo.commands


def test_a_broken_connection_comes_back_with_a_gap_of_its_length(air):
    radio, played = air(Cut(at_s=3.0, for_s=4.0)), emg(4000)
    radio.add(played)
    with radio.source(reconnect_s=WAIT_S) as source:
        items = until(source, 300)
        while not any(isinstance(item, Reconnected) for item in items):
            items += [next(source.blocks())]
        items += until(source, 0) + until(source, 0)
        assert source.stats.reconnects == 1
    at = next(at for at, item in enumerate(items) if isinstance(item, Reconnected))
    back, gap, block = items[at : at + 3]
    assert gap.samples >= int(200 * back.away_s) - 2
    assert block.first_sample == gap.first_sample + gap.samples
    assert np.array_equal(block.samples, played[:2])


def test_nothing_that_advertises_is_one_line(air):
    with (
        pytest.raises(PortNotFound, match=r"no Myo advertises within 0\.5 s"),
        air().source(timeout_s=0.5),
    ):
        pass


def test_stop_ends_a_search(air):
    source = air().source(timeout_s=WAIT_S)
    timer = threading.Timer(0.2, source.stop)
    timer.start()
    with pytest.raises(HandshakeError), source:
        pass
    timer.join()


def test_another_peripheral_is_refused_in_one_line(air):
    radio = air()
    radio.loop.call(radio.add_other("lamp"), WAIT_S)
    with (
        pytest.raises(HandshakeError, match=f"lamp at {ADDRESS} is no Myo") as refused,
        radio.source("myo://lamp"),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_an_armband_that_sends_nothing_is_one_line(air):
    radio = air()
    radio.add(emg(0))
    with (
        pytest.raises(HandshakeError, match="connected, but nothing is streamed"),
        radio.source(timeout_s=5.0),
    ):
        pass


def test_without_bleak_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bleak", None)
    with pytest.raises(ConfigError, match=r"embridge\[ble\]"):
        MyoSource("myo://")


def test_wrong_options_are_one_line():
    with pytest.raises(ConfigError, match="expected filtered or raw"):
        MyoSource("myo://Myo?mode=clean")
    with pytest.raises(ConfigError, match="unknown option 'rate'"):
        MyoSource("myo://Myo?rate=1000")

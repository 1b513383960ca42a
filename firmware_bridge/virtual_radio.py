"""A BLE radio in software: Bumble hosts and controllers on an air that takes time and loses data.

Bumble's own link delivers everything at once. Here data moves in connection events (`virtual_air`),
with 1M and 2M PHY, data length extension, retransmissions, a bounded number of packets in each
controller, supervision time-out, and cuts. Time is the radio's own: it follows the clock, and when
the program is late it lives through what it missed, event by event, instead of leaping over it.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bumble import controller, hci, link, ll
from bumble.core import PhysicalTransport
from bumble.device import Device, DeviceConfiguration
from bumble.transport.common import AsyncPipeSink

from embridge.firmware_bridge.virtual_air import CONTROL_OCTETS, AirLink, AirStats, Packet
from embridge.firmware_bridge.virtual_controller import (
    INTERVAL_UNIT_US,
    TIMEOUT_UNIT_US,
    VirtualController,
    end_of,
)

TICK_US: Final = 5_000  # the longest step of the radio's time
SETTLE_TURNS: Final = 4  # of the event loop, until what hosts have sent is in the controllers
ACL_PACKETS: Final = 12  # that fit a controller
ADVERTISING_MS: Final = 30.0

_Pair = frozenset[hci.Address]


@dataclass(frozen=True, slots=True)
class Cut:
    """Nothing passes from `at_s` on, for `for_s`; in seconds since the first connection."""

    at_s: float
    for_s: float


class Radio(link.LocalLink):
    """The air, and the devices on it; all in one event loop.

    loss: probability that a packet with data arrives damaged, and is sent again
    seed: of the dice for that
    cuts: when nothing passes
    pace: seconds of radio time per second
    """

    def __init__(
        self, *, loss: float = 0.0, seed: int = 0, cuts: Sequence[Cut] = (), pace: float = 1.0
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.stats = AirStats()
        self._loss = loss
        self._dice = random.Random(seed)
        self._cuts = tuple(cuts)
        self._pace = pace
        self._now_us = 0
        self._first_us: int | None = None  # when the first connection was made
        self._air: dict[_Pair, AirLink] = {}
        self._listeners: list[Callable[[float], None]] = []
        self._devices: list[Device] = []
        self._time: asyncio.Task[None] | None = None

    @property
    def now_s(self) -> float:
        """Radio time."""
        return 1e-6 * self._now_us

    def on_time(self, listener: Callable[[float], None]) -> None:
        """Call `listener` with the time before each connection event, and each TICK_US."""
        self._listeners.append(listener)

    def device(self, name: str, address: str) -> Device:
        """A Bumble device on this air."""
        made = VirtualController(name, self, self._air_of, ACL_PACKETS)
        configuration = DeviceConfiguration(
            name=name,
            address=hci.Address(address),
            advertising_interval_min=ADVERTISING_MS,
            advertising_interval_max=ADVERTISING_MS,
        )
        device = Device.from_config_with_hci(configuration, made, AsyncPipeSink(made))
        self._devices.append(device)
        return device

    def switch_on(self) -> None:
        """Let time pass, until `switch_off`."""
        self._time = asyncio.create_task(self._run())

    def check(self) -> None:
        """Raise what has stopped the radio's time, if anything has."""
        if self._time is not None and self._time.done():
            self._time.result()

    async def switch_off(self) -> None:
        """Stop time for good, and the hosts between two commands; then the loop may end."""
        if self._time is not None:
            self._time.cancel()
        for device in self._devices:
            # Never given back: a command cut off half-way would make its host fail on the answer.
            await device.host.command_semaphore.acquire()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        origin_s = loop.time()
        while True:
            anchors_us = (air.anchor_us for air in self._air.values())
            due_us = min([self._now_us + TICK_US, *anchors_us])
            self._now_us = max(self._now_us, due_us)
            await asyncio.sleep(origin_s + self.now_s / self._pace - loop.time())
            for listener in self._listeners:
                listener(self.now_s)
            for _ in range(SETTLE_TURNS):
                await asyncio.sleep(0)
            for pair, air in list(self._air.items()):
                if air.anchor_us <= self._now_us:
                    await self._hold_event(pair, air)

    def send_advertising_pdu(
        self, sender_controller: controller.Controller, packet: ll.AdvertisingPdu
    ) -> None:
        """Advertisements and requests to connect; lost while the radio is cut."""
        if isinstance(packet, ll.ConnectInd):
            self._begin(packet)
        if not self._is_cut():
            super().send_advertising_pdu(sender_controller, packet)

    def send_acl_data(
        self,
        sender_controller: controller.Controller,
        destination_address: hci.Address,
        transport: PhysicalTransport,
        data: bytes,
    ) -> None:
        """Data that has come through the air; nobody waits for it after a hang-up."""
        source_address = sender_controller.random_address
        receiver = self._connection(destination_address, source_address)
        if receiver is not None:
            receiver.controller.on_link_acl_data(source_address, transport, data)

    def send_ll_control_pdu(
        self, sender_address: hci.Address, receiver_address: hci.Address, packet: ll.ControlPdu
    ) -> None:
        """Control packets take their turn on the air, behind the data."""
        air = self._air[frozenset((sender_address, receiver_address))]
        sender = self._connection(sender_address, receiver_address)

        def deliver() -> None:
            receiver = self._connection(receiver_address, sender_address)
            if receiver is not None:
                receiver.controller.on_ll_control_pdu(sender_address, packet)

        assert sender is not None
        air.send(end_of(sender), Packet(CONTROL_OCTETS, deliver, wanted=lambda: True))

    def _begin(self, request: ll.ConnectInd) -> None:
        if self._first_us is None:
            self._first_us = self._now_us
        interval_us = request.interval * INTERVAL_UNIT_US
        pair = frozenset((request.initiator_address, request.advertiser_address))
        self._air[pair] = AirLink(
            interval_us=interval_us,
            timeout_us=request.timeout * TIMEOUT_UNIT_US,
            anchor_us=self._now_us + interval_us,
            loss=self._loss,
            dice=self._dice,
            stats=self.stats,
        )

    async def _hold_event(self, pair: _Pair, air: AirLink) -> None:
        """One connection event, or its absence."""
        ends = [held for address in pair if (held := self._held(pair, address)) is not None]
        # An end that has hung up stays on the air until the other one knows.
        on_air = len(ends) == 2 or (len(ends) == 1 and air.has_more(end_of(ends[0]).other))
        if on_air and not self._is_cut():
            for packet in air.event():
                self._now_us = max(self._now_us, air.now_us)
                packet.deliver()
                await asyncio.sleep(0)  # hosts run beside the air: a credit may bring more data
        elif not ends or air.is_lost():
            for held in ends:
                held.controller.on_le_disconnected(held, hci.HCI_ErrorCode.CONNECTION_TIMEOUT_ERROR)
            del self._air[pair]
        air.anchor_us += air.interval_us

    def _held(self, pair: _Pair, own: hci.Address) -> controller.Connection | None:
        (peer,) = pair - {own}
        return self._connection(own, peer)

    def _connection(self, own: hci.Address, peer: hci.Address) -> controller.Connection | None:
        """One end of a connection, if its controller still holds it."""
        for end in self.controllers:
            held = end.le_connections.get(peer)
            if held is not None and held.self_address == own:
                return held
        return None

    def _air_of(self, connection: controller.Connection) -> AirLink:
        return self._air[frozenset((connection.self_address, connection.peer_address))]

    def _is_cut(self) -> bool:
        if self._first_us is None:
            return False
        since_s = 1e-6 * (self._now_us - self._first_us)
        return any(cut.at_s <= since_s < cut.at_s + cut.for_s for cut in self._cuts)

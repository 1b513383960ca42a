"""One BLE connection on the air: which packets arrive, and when. Pure: time and dice come in.

Bluetooth Core 5.4, Vol 6 Part B, section 4.5: data moves only in connection events. In one, central
and peripheral take turns until neither has more to say, the next pair would not fit before the
next event, or two packets in a row came damaged at the same end (4.5.6).

Not modelled: encryption (4 octets a packet), channels, peripheral latency, clock drift. A packet
with data is damaged with a probability of its own; an empty one, 20 times shorter, never is.
"""

import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Final

from embridge.firmware_bridge.capacity import MIN_OCTETS, PHY_1M, T_IFS_US, pdu_us

CONTROL_OCTETS: Final = 12  # of a link-layer control packet: the largest of those in use
SETUP_EVENTS: Final = 6  # within which a new connection must be heard of (4.5.2)


@unique
class End(IntEnum):
    """Who sends."""

    CENTRAL = 0
    PERIPHERAL = 1

    @property
    def other(self) -> "End":
        """Who listens."""
        return End(1 - self)


@dataclass(slots=True)
class Packet:
    """What a host, or the link layer itself, wants to have at the other end.

    octets: still to be sent, in as many link-layer packets as it takes
    deliver: called when all of it has arrived
    wanted: False when nobody waits for it any more
    """

    octets: int
    deliver: Callable[[], None]
    wanted: Callable[[], bool]


@dataclass(slots=True)
class AirStats:
    """Counts over all connections of a radio."""

    events: int = 0  # connection events in which both ends were heard
    packets: int = 0  # link-layer packets with data that arrived
    retransmissions: int = 0  # that had to be sent again
    air_us: int = 0  # time on air of both ends, pauses not counted


@dataclass(slots=True)
class AirLink:
    """A connection.

    interval_us, timeout_us: between connection events; of silence, until it counts as lost
    anchor_us: when the next event begins
    loss: probability that a packet with data arrives damaged
    """

    interval_us: int
    timeout_us: int
    anchor_us: int
    loss: float
    dice: random.Random
    stats: AirStats
    phy: int = PHY_1M
    octets: int = MIN_OCTETS
    heard_us: int | None = None  # when the latest event took place
    missed: int = 0  # events since then
    now_us: int = 0  # within an event
    queues: tuple[deque[Packet], deque[Packet]] = field(default_factory=lambda: (deque(), deque()))

    def send(self, end: End, packet: Packet) -> None:
        """Queue a packet."""
        self.queues[end].append(packet)

    def has_more(self, end: End) -> bool:
        """True when an end has something to send."""
        return self._head(end) is not None

    def is_lost(self) -> bool:
        """Miss an event: True when that has lasted for too long."""
        self.missed += 1
        if self.heard_us is None:
            return self.missed >= SETUP_EVENTS
        return self.anchor_us - self.heard_us >= self.timeout_us

    def event(self) -> Iterator[Packet]:
        """Hold a connection event: the packets that arrive whole. More may be queued meanwhile."""
        self.stats.events += 1
        self.heard_us = self.anchor_us
        self.missed = 0
        self.now_us = self.anchor_us
        end_us = self.anchor_us + self.interval_us
        damaged = [0, 0]  # in a row, from each end
        first = True
        while max(damaged) < 2:
            heads = [self._head(end) for end in End]
            on_air = [pdu_us(self._octets_of(head), self.phy) for head in heads]
            until_us = self.now_us + sum(on_air) + 2 * T_IFS_US
            if until_us > end_us or not (first or any(heads)):
                return
            self.now_us = until_us
            first = False
            self.stats.air_us += sum(on_air)
            for end, head in zip(End, heads, strict=True):
                if head is None:
                    damaged[end] = 0
                elif self._arrives():
                    damaged[end] = 0
                    yield from self._advance(end, head)
                else:
                    damaged[end] += 1

    def _head(self, end: End) -> Packet | None:
        queue = self.queues[end]
        while queue and not queue[0].wanted():
            queue.popleft()
        return queue[0] if queue else None

    def _octets_of(self, head: Packet | None) -> int:
        return 0 if head is None else min(head.octets, self.octets)

    def _arrives(self) -> bool:
        arrives = self.dice.random() >= self.loss
        self.stats.packets += arrives
        self.stats.retransmissions += not arrives
        return arrives

    def _advance(self, end: End, head: Packet) -> Iterator[Packet]:
        head.octets -= min(head.octets, self.octets)
        if head.octets == 0:
            self.queues[end].popleft()
            if head.wanted():  # what came just before may have been a hang-up
                yield head

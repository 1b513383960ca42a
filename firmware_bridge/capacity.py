"""What a BLE connection carries, from its parameters. Pure.

Bluetooth Core 5.4, Vol 6 Part B: packet formats 2.1 and 2.2, inter frame space 4.1.1, connection
events 4.5.1. A central sends an empty packet, the wrist answers with one that holds data, T_IFS
apart; such pairs follow each other until the next one would not fit the connection interval.
"""

from typing import Final

from embridge.firmware_bridge.errors import HandshakeError
from embridge.firmware_bridge.protocol import LinkParameters
from embridge.firmware_bridge.transport import Capacity

MARGIN: Final = 0.2  # carries a stream through the loss of every tenth packet
T_IFS_US: Final = 150
MIN_OCTETS: Final = 27  # without data length extension
MAX_OCTETS: Final = 251
PHY_1M: Final = 1
PHY_2M: Final = 2
PHY_NAMES: Final = {PHY_1M: "1M", PHY_2M: "2M", 3: "coded"}
ATT_HEADER_BYTES: Final = 3  # opcode and handle of a notification
L2CAP_HEADER_BYTES: Final = 4

_EVENTS: Final = 400  # over which packets are laid out: the end effect is below 0.3 %


def pdu_us(octets: int, phy: int) -> int:
    """Time on air of one unencrypted data packet: preamble, access address, header, data, CRC.

    phy: 1 for 1M, 2 for 2M, 3 for coded (with 8 symbols a bit; the link does not say which).
    """
    if phy == PHY_1M:
        return 8 * (1 + 4 + 2 + octets + 3)
    if phy == PHY_2M:
        return 4 * (2 + 4 + 2 + octets + 3)
    return 80 + 256 + 16 + 24 + 64 * (2 + octets + 3) + 24


def pair_us(central_octets: int, wrist_octets: int, phy: int) -> int:
    """Time that one exchange takes of a connection event."""
    return pdu_us(central_octets, phy) + T_IFS_US + pdu_us(wrist_octets, phy) + T_IFS_US


def ble_payload_bytes_per_s(link: LinkParameters) -> float:
    """Most bytes of frames per second, when each fills a notification and no packet is lost."""
    full, rest = divmod(L2CAP_HEADER_BYTES + link.mtu, link.octets)
    sizes = [link.octets] * full + [rest] * (rest > 0)
    durations_us = [pair_us(0, octets, link.phy) for octets in sizes]
    sent = 0
    position = 0  # of the next packet within its notification
    for _ in range(_EVENTS):
        left_us = link.interval_us
        while durations_us[position] <= left_us:
            left_us -= durations_us[position]
            position = (position + 1) % len(sizes)
            sent += position == 0
    return sent * (link.mtu - ATT_HEADER_BYTES) / (_EVENTS * link.interval_us * 1e-6)


def ble_capacity(link: LinkParameters) -> Capacity:
    """What a connection with these parameters carries, less MARGIN.

    HandshakeError when they cannot be.
    """
    if not (link.interval_us > 0 and MIN_OCTETS <= link.octets <= MAX_OCTETS and link.mtu >= 23):
        raise HandshakeError(f"the wrist tells impossible parameters, {link}: check its firmware")
    return Capacity(
        bytes_per_s=(1 - MARGIN) * ble_payload_bytes_per_s(link),
        frame_bytes=link.mtu - ATT_HEADER_BYTES,
        text=(
            f"BLE on the {PHY_NAMES.get(link.phy, 'an unknown')} PHY, {link.octets} octets, "
            f"MTU {link.mtu}, every {link.interval_us / 1000:g} ms"
        ),
        advice="use the 2M PHY and data length extension on both sides, or send fewer channels",
    )

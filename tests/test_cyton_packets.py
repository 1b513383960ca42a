"""What the Cyton's bytes mean, and how numbers that wrap become a place in the stream. Pure."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embridge.device.foreign.counting import Counting
from embridge.device.foreign.cyton_packets import PacketDecoder, adc_counts, numbers
from embridge.device.foreign.narrowing import Narrowing
from embridge.firmware_bridge import Gap, HandshakeError, LinkStats


def adc(samples: int, seed: int = 0) -> NDArray[np.int32]:
    """(T, 8) within the 24 bits."""
    return np.random.default_rng(seed).integers(-8_000_000, 8_000_000, (samples, 8))


def packet(number: int, row: NDArray[np.int32]) -> bytes:
    channels = b"".join(int(value).to_bytes(3, "big", signed=True) for value in row)
    return bytes([0xA0, number % 256]) + channels + bytes(6) + b"\xc0"


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 80), min_size=1, max_size=40), seed=st.integers(0, 99))
def test_packets_do_not_depend_on_how_their_bytes_arrive(sizes, seed):
    played = adc(20, seed)
    stream = b"".join(packet(250 + at, row) for at, row in enumerate(played))
    decoder, found, at = PacketDecoder(), [], 0
    for size in itertools.cycle(sizes):
        if at >= len(stream):
            break
        found += decoder.feed(stream[at : at + size])
        at += size
    found += decoder.feed(b"")
    assert np.array_equal(adc_counts(found), played)
    assert numbers(found) == [(250 + at) % 256 for at in range(20)]
    assert decoder.packets_corrupt == 0


@settings(deadline=None)
@given(
    at=st.integers(0, 29 * 33), lost=st.integers(1, 70), garbage=st.binary(max_size=40),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_after_damage_the_intact_packets_are_found_again(at, lost, garbage, seed):
    packets = [packet(number, row) for number, row in enumerate(adc(40, seed))]
    stream = b"".join(packets)
    damaged = stream[:at] + garbage + stream[at + lost :]
    decoder = PacketDecoder()
    found = decoder.feed(damaged) + decoder.feed(b"")
    before, after = at // 33, -(-(at + lost) // 33)
    assert found[: max(0, before - 1)] == packets[: max(0, before - 1)]
    assert found[-(40 - after - 1) :] == packets[after + 1 :]


def test_the_24_bits_reach_from_end_to_end():
    row = np.array([-(2**23), 2**23 - 1, -1, 0, 1, 255, -256, 65536])
    assert np.array_equal(adc_counts([packet(0, row)])[0], row)


def test_values_that_do_not_fit_are_clipped_counted_and_told_once():
    told: list[str] = []
    narrowing = Narrowing(8, "use step=256", told.append)
    values = np.array([[8 * 32767, 8 * 32768], [-8 * 32769, 4]])
    assert narrowing.push(values).tolist() == [[32767, 32767], [-32768, 0]]
    narrowing.push(values)
    assert narrowing.clipped == 4
    assert len(told) == 1
    with pytest.raises(HandshakeError, match="NaN"):
        narrowing.push(np.array([[np.nan]]))


def counting(modulus: int = 256, samples_per_number: int = 1) -> Counting:
    return Counting(modulus, 0.004, samples_per_number, LinkStats())


def row(samples: int = 1) -> NDArray[np.int16]:
    return np.zeros((samples, 8), np.int16)


@settings(deadline=None)
@given(st.lists(st.integers(0, 255), max_size=50))
def test_losses_shorter_than_a_wrap_are_exact(losses):
    counted, sent = counting(), 0
    counted.push(0, row(), 0.0)
    for missing in losses:
        sent += 1 + missing
        items = counted.push(sent % 256, row(), 0.0)
        assert items[-1].first_sample == sent
        assert items[:-1] == ([Gap(sent - missing, missing)] if missing else [])


@pytest.mark.parametrize("lost", [1, 200, 255, 256, 300, 512, 1000])
def test_silence_tells_how_often_the_number_wrapped(lost):
    counted = counting()
    counted.push(7, row(), 0.0)
    items = counted.push((8 + lost) % 256, row(), 0.0, silent_s=(lost + 1) * 0.004)
    assert items[0] == Gap(1, lost)


def test_a_late_burst_without_loss_is_no_gap():
    counted = counting()
    counted.push(7, row(), 0.0)
    assert len(counted.push(8, row(), 0.0, silent_s=0.9)) == 1


def test_a_device_that_counts_anew_is_placed_by_the_clock():
    counted = counting(4, 2)
    counted.push(3, row(2), 10.0)
    counted.renumber()
    gap, block = counted.push(1, row(2), 10.4)
    assert gap == Gap(2, 2 * 99)
    assert block.first_sample == 200

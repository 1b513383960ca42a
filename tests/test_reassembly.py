"""Frames -> blocks and gaps: nothing lost without being counted and located."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge.firmware_bridge import Block, DataFrame, Gap, HandshakeError, Reassembler, StreamInfo

SPF = 20  # samples per frame
CHANNELS = 2
INFO = StreamInfo(CHANNELS, 2000.0, SPF, "uV", 1.0, boot_id=1)


def frame(number: int, n_samp: int = SPF, per_frame: int = SPF) -> DataFrame:
    """Frame `number` of a stream, its numbers wrapped as on the wire; samples tell it apart."""
    samples = np.full((n_samp, CHANNELS), number % 30_000, np.int16)
    time_us = number * per_frame * 500 + 77
    return DataFrame(number % 2**16, number * per_frame % 2**32, samples, time_us % 2**32)


def push_all(reassembler: Reassembler, numbers: list[int]) -> list[Gap | Block]:
    return [item for number in numbers for item in reassembler.push(frame(number), 0.0)]


def gaps(items: list[Gap | Block]) -> list[Gap]:
    return [item for item in items if isinstance(item, Gap)]


@pytest.fixture
def reassembler() -> Reassembler:
    return Reassembler(INFO)


def test_frames_in_order_become_blocks_with_their_arrival_time(reassembler):
    (first,) = reassembler.push(frame(0), 1.5)
    (second,) = reassembler.push(frame(1), 2.5)
    assert (first.first_sample, first.arrived_s) == (0, 1.5)
    assert (second.first_sample, second.arrived_s) == (SPF, 2.5)
    assert np.array_equal(second.samples, frame(1).samples)
    assert reassembler.stats.samples_received == 2 * SPF


def test_a_lost_frame_leaves_a_hole_of_its_exact_size(reassembler):
    items = push_all(reassembler, [0, 1, 3])
    assert gaps(items) == [Gap(first_sample=40, samples=20)]
    assert isinstance(items[-1], Block)
    assert items[-1].first_sample == 60
    stats = reassembler.stats
    assert (stats.frames_received, stats.frames_lost, stats.gaps) == (3, 1, 1)


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(0, 2**34))
def test_received_and_lost_add_up_whatever_is_lost(kept, start):
    reassembler = Reassembler(INFO)
    numbers = sorted(start + number for number in kept)
    items = push_all(reassembler, numbers)
    stats = reassembler.stats
    assert stats.frames_received + stats.frames_lost == numbers[-1] - numbers[0] + 1
    at = items[0].first_sample
    for item in items:  # contiguous: each item begins where the one before it ends
        assert item.first_sample == at
        at += item.samples if isinstance(item, Gap) else len(item.samples)


def test_sequence_numbers_and_sample_indices_wrap_without_a_gap(reassembler):
    wrap = 2**32 // SPF  # the frame that straddles 2**32 samples
    numbers = [*range(2**16 - 3, 2**16 + 3), *range(wrap - 3, wrap + 3)]
    items = push_all(reassembler, numbers[:6])
    assert gaps(items) == []
    assert items[-1].first_sample == (2**16 + 2) * SPF
    near = Reassembler(INFO)
    items = push_all(near, numbers[6:])
    assert gaps(items) == []
    assert items[-1].first_sample == (wrap + 2) * SPF > 2**32


@pytest.mark.parametrize("lost", [2**16 - 1, 2**16, 2**16 + 1, 5 * 2**16 + 7])
def test_an_outage_longer_than_the_sequence_counter_is_counted_right(reassembler, lost):
    items = push_all(reassembler, [0, lost + 1])
    assert gaps(items) == [Gap(SPF, lost * SPF)]
    assert reassembler.stats.frames_lost == lost
    assert reassembler.stats.samples_lost == lost * SPF


def test_repeated_and_late_frames_are_dropped_and_counted(reassembler):
    items = push_all(reassembler, [0, 1, 1, 0, 2])
    assert [item.first_sample for item in items] == [0, 20, 40]
    assert reassembler.stats.frames_repeated == 2
    assert reassembler.stats.frames_lost == 0


def test_a_host_that_joins_late_has_lost_nothing(reassembler):
    (block,) = push_all(reassembler, [1000])
    assert block.first_sample == 1000 * SPF
    assert reassembler.stats.frames_lost == 0


def test_a_declared_position_reveals_what_is_missing_at_the_beginning_and_at_the_end(reassembler):
    assert reassembler.expect(0, 0) == []
    assert gaps(push_all(reassembler, [2])) == [Gap(0, 40)]
    assert reassembler.expect(5, 4 * SPF + 7) == [Gap(60, 27)]  # the last frame held 7 samples
    assert reassembler.stats.frames_lost == 4
    assert reassembler.expect(5, 4 * SPF + 7) == []


def test_the_last_frame_may_be_short(reassembler):
    push_all(reassembler, [0])
    (block,) = reassembler.push(frame(1, n_samp=7), 0.0)
    assert len(block.samples) == 7
    assert reassembler.expect(2, SPF + 7) == []


def test_a_restart_begins_a_new_stream_and_loses_nothing(reassembler):
    push_all(reassembler, [500, 501])
    reassembler.restart()
    (block,) = push_all(reassembler, [0])
    assert block.first_sample == 0
    assert (reassembler.stats.restarts, reassembler.stats.frames_lost) == (1, 0)


def test_a_wrist_that_counts_frames_and_samples_differently_is_refused(reassembler):
    push_all(reassembler, [0])
    samples = frame(0).samples
    with pytest.raises(HandshakeError, match="frame 7 at sample 20 where frame 1 belongs"):
        reassembler.push(DataFrame(7, SPF, samples), 0.0)
    with pytest.raises(HandshakeError, match="skipped 2 samples, but counted from frame 1 to 4"):
        reassembler.push(DataFrame(4, SPF + 2, samples), 0.0)
    with pytest.raises(HandshakeError, match="skipped 40 samples, but counted from frame 1 to 1"):
        reassembler.push(DataFrame(1, 3 * SPF, samples), 0.0)


def test_frames_of_another_number_of_channels_than_declared_are_refused(reassembler):
    with pytest.raises(HandshakeError, match="declared 2 channels and sent 3"):
        reassembler.push(DataFrame(0, 0, np.zeros((SPF, CHANNELS + 1), np.int16)), 0.0)


@given(
    st.lists(st.tuples(st.integers(1, SPF), st.booleans()), min_size=2, max_size=40),
    st.integers(0, 2**17),
)
def test_frames_of_any_length_leave_gaps_of_their_exact_size(frames, first):
    reassembler, index, expected, got = Reassembler(INFO), 0, [], []
    kept = [True, *(kept for _, kept in frames[1:-1]), True]
    for number, ((n_samp, _), keep) in enumerate(zip(frames, kept, strict=True), first):
        if keep:
            samples = np.zeros((n_samp, CHANNELS), np.int16)
            got += reassembler.push(DataFrame(number % 2**16, index, samples), 0.0)
        expected += [index + i for i in range(n_samp)] if not keep else []
        index += n_samp
    lost = [g.first_sample + i for g in gaps(got) for i in range(g.samples)]
    assert lost == expected
    assert reassembler.stats.frames_lost == kept.count(False)


def test_the_device_clock_goes_on_where_it_wraps_even_over_an_outage_of_hours(reassembler):
    wrap = (2**32 - 77) // (500 * SPF)  # the last frame before time_us wraps
    numbers = [wrap - 1, wrap, wrap + 1, wrap + 3 * 2**32 // (500 * SPF)]
    items = push_all(reassembler, numbers)
    times = [item.device_us for item in items if isinstance(item, Block)]
    assert times == [number * SPF * 500 + 77 for number in numbers]

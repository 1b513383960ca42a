"""A faulty line damages as it says, and the checks of `bench faults` see what they should."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge.benchmarks.link_faults import PROMISES, Trial, bench_faults, text
from embridge.firmware_bridge import FrameType, encode
from embridge.firmware_bridge.faults import FaultyLine

DATA = np.random.default_rng(1).bytes(20_000)

rates = st.sampled_from([0.0, 1e-3, 0.2])


def line_of(drop_rate: float, flip_rate: float, seed: int) -> FaultyLine:
    return FaultyLine(drop_rate, flip_rate, np.random.default_rng(seed))


@given(rates, rates, st.integers(0, 99), st.lists(st.integers(0, len(DATA)), max_size=8))
def test_the_damage_does_not_depend_on_the_chunks(drop_rate, flip_rate, seed, cuts):
    whole, chunked = (line_of(drop_rate, flip_rate, seed) for _ in range(2))
    bounds = [0, *sorted(cuts), len(DATA)]
    arrived = b"".join(chunked.damage(DATA[a:b]) for a, b in pairwise(bounds))
    assert arrived == whole.damage(DATA)
    ours, theirs = chunked.take_log(), whole.take_log()
    assert np.array_equal(ours.dropped, theirs.dropped)
    assert np.array_equal(ours.flipped, theirs.flipped)


@given(rates, rates, st.integers(0, 99))
def test_the_log_says_what_became_of_every_byte(drop_rate, flip_rate, seed):
    line = line_of(drop_rate, flip_rate, seed)
    arrived = np.frombuffer(line.damage(DATA), np.uint8)
    log = line.take_log()
    sent = np.frombuffer(DATA, np.uint8)
    kept = np.delete(np.arange(len(DATA)), log.dropped)
    changed = sent[kept] ^ arrived
    assert kept[changed != 0].tolist() == log.flipped.tolist()
    assert set(changed.tolist()) <= {0, *(1 << bit for bit in range(8))}
    assert (line.bytes_sent, line.bytes_received) == (len(DATA), len(arrived))


def test_damage_comes_as_often_as_asked_for():
    line = line_of(1e-3, 3e-3, 0)
    line.damage(bytes(1_000_000))
    log = line.take_log()
    assert abs(len(log.dropped) - 1000) < 5 * 1000**0.5
    assert abs(len(log.flipped) - 3000) < 5 * 3000**0.5


def test_the_log_is_handed_out_once():
    line = line_of(0.1, 0.1, 0)
    line.damage(DATA)
    assert len(line.take_log().dropped)
    assert not len(line.take_log().dropped)


@pytest.mark.parametrize("rates", [(-0.1, 0.2), (0.5, 0.5), (0.0, float("nan"))])
def test_rates_that_are_none_are_refused(rates):
    with pytest.raises(ValueError, match="expected both"):
        line_of(*rates, 0)


def test_every_promise_is_kept_through_drops_and_flips():
    steps: list[tuple[int, int]] = []
    result = bench_faults(
        25_050, (0.0, 1e-4, 2e-3), 3, lambda done, total, _: steps.append((done, total))
    )
    clean, light, heavy = result["rates"]
    assert result["passed"]
    assert clean["frames_lost"] == clean["bytes_dropped"] == 0
    assert 0.08 < light["frames_lost"] / light["frames"] < 0.18  # 661 bytes, 2e-4 each
    assert heavy["frames_lost"] > 20_000
    assert [row[promise] for row in result["rates"] for promise in PROMISES] == [0] * 9
    assert steps[-1] == (3 * 25_050, 3 * 25_050)
    assert "every promise kept: yes" in text(result)


def test_the_same_seed_damages_the_same_bytes():
    first, again, other = (bench_faults(300, (1e-3,), seed)["rates"][0] for seed in (1, 1, 2))
    same = ("bytes_dropped", "bytes_flipped", "frames_lost")
    assert [first[name] for name in same] == [again[name] for name in same]
    assert [first[name] for name in same] != [other[name] for name in same]


def test_a_frame_that_was_never_sent_is_found():
    trial = Trial(0.0, np.random.default_rng(0))
    sent = dict(trial._make(4))
    forged = sent[FrameType.DATA, 2]._replace(time_us=1)
    line = [sent[FrameType.DATA, 0], forged, sent[FrameType.DATA, 3], sent[FrameType.DATA, 3]]
    accepted = trial._arrive(b"".join(map(encode, line)), dict(sent))
    assert accepted == {(FrameType.DATA, 0), (FrameType.DATA, 3)}
    assert trial._counts["undetected"] == 2  # the forged one, and the second of the same
    assert trial._counts["gaps_wrong"] == 0


def test_a_gap_that_is_not_what_is_missing_is_found():
    trial = Trial(0.0, np.random.default_rng(0))
    sent = dict(trial._make(3))
    trial._reassembler.expect(1, 20)  # as if a declaration had skipped the first frame
    trial._arrive(encode(sent[FrameType.DATA, 1]), dict(sent))
    assert trial._counts["gaps_wrong"] == 1


def test_a_clean_frame_that_is_not_accepted_is_found():
    trial = Trial(0.0, np.random.default_rng(0))
    trial._decoder.feed(b"\1")  # what a receiver that had not resynchronised would hold
    trial.send(5)
    assert trial._counts["recovery_violations"] == 1
    assert trial.finish()["frames_lost"] == 0  # it was the declaration

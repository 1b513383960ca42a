"""Bands that sit turned or mirrored are brought to the training users', and only by profiles."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embridge.device.electrodes import (
    Band,
    Signature,
    align,
    fit_band,
    log_power,
    orders,
    reordered,
)
from embridge.device.errors import ConfigError
from embridge.device.frontend import FrontEnd, UserProfile, fit_profile, fit_signature
from embridge.device.live import calibrate
from embridge.device.manifest import InputSpec
from embridge.firmware_bridge import Block, Gap, Item, LinkStats, StreamInfo

RATE_HZ, RING, CHANNELS = 100.0, 8, 10
WINDOW = 50  # half a second, over which electrodes are compared
CHOICES = orders(RING, CHANNELS, reflect=True)
LEVEL = np.r_[np.sin(np.arange(RING)) + 0.4 * np.arange(RING), 0, 1]  # no symmetry
AROUND = np.abs((np.arange(RING) - np.array([[1.0], [2.8], [6.1]]) + 4) % RING - 4)  # from muscles
REACH = np.c_[np.exp(-AROUND / [[0.7], [1.1], [1.6]]), [[0, 0], [0.5, 0], [0, 1]]]  # of 3 muscles
Array = NDArray[np.float32]


def worn(seed: int, turn: int = 0, seconds: float = 30) -> Array:
    """Envelopes (T, C) of one wearer, channels in the order CHOICES[turn]; whole numbers."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE_HZ / WINDOW)
    windows = (
        LEVEL + rng.standard_normal((count, 3)) @ REACH + rng.normal(0, 0.1, (count, CHANNELS))
    )
    emg = np.exp(np.repeat(windows, WINDOW, axis=0) / 2) * rng.uniform(0.9, 1.1, (1, CHANNELS))
    return np.round(100 * emg)[:, list(CHOICES[turn])].astype(np.float32)


@pytest.fixture(scope="module")
def front_end() -> FrontEnd:
    """Fitted to five training users, two of whom wear the band another way."""
    users = [worn(seed, turn) for seed, turn in enumerate((0, 0, 3, 0, 12))]
    everyone = np.concatenate(users)
    bare = FrontEnd(
        rate_hz=RATE_HZ,
        sos=[],
        compression="none",
        compression_floor=1.0,
        offset=everyone.mean(axis=0).tolist(),
        scale=everyone.std(axis=0).tolist(),
    )
    band = fit_band([fit_signature(bare, [user]) for user in users], RING, reflect=True)
    return bare.model_copy(update={"band": band})


def combined(turn: int, order: list[int] | tuple[int, ...]) -> list[int]:
    """Which of the upright channels each place then holds."""
    return [CHOICES[turn][channel] for channel in order]


def test_choices_are_the_turns_and_mirrored_turns_of_the_ring() -> None:
    assert CHOICES[0] == tuple(range(CHANNELS))
    assert len(set(CHOICES)) == 2 * RING
    assert orders(RING, CHANNELS, reflect=False) == CHOICES[:RING]
    for choice in CHOICES:
        assert choice[RING:] == (8, 9)
        steps = {(b - a) % RING for a, b in pairwise(choice[:RING])}
        assert steps in ({1}, {RING - 1})


def test_log_power_is_the_log_of_the_mean_square_above_a_floor() -> None:
    windows = np.random.default_rng(0).standard_normal((4, 3, 20)).astype(np.float32)
    expected = np.log((windows.astype(np.float64) ** 2).mean(axis=2) + 0.1 * 7.0)
    assert log_power(windows, 7.0) == pytest.approx(expected)


@given(st.integers(0, len(CHOICES) - 1), st.integers(0, 2**32 - 1))
def test_a_signature_in_another_order_is_that_of_the_reordered_channels(
    turn: int, seed: int
) -> None:
    log = np.random.default_rng(seed).standard_normal((40, CHANNELS))
    turned = Signature.of(log[:, list(CHOICES[turn])])
    expected = turned.vector(CHOICES[0])
    assert Signature.of(log).vector(CHOICES[turn]) == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30)
@given(st.lists(st.integers(0, len(CHOICES) - 1), max_size=2), st.integers(0, 1000))
def test_training_users_are_brought_to_the_way_that_most_wear_the_band(
    others: list[int], seed: int
) -> None:
    turns = [0, 0, *others, 0, 0]
    logs = [
        np.log(worn(seed + number, turn)[::WINDOW].astype(np.float64))
        for number, turn in enumerate(turns)
    ]
    _, found = align([Signature.of(log) for log in logs], CHOICES)
    upright = {tuple(combined(t, order)) for t, order in zip(turns, found, strict=True)}
    assert upright == {CHOICES[0]}
    turned_back = reordered(logs[0], found[0])
    assert np.array_equal(turned_back, logs[0][:, list(found[0])])


@settings(max_examples=40)
@given(turn=st.integers(0, len(CHOICES) - 1), seed=st.integers(100, 2**32 - 1))
def test_a_turned_or_mirrored_band_is_turned_back(front_end, turn: int, seed: int) -> None:
    upright = fit_profile(front_end, "a", [worn(seed)])
    other = fit_profile(front_end, "a", [worn(seed, turn)])
    assert upright.order is not None
    assert other.order is not None
    assert combined(turn, other.order) == upright.order
    moved = front_end.normalise(worn(seed, turn), other)
    assert np.allclose(moved, front_end.normalise(worn(seed), upright), atol=1e-6)


def test_a_mirrored_band_stays_mirrored_where_only_turns_are_looked_for(front_end) -> None:
    users = [fit_signature(front_end, [worn(seed)]) for seed in range(4)]
    band = fit_band(users, RING, reflect=False)
    mirrored = band.order(fit_signature(front_end, [worn(9, turn=10)]))
    assert mirrored in CHOICES[:RING]
    assert band.order(fit_signature(front_end, [worn(9, turn=3)])) == CHOICES[RING - 3]


@settings(max_examples=40)
@given(st.lists(st.integers(WINDOW, 2000), max_size=20), st.integers(0, len(CHOICES) - 1))
def test_blocks_of_any_length_from_one_window_on_give_the_same_order(
    front_end, lengths: list[int], turn: int
) -> None:
    emg = worn(7, turn)
    cuts = [cut for cut in np.cumsum(lengths) if cut <= len(emg) - WINDOW]
    whole = fit_profile(front_end, "a", [emg])
    assert fit_profile(front_end, "a", np.split(emg, cuts)).order == whole.order


def test_a_band_is_carried_by_the_front_end_through_json(front_end) -> None:
    again = FrontEnd.model_validate_json(front_end.model_dump_json())
    assert again == front_end
    assert isinstance(again.band, Band)
    assert fit_profile(again, "a", [worn(5, 6)]) == fit_profile(front_end, "a", [worn(5, 6)])
    old = front_end.model_dump(exclude={"band"})
    assert FrontEnd.model_validate(old).band is None  # a front-end from before there were bands


def test_the_order_is_taken_after_each_electrode_is_scaled_by_its_own_numbers(front_end) -> None:
    emg = worn(5, 6)
    profile = fit_profile(front_end, "a", [emg])
    assert profile.offset == pytest.approx(emg.mean(axis=0, dtype=np.float64).tolist())
    own = np.clip((emg - np.float32(profile.offset)) / np.float32(profile.scale), -5, 5)
    assert profile.order is not None
    assert profile.order != sorted(profile.order)
    assert np.array_equal(front_end.normalise(emg, profile), own[:, profile.order])


def test_without_a_profile_electrodes_stay_where_they_are(front_end) -> None:
    emg = worn(5, 6)
    in_place = front_end.model_copy(update={"band": None})
    assert np.array_equal(front_end.normalise(emg), in_place.normalise(emg))
    assert fit_profile(in_place, "a", [emg]).order is None


@pytest.mark.parametrize("order", [[0] * CHANNELS, list(range(9)), list(range(1, 11))])
def test_an_order_that_is_not_one_of_all_electrodes_is_refused_in_one_line(
    front_end, order: list[int]
) -> None:
    profile = fit_profile(front_end, "anna", [worn(5)])
    assert profile.check(front_end) is profile
    wrong = UserProfile.model_validate(profile.model_dump() | {"order": order})
    with pytest.raises(ConfigError, match="profile of anna: expected each of 10 elec") as error:
        wrong.check(front_end)
    assert "\n" not in str(error.value)


class Tape:
    """A wrist that plays samples (T, C) in blocks of so many rows, or loses them (None)."""

    how = ""

    def __init__(self, parts: list[Array | int], rows: int) -> None:
        """parts: samples, or how many were lost."""
        self.info = StreamInfo(CHANNELS, RATE_HZ, rows, "V", 1.0, 1, envelope=True)
        self.stats = LinkStats()
        self._parts, self._rows = parts, rows

    def blocks(self) -> Iterator[Item]:
        at = 0
        for part in self._parts:
            if isinstance(part, int):
                yield Gap(at, part)
                at += part
                continue
            for first in range(0, len(part), self._rows):
                samples = part[first : first + self._rows].astype(np.int16)
                yield Block(at + first, samples, 0.0, 0)
            at += len(part)

    def stop(self) -> None:
        """It ends by itself."""

    def __enter__(self) -> "Tape":
        return self

    def __exit__(self, *_: object) -> None:
        pass


SPEC = InputSpec(
    channels=CHANNELS, rate_hz=RATE_HZ, window=WINDOW, hop=10, unit="V", is_envelope=True
)


@pytest.mark.parametrize("rows", [3, 20, 70])
def test_calibration_at_the_wrist_gives_the_profile_that_training_would(
    front_end, rows: int
) -> None:
    """However few samples come at a time."""
    emg = worn(8, 5)
    profile = calibrate(front_end, SPEC, Tape([emg], rows), "ada", len(emg) / RATE_HZ)
    expected = fit_profile(front_end, "ada", [emg])
    assert profile.order == expected.order
    assert profile.seconds == expected.seconds
    assert profile.offset == pytest.approx(expected.offset)
    assert profile.scale == pytest.approx(expected.scale)
    signature = fit_signature(front_end, [emg])
    assert front_end.band.order(signature) == tuple(profile.order)


def test_electrodes_are_not_compared_across_what_was_lost(front_end) -> None:
    """Half a window before each loss, worn otherwise: joined with the next it would be seen."""
    held, before = np.split(worn(8, 5), 60), np.split(20 * worn(9, 11), 60)
    pieces = [np.concatenate([a, b[:25]]) for a, b in zip(held, before, strict=True)]
    parts = [part for piece in pieces for part in (piece, 7)]
    profile = calibrate(front_end, SPEC, Tape(parts, 20), "ada", 60 * 0.75)
    assert profile == fit_profile(front_end, "ada", pieces)
    assert profile.order == fit_profile(front_end, "ada", held).order
    assert profile.order != fit_profile(front_end, "ada", [np.concatenate(pieces)]).order

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge.training.augment import jitter, mixtures, rotate
from embridge.training.part import Part


def windows(channels: int, count: int = 200) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, channels, 5), np.float32)


def test_whole_turns_roll_the_ring_by_minus_one_zero_or_one_about_equally_often() -> None:
    emg = windows(16, 3000)
    turned = rotate(emg, 16, 1, np.random.default_rng(1), whole=True)
    rolls = [np.roll(emg, -turn, axis=1) for turn in (-1, 0, 1)]
    same = np.stack([(turned == rolled).all(axis=(1, 2)) for rolled in rolls])
    assert (same.sum(axis=0) == 1).all()
    np.testing.assert_allclose(same.mean(axis=1), 1 / 3, atol=0.05)


def test_channels_beyond_the_last_full_ring_stay() -> None:
    emg = windows(10)
    turned = rotate(emg, 8, 1, np.random.default_rng(1), whole=False)
    np.testing.assert_array_equal(turned[:, 8:], emg[:, 8:])
    assert not np.array_equal(turned[:, :8], emg[:, :8])


def test_two_rings_turn_together() -> None:
    emg = windows(8)
    both = rotate(np.concatenate([emg, emg], 1), 8, 1, np.random.default_rng(1), whole=False)
    np.testing.assert_array_equal(both[:, :8], both[:, 8:])


@given(most=st.floats(0.1, 3), seed=st.integers(0, 99))
def test_an_interpolated_turn_keeps_a_pattern_that_is_the_same_all_around(
    most: float, seed: int
) -> None:
    emg = np.ones((20, 8, 3), np.float32)
    turned = rotate(emg, 8, most, np.random.default_rng(seed), whole=False)
    np.testing.assert_allclose(turned, emg, rtol=1e-6)


@pytest.mark.parametrize("amount", [0.0, 0.3])
def test_jitter_is_constant_over_a_window_and_as_large_as_asked(amount: float) -> None:
    emg = np.zeros((500, 8, 5), np.float32)
    moved = jitter(emg, amount, np.random.default_rng(0))
    assert (moved == moved[:, :, :1]).all()
    assert moved.std() == pytest.approx(amount, abs=0.02)


def test_a_mixture_lies_on_the_line_through_both_windows_within_half_a_step_of_them() -> None:
    emg, others = windows(4, 500), windows(4, 500)[::-1].copy()
    mixed = mixtures(emg, others, np.random.default_rng(1))
    step = (emg - others).reshape(500, -1)
    share = np.einsum("bi,bi->b", (mixed - others).reshape(500, -1), step) / (step**2).sum(axis=1)
    np.testing.assert_allclose(
        mixed, others + share[:, None, None] * (emg - others), rtol=1e-4, atol=1e-4
    )
    assert -0.5 <= share.min() < -0.4
    assert 1.4 < share.max() <= 1.5


def test_two_processes_mix_as_one_does() -> None:
    emg, others = windows(4, 6), windows(4, 6)[::-1].copy()
    whole = mixtures(emg, others, np.random.default_rng(1))
    for part in (Part(0, 2), Part(1, 2)):
        own = mixtures(part.of(emg), part.of(others), np.random.default_rng(1), part)
        np.testing.assert_array_equal(own, part.of(whole))

"""Less training data: the same share of every user and gesture, nested, by whole stretches."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge.training.less_data import part_of
from embridge.training.windows import WindowSet


def windows_of(users: int, gestures: int, trials: int, per_trial: int, hop: int = 20) -> WindowSet:
    u, g, t, w = np.indices((users, gestures, trials, per_trial)).reshape(4, -1)
    trial = (u * gestures + g) * trials + t
    names = tuple(f"s{n}" for n in range(users))
    return WindowSet([], 40, 0 * u, hop * w, g, u, trial, names)


def rows(windows: WindowSet) -> set[tuple[int, int]]:
    return {(int(t), int(s)) for t, s in zip(windows.trial, windows.start, strict=True)}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    trials=st.integers(1, 12),
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
)
def test_a_smaller_share_is_a_subset_of_a_larger_one(
    seed: int, trials: int, shares: list[float]
) -> None:
    windows = windows_of(3, 4, trials, 30)
    small, large = (rows(part_of(windows, share, seed)) for share in shares)
    assert small <= large <= rows(windows)


def test_stretches_stay_whole_where_there_are_enough() -> None:
    windows = windows_of(2, 3, 10, 7)
    kept = part_of(windows, 0.4, seed=0)
    trials, count = np.unique(kept.trial, return_counts=True)
    assert len(trials) == 2 * 3 * 4
    assert set(count.tolist()) == {7}
    assert np.unique(kept.user * 10 + kept.label).size == 6


def test_few_long_stretches_are_shortened() -> None:
    """One minute of each gesture, as in emg2pose: 40 % of it, not the whole or nothing."""
    windows = windows_of(2, 3, 1, 400)
    kept = part_of(windows, 0.4, seed=0)
    assert len(kept) == pytest.approx(0.4 * len(windows), rel=0.03)
    assert np.unique(kept.user * 10 + kept.label).size == 6


def test_no_gesture_disappears_and_all_is_all() -> None:
    windows = windows_of(2, 3, 6, 5)
    least = part_of(windows, 0.001, seed=0)
    assert np.unique(least.trial).size == 6
    assert part_of(windows, 1.0, seed=0) is windows


def test_the_choice_depends_on_the_seed_and_not_on_other_users() -> None:
    few, many = windows_of(2, 3, 10, 5), windows_of(5, 3, 10, 5)
    first = rows(part_of(few, 0.4, seed=0))
    assert first == rows(part_of(few, 0.4, seed=0))
    assert first != rows(part_of(few, 0.4, seed=1))
    everyone = part_of(many, 0.4, seed=0)
    assert first == rows(everyone.select(everyone.user < 2))

"""Scores: balanced accuracy as everyone computes it, and intervals that mean something."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import balanced_accuracy_score

from embridge.device.decision import Gallery
from embridge.training import evaluate
from embridge.training.windows import WindowSet

LABELS = ("rest", "fist", "pinch", "point")
seeds = st.integers(0, 2**32 - 1)


def windows_of(
    label: NDArray[np.int64], user: NDArray[np.int64], trial: NDArray[np.int64]
) -> WindowSet:
    count = len(label)
    number = np.zeros(count, np.int64)
    users = tuple(f"u{i}" for i in range(int(user.max(initial=0)) + 1))
    return WindowSet([], 40, number, 20 * np.arange(count), label, user, trial, users)


def grid(users: int, classes: int, trials: int, windows: int) -> WindowSet:
    """Every user makes every gesture `trials` times, `windows` windows each."""
    u, c, t, _ = np.indices((users, classes, trials, windows)).reshape(4, -1)
    return windows_of(c, u, (u * classes + c) * trials + t)


def scored(windows: WindowSet, right: NDArray[np.bool_]) -> evaluate.Score:
    """A wrong prediction is a label that is never the truth."""
    return evaluate.score(windows, np.where(right, windows.label, 99), LABELS, 4)


@given(seed=seeds, count=st.integers(1, 200))
def test_balanced_accuracy_is_that_of_scikit_learn(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    label = rng.choice(4, count, p=[0.6, 0.2, 0.15, 0.05])
    predicted = np.where(rng.random(count) < 0.5, label, rng.integers(4, size=count))
    windows = windows_of(label, rng.integers(3, size=count), rng.integers(9, size=count))
    found = evaluate.score(windows, predicted, LABELS, 4)
    with warnings.catch_warnings():  # labels that were predicted and never occur
        warnings.simplefilter("ignore", UserWarning)
        expected = balanced_accuracy_score(label, predicted)
    assert found.balanced_accuracy == pytest.approx(expected)
    assert found.windows == count
    assert found.per_class.keys() == {LABELS[c] for c in label}
    for number, name in enumerate(LABELS):
        if name in found.per_class:
            assert found.per_class[name] == np.mean(predicted[label == number] == number)


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds,
    users=st.integers(1, 8),
    classes=st.integers(1, 4),
    trials=st.integers(1, 4),
    share=st.floats(0, 1),
)
def test_the_interval_contains_the_point_estimate(
    seed: int, users: int, classes: int, trials: int, share: float
) -> None:
    windows = grid(users, classes, trials, 10)
    right = np.random.default_rng(seed).random(len(windows)) < share
    found = scored(windows, right)
    low, high = found.ci95
    assert 0 <= low <= found.balanced_accuracy + 1e-12
    assert found.balanced_accuracy - 1e-12 <= high <= 1


def test_the_interval_is_deterministic() -> None:
    windows = grid(5, 4, 3, 10)
    right = np.random.default_rng(0).random(len(windows)) < 0.6
    assert scored(windows, right) == scored(windows, right)


def test_always_right_is_one_and_never_right_is_nothing() -> None:
    windows = grid(4, 4, 2, 5)
    everything = np.ones(len(windows), bool)
    assert scored(windows, everything).ci95 == pytest.approx((1, 1))
    assert scored(windows, everything).balanced_accuracy == 1
    assert scored(windows, ~everything).ci95 == (0, 0)
    assert scored(windows, ~everything).balanced_accuracy == 0


def test_guessing_scores_chance_and_one_answer_for_everything_too() -> None:
    windows = grid(6, 4, 5, 40)
    guess = np.random.default_rng(0).integers(4, size=len(windows))
    found = evaluate.score(windows, guess, LABELS, 4)
    assert found.chance == 0.25
    assert found.ci95[0] < 0.25 < found.ci95[1]
    rare = windows.select((windows.label == 2) | (np.arange(len(windows)) % 50 == 0))
    same = evaluate.score(rare, np.full(len(rare), 2), LABELS, 4)
    assert same.balanced_accuracy == 0.25


def width(users: int, trials: int, windows: int = 10, seed: int = 0) -> float:
    """Of users that differ from each other, and trials that do within each."""
    rng = np.random.default_rng(seed)
    cells = grid(users, 4, trials, windows)
    skill = rng.normal(0.6, 0.15, users)[cells.user]
    luck = rng.normal(0, 0.25, cells.trial.max() + 1)[cells.trial]
    low, high = scored(cells, rng.random(len(cells)) < skill + luck).ci95
    return high - low


def test_the_interval_widens_with_fewer_users_and_with_fewer_trials() -> None:
    def mean(users: int, trials: int) -> float:
        return float(np.mean([width(users, trials, seed=seed) for seed in range(6)]))

    assert mean(3, 4) > 1.3 * mean(12, 4)
    assert mean(1, 4) > 1.5 * mean(1, 20)


def test_more_windows_of_the_same_trials_do_not_narrow_the_interval() -> None:
    """Neighbouring windows overlap: ten times as many hold no more trials."""
    few = np.mean([width(3, 4, 10, seed) for seed in range(6)])
    many = np.mean([width(3, 4, 100, seed) for seed in range(6)])
    assert many > 0.75 * few


def test_one_trial_per_gesture_is_resampled_in_stretches_of_a_window() -> None:
    """Else a single user's interval would have no width at all."""
    windows = grid(1, 4, 1, 30)
    right = np.random.default_rng(0).random(len(windows)) < 0.5
    low, high = scored(windows, right).ci95
    assert 0.05 < high - low < 0.5


def test_a_gesture_that_only_one_user_made_counts_as_much_as_the_others() -> None:
    windows = grid(4, 4, 2, 10).select((u := grid(4, 4, 2, 10)).user * (u.label == 3) == 0)
    found = scored(windows, windows.label != 3)
    assert found.balanced_accuracy == 0.75
    assert found.ci95[0] <= 0.75 <= found.ci95[1]


def test_a_score_is_plain_json() -> None:
    windows = grid(2, 4, 2, 3)
    found = scored(windows, windows.user == 0)
    assert json.loads(json.dumps(found.json())) == {
        "balanced_accuracy": 0.5,
        "ci95": list(found.ci95),
        "chance": 0.25,
        "windows": 48,
        "per_class": dict.fromkeys(LABELS, 0.5),
    }


def a_test_set(windows: WindowSet) -> evaluate.TestSet:
    groups = {"seen": ["fist", "pinch"], "unseen": ["point"], "all": ["fist", "pinch", "point"]}
    return evaluate.TestSet(
        lambda index: np.zeros((len(index), 1, 1), np.float32), windows, "T0", groups, LABELS
    )


def test_zero_shot_compares_each_group_with_its_own_poses_only() -> None:
    """Queries that lie at rest's pose are right within a group of one and lost among all."""
    vectors = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.1, 0, 0, 1]], float)
    gallery = Gallery(vectors, np.arange(4), LABELS)
    windows = grid(2, 4, 2, 5)
    queries = vectors[windows.label]
    queries[windows.label == 3] = [0.9, 0.9, 0, 0.2]
    scores = evaluate.zero_shot(a_test_set(windows), queries, gallery, k=1)
    assert {group: score.balanced_accuracy for group, score in scores.items()} == {
        "seen": 1.0,
        "unseen": 1.0,
        "all": pytest.approx(2 / 3),
    }
    assert [scores[g].chance for g in ("seen", "unseen", "all")] == [1 / 2, 1, pytest.approx(1 / 3)]
    assert [scores[g].windows for g in ("seen", "unseen", "all")] == [40, 20, 60]
    assert "rest" not in scores["all"].per_class


def test_a_group_without_windows_has_no_score() -> None:
    windows = grid(2, 4, 1, 2)
    windows = windows.select(windows.label == 1)
    gallery = Gallery(np.eye(4), np.arange(4), LABELS)
    scores = evaluate.zero_shot(a_test_set(windows), np.eye(4)[windows.label], gallery, k=1)
    assert scores.keys() == {"seen", "all"}


def test_cosines_of_matching_rows() -> None:
    a = np.array([[1, 0], [3, 4], [0, 0]], np.int8)
    b = np.array([[2, 0], [4, -3], [1, 1]], np.float32)
    found = evaluate.cosine(a, b)
    assert found == pytest.approx({"mean": 1 / 3, "p01": 0, "min": 0})
    assert evaluate.cosine(a[:2], 5 * a[:2])["min"] == pytest.approx(1)

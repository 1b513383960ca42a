"""Figures and decisions of the zero-shot table, against values worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge.device.decision import Gallery, Voter
from embridge.training.table.decide import Decided, decide, vote_of_runs
from embridge.training.table.scores import (
    balanced_accuracy,
    difference,
    figure,
    figure_of_users,
    harmonic_mean,
)


def confusion(**cells):
    """Counts (12, 12) from t3d5=2: gesture 3 decided as 5, twice."""
    counts = np.zeros((12, 12), np.int64)
    for name, number in cells.items():
        true, decided = name[1:].split("d")
        counts[int(true) - 1, int(decided) - 1] = number
    return counts


def chosen(queries, poses, labels, *, by="class_means", **options):
    return decide(
        np.asarray(queries, float),
        np.asarray(poses, float),
        np.asarray(labels),
        by=by,
        **options,
    ).gesture.tolist()


def test_balanced_accuracy_is_the_mean_recall_of_the_gestures_that_come_up():
    counts = confusion(t1d1=9, t1d4=1, t4d4=1, t4d1=3)  # recalls .9 and .25
    assert balanced_accuracy(counts) == pytest.approx((0.9 + 0.25) / 2)
    only_first = np.arange(12) == 0
    assert balanced_accuracy(counts, only_first) == pytest.approx(0.9)
    assert np.isnan(balanced_accuracy(counts, np.arange(12) == 7))


def test_harmonic_mean_punishes_a_bias_to_seen_gestures():
    seen, unseen = np.array([0.6, 0.3, 0.0, 0.8]), np.array([0.2, 0.3, 0.0, 0.0])
    assert harmonic_mean(seen, unseen) == pytest.approx([0.3, 0.3, 0.0, 0.0])


def test_a_figure_averages_seeds_and_folds_of_a_user_first():
    values = np.array([[[0.2, 0.4, np.nan], [0.9, 0.9, 0.9]]])  # S U F
    result = figure(values)
    assert result.per_user == pytest.approx((0.3, 0.9))
    assert result.mean == pytest.approx(0.6)


def test_the_interval_is_of_users_drawn_with_replacement():
    users = np.array([0.1, 0.2, 0.3, 0.4])
    result = figure_of_users(users)
    spread = users.std() / 2  # of a mean of four
    assert result.ci95[1] - result.ci95[0] == pytest.approx(2 * 1.96 * spread, rel=0.15)
    assert figure_of_users(users) == result  # the same draws every time
    assert figure_of_users(np.full(4, 0.3)).ci95 == pytest.approx((0.3, 0.3))


def test_a_gain_is_taken_user_by_user():
    better = difference(
        figure_of_users(np.array([0.3, 0.5, 0.7])), figure_of_users(np.array([0.2, 0.4, 0.6]))
    )
    assert better.mean == pytest.approx(0.1)
    assert better.ci95 == pytest.approx((0.1, 0.1))  # each user gains the same, far as they differ


def test_class_means_are_of_unit_length_poses():
    # One long pose of gesture 2 must not drown the short ones.
    poses, labels = [[0, 100], [1, 0], [1, 0], [-1, 1]], [2, 2, 2, 5]
    assert chosen([[1, 0.1], [-1, 1], [1, 0.9]], poses, labels) == [2, 5, 2]


def test_a_penalty_on_seen_gestures_lets_unseen_ones_win_close_calls():
    poses, labels = [[1, 0], [0, 1]], [1, 2]
    close, handicap = [[1, 0.9]], {"penalty": np.array([0.2]), "penalised": (1,)}
    assert chosen(close, poses, labels) == [1]
    assert chosen(close, poses, labels, **handicap) == [2]
    crowd = poses * 10, labels * 10
    assert chosen(close, *crowd, by="knn") == [1]
    assert chosen(close, *crowd, **handicap, by="knn") == [2]


def test_centring_removes_what_all_classes_share():
    poses, labels = [[10, 1], [10, -1]], [1, 2]
    assert chosen([[10, 0.5], [10, -0.5]], poses, labels, centred=True) == [1, 2]


def test_the_best_of_several_queries_counts():
    poses, labels = [[1, 0, 0], [0, 1, 0]], [1, 2]
    assert chosen([[[0.7, 0.7, 1], [0, 1, 0]]], poses, labels) == [2]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_knn_decides_as_the_device_does(seed):
    rng = np.random.default_rng(seed)
    poses, labels = rng.standard_normal((60, 3)), rng.integers(1, 5, 60)
    queries = rng.standard_normal((20, 2, 3))
    voter = Voter(Gallery(poses, labels, tuple("abcde")), 10)
    assert chosen(queries, poses, labels, by="knn") == [voter.vote(q).label for q in queries]


def test_a_repetition_is_decided_by_most_windows_then_by_similarity():
    decided = Decided(np.array([3, 3, 5, 7, 9, 9]), np.array([0.1, 0.1, 0.9, 0.2, 0.1, 0.3]))
    run = np.array([4, 4, 4, 8, 8, 8])
    assert vote_of_runs(decided, run).tolist() == [3, 9]
    tie = Decided(np.array([3, 5]), np.array([0.2, 0.4]))
    assert vote_of_runs(tie, np.array([1, 1])).tolist() == [5]

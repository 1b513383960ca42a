"""Zero-shot figures of an encoder: hand-computed votes, means and chances."""

import json

import numpy as np
import pytest

from embridge.device.decision import Gallery
from embridge.training import evaluate
from embridge.training.paper.confusion import (
    Truth,
    accuracy,
    cautions,
    confusion,
    over_users,
    recall_of,
)
from embridge.training.paper.zero_shot import ROWS, RULES, ZeroShot, measure_zero_shot
from embridge.training.table.decide import Decided
from embridge.training.windows import WindowSet

LABELS = ("rest", "fist", "point", "pinch", "horns")
SEEN, UNSEEN = ("fist", "point"), ("pinch", "horns")


def truth_of(label: list[int], user: list[int], run: list[int]) -> Truth:
    users = tuple(f"u{n}" for n in range(max(user) + 1))
    columns = [np.array(values, np.int64) for values in (user, label, run)]
    return Truth(users, *columns, np.arange(len(label)))


def test_a_repetition_is_decided_by_most_of_its_windows_then_by_similarity() -> None:
    truth = truth_of(label=[1, 1, 1, 2, 2], user=[0] * 5, run=[7, 7, 7, 9, 9])
    decided = Decided(np.array([1, 2, 1, 1, 2]), np.array([0.1, 0.9, 0.1, 0.2, 0.3]))
    windows, repetitions = confusion(truth, decided, 3)
    assert windows[0].tolist() == [[0, 0, 0], [0, 2, 1], [0, 1, 1]]
    assert repetitions[0].tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 1]]  # 9: a tie, 0.3 > 0.2
    assert accuracy(windows, truth.users).mean == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert accuracy(repetitions, truth.users).mean == 1
    assert recall_of(windows, ("a", "b", "c")) == {"b": pytest.approx(2 / 3), "c": 0.5}


def test_no_windows_make_no_counts() -> None:
    nothing = np.zeros(0, np.int64)
    truth = Truth(("u0",), nothing, nothing, nothing, nothing)
    assert not confusion(truth, Decided(nothing, np.zeros(0)), 3).any()


def test_a_user_without_any_of_the_gestures_does_not_count() -> None:
    found = over_users(np.array([0.2, np.nan, 0.4]), ("a", "b", "c"))
    assert found is not None
    assert found.mean == pytest.approx(0.3)
    assert found.per_user == {"a": 0.2, "c": 0.4}
    assert found.ci95 == (0.2, 0.4)
    assert over_users(np.array([np.nan]), ("a",)) is None


def generalised(counts: dict[int, list[list[int]]]) -> ZeroShot:
    """Windows of users by (true, decided) pairs, all gestures competing."""
    table = np.zeros((2, 3, 2, len(counts), 5, 5), np.int64)
    for user, pairs in counts.items():
        for true, decided in pairs:
            table[:, 2, :, user, true, decided] += 1
    return ZeroShot(tuple(f"u{n}" for n in counts), LABELS, SEEN, UNSEEN, 10, table)


def test_the_harmonic_mean_is_taken_per_user_and_then_averaged() -> None:
    """u0: seen 1/2, unseen 1: 2/3. u1: seen 1, unseen 0: 0. Of the means it would be .6."""
    shot = generalised({0: [[1, 1], [2, 1], [3, 3], [4, 4]], 1: [[1, 1], [2, 2], [3, 1], [4, 2]]})
    found = shot.figures()
    assert found["generalised seen"].mean == 0.75
    assert found["generalised unseen"].mean == 0.5
    assert found["harmonic mean"].per_user == {"u0": pytest.approx(2 / 3), "u1": 0}
    assert found["harmonic mean"].mean == pytest.approx(1 / 3)


def test_a_user_with_seen_gestures_only_has_no_harmonic_mean() -> None:
    found = generalised({0: [[1, 1], [3, 3]], 1: [[1, 1]]}).figures()
    assert found["harmonic mean"].per_user == {"u0": 1}
    assert found["generalised seen"].per_user.keys() == {"u0", "u1"}
    assert "seen" not in found


def test_chance_is_one_in_those_that_compete() -> None:
    shot = generalised({0: [[1, 1]]})
    assert [shot.chance(row) for row in ROWS] == [1 / 2, 1 / 2, 1 / 4, 1 / 4, None]


def a_test_set(windows: WindowSet) -> evaluate.TestSet:
    groups = {"seen": list(SEEN), "unseen": list(UNSEEN), "all": [*SEEN, *UNSEEN]}
    return evaluate.TestSet(
        lambda index: np.zeros((len(index), 1, 1), np.float32), windows, "T1", groups, LABELS
    )


def test_measured_as_the_device_decides() -> None:
    """ "horns" lies nearer to "fist" than to its own pose: right only among the unseen ones."""
    vectors = np.eye(5)
    u, c, w = np.indices((2, 4, 3)).reshape(3, -1)
    label = c + 1
    windows = WindowSet([], 40, 0 * u, 20 * w, label, u, 4 * u + c, ("a", "b"))
    queries = vectors[label]
    queries[label == 4] = [0, 1, 0, 0, 0.9]
    test, gallery = a_test_set(windows), Gallery(vectors, np.arange(5), LABELS)
    shot = measure_zero_shot(test, queries, gallery, k=1)
    for rule in RULES:
        for unit in ("windows", "repetitions"):
            found = {row: figure.mean for row, figure in shot.figures(rule, unit).items()}
            assert found == {
                "seen": 1,
                "unseen": 1,
                "generalised seen": 1,
                "generalised unseen": 0.5,
                "harmonic mean": pytest.approx(2 / 3),
            }
    assert shot.recalls("generalised")["horns"] == 0
    assert shot.confusion("generalised")[:, 4, 1].tolist() == [3, 3]
    scores = evaluate.zero_shot(test, queries, gallery, k=1)
    assert scores["all"].balanced_accuracy == pytest.approx(0.75)
    text = shot.text()
    assert "harmonic mean" in text
    assert ["horns", "unseen", "1.000", "0.000"] in [line.split() for line in text.splitlines()]
    assert json.loads(json.dumps(shot.json()))["knn"]["windows"]["seen"]["users"] == 2


def test_few_users_are_said_to_be_few() -> None:
    assert cautions(7) == ["Fewer than 8 users: the intervals are wide and coarse."]
    assert cautions(8) == []

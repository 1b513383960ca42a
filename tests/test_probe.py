"""Linear probe and few-shot: whose labels teach, who is tested."""

import numpy as np
import pytest

from embridge.device.errors import ConfigError
from embridge.training.paper import probe as probing
from embridge.training.paper.confusion import Truth
from embridge.training.paper.probe import (
    Labelled,
    few_shot,
    halves,
    probe_by_halves,
    probe_from,
    thinned,
)

WINDOW, HOP, CLASSES = 40, 20, 3


def labelled(
    users: int = 4, runs: int = 4, per_run: int = 6, noise: float = 0.1, names: str = "s"
) -> Labelled:
    """Every user makes every gesture; features point to the gesture, with noise."""
    u, c, r, w = np.indices((users, CLASSES, runs, per_run)).reshape(4, -1)
    rng = np.random.default_rng(0)
    features = np.eye(CLASSES)[c] + noise * rng.standard_normal((len(c), CLASSES))
    run = (u * CLASSES + c) * runs + r
    people = tuple(f"{names}{n}" for n in range(users))
    return Labelled(features.astype(np.float32), Truth(people, u, c, run, HOP * w))


def test_halves_share_nobody_and_hold_everybody() -> None:
    assert halves(("a", "b", "c")) == (("a", "c"), ("b",))
    with pytest.raises(ConfigError, match="at least 2 users") as error:
        halves(("a",))
    assert "\n" not in str(error.value)


def test_a_probe_refuses_to_be_tested_on_whom_it_learned_from() -> None:
    everyone = labelled()
    with pytest.raises(ConfigError, match="user s1 is among"):
        probe_from(everyone.of_users(["s0", "s1"]), everyone.of_users(["s1"]), CLASSES, "x")


def test_a_gesture_that_no_probe_user_made_is_refused_in_one_line() -> None:
    everyone = labelled()
    few = everyone.of_users(["s0"])
    few = few.select(few.truth.label != 2)
    with pytest.raises(ConfigError, match=r"no probe user \(s0\) made 1 of") as error:
        probe_from(few, everyone.of_users(["s1"]), CLASSES, "x")
    assert "\n" not in str(error.value)


def test_separable_features_are_separated_and_noise_is_not() -> None:
    clear = probe_by_halves(labelled(noise=0.05), CLASSES)
    figure = clear.figure()
    assert figure is not None
    assert figure.mean == 1
    assert set(figure.per_user) == {"s0", "s1", "s2", "s3"}  # everybody is tested once
    assert clear.counts[0].sum() == len(labelled().truth)
    assert clear.counts[1].sum() == 4 * CLASSES * 4  # repetitions
    noisy = probe_by_halves(labelled(noise=50, users=8), CLASSES).figure()
    assert noisy is not None
    assert noisy.mean == pytest.approx(1 / 3, abs=0.12)


def test_nobody_is_tested_with_what_his_own_half_taught() -> None:
    """Features tell gestures apart within a half and mislead across: halves do not leak."""
    everyone = labelled(noise=0.01)
    odd = everyone.truth.user % 2 == 1
    turned = np.where(odd[:, None], np.roll(everyone.features, 1, axis=1), everyone.features)
    found = probe_by_halves(Labelled(turned, everyone.truth), CLASSES).figure()
    assert found is not None
    assert found.mean == 0


def test_probe_users_give_evenly_spaced_windows_and_no_more_than_asked() -> None:
    many = labelled(users=2, runs=1, per_run=200).truth
    chosen = thinned(many)
    assert len(chosen) == 2 * CLASSES * probing.PER_USER_AND_GESTURE
    first = many.start[chosen][(many.user[chosen] == 0) & (many.label[chosen] == 0)]
    assert first[0] == 0
    assert first[-1] == 199 * HOP
    assert set(np.diff(first) // HOP) <= {5, 6}
    few = labelled(users=1, runs=1, per_run=3).truth
    assert np.array_equal(thinned(few), np.arange(9))


def test_few_shots_are_repetitions_where_there_are_some() -> None:
    found = few_shot(labelled(runs=4), WINDOW)
    assert found.unit == "repetitions"
    assert found.figures[1] is not None
    assert found.figures[1].mean > 0.95
    assert found.figures[2] is not None
    assert found.figures[5] is None  # nobody has six repetitions
    assert found.json()["shots"]["5"] is None


def test_few_shots_are_windows_where_nothing_repeats() -> None:
    found = few_shot(labelled(runs=1, per_run=40), WINDOW)
    assert found.unit == "windows"
    assert found.figures[5] is not None
    assert found.figures[5].mean > 0.95


def test_a_window_that_overlaps_one_taught_with_is_not_tested() -> None:
    """Each window is told by its own place alone: only overlapping ones could be known."""
    truth = labelled(users=1, runs=1, per_run=12).truth
    taught = np.array([5])
    hit = probing._overlapping(truth, np.arange(len(truth)), taught, WINDOW)
    assert np.flatnonzero(hit).tolist() == [4, 5, 6]


def test_more_shots_help() -> None:
    found = few_shot(labelled(users=3, runs=8, per_run=3, noise=0.8), WINDOW)
    one, five = found.figures[1], found.figures[5]
    assert one is not None
    assert five is not None
    assert five.mean > one.mean

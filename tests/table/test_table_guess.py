"""Soft labels of an unlabelled calibration: shares that add up, and what they are worth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from embridge.training.table.forward import RidgeToEmg
from embridge.training.table.guess import GestureGuess, balanced
from embridge.training.table.protocol import Tier
from embridge.training.table.referee import judge, training_set, user_data
from embridge.training.table.splits import rotations

RUNS, WINDOWS = 12, 5


def clusters(seed=0, shift=0.0):
    """Windows of runs of three gestures, each far from the others: (emg, label, run)."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(RUNS) % 3 + 4, WINDOWS)
    means = np.array([[0, 0], [4, 0], [0, 4]])[label - 4]
    run = np.repeat(rng.permutation(RUNS), WINDOWS)
    return means + shift + rng.normal(0, 0.5, (len(label), 2)), label, run


@given(arrays(float, (6, 3), elements=st.floats(-5, 0)))
def test_rows_are_shares_and_every_gesture_has_as_much(log):
    shares = balanced(log)
    assert shares.sum(axis=1) == pytest.approx(1)
    assert shares.sum(axis=0) == pytest.approx(2, rel=0.05)


def test_the_order_of_preference_within_a_row_of_equal_columns_stays():
    log = np.log(np.array([[0.6, 0.4], [0.4, 0.6]]))
    assert balanced(log) == pytest.approx(np.exp(log))


def test_a_run_is_guessed_as_one_and_rightly_where_gestures_lie_apart():
    emg, label, _ = clusters()
    guess = GestureGuess.of(emg, label)
    other, truth, run = clusters(seed=1, shift=0.5)
    shares = guess(other, run)
    assert np.array_equal(guess.classes[shares.argmax(axis=1)], truth)
    for number in range(RUNS):
        assert np.ptp(shares[run == number], axis=0).max() == 0


def test_balance_corrects_a_classifier_that_a_shift_has_made_partial():
    emg, label, _ = clusters()
    guess = GestureGuess.of(emg, label)
    other, truth, run = clusters(seed=1, shift=2.2)  # half the way to the other gestures
    alone = guess.classes[guess.model.predict_log_proba(other).argmax(axis=1)]
    together = guess.classes[guess(other, run).argmax(axis=1)]
    assert (alone == truth).mean() < 0.9
    assert (together == truth).mean() > (alone == truth).mean()


def test_guesses_move_the_poses_and_cost_nothing_where_all_is_plain(users):
    split, by_name = rotations([user.user for user in users])[0], {u.user: u for u in users}
    training = training_set(split, by_name)
    method = RidgeToEmg(Tier.T1, guess=True)
    method.fit(training)
    adapted = method.adapt(user_data(by_name["s1"], split.seen, Tier.T1, 0))
    poses = training.gallery.pose
    assert not np.allclose(adapted.embed_pose(poses), method.embed_pose(poses), atol=1e-2)
    plain, guessed = (
        sum(judge(RidgeToEmg(Tier.T1, guess=g), split, by_name, 0).values())[0, 0, 0]
        for g in (False, True)
    )
    assert np.trace(guessed) >= np.trace(plain) - 0.02 * plain.sum()


def test_nobody_can_learn_from_a_user_of_whom_nothing_is_known(users):
    split, by_name = rotations([user.user for user in users])[0], {u.user: u for u in users}
    method = RidgeToEmg(Tier.T1, guess=True)
    method.fit(training_set(split, by_name))
    with pytest.raises(ValueError, match="got tier T0"):
        method.with_own(user_data(by_name["s1"], split.seen, Tier.T0, 0))

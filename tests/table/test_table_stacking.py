"""The handicap of seen gestures: novelty, the gate, and who it is tuned on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge.training.table.decide import decide
from embridge.training.table.forward import RidgeToEmg
from embridge.training.table.novelty import Novelty
from embridge.training.table.protocol import Adapted, Gallery, Tier, TrainSet, UserData
from embridge.training.table.ridge import RidgeToPose
from embridge.training.table.stacking import (
    MAY_LOSE,
    SEEN_ALONE,
    SLOPES,
    Gate,
    Stacked,
    _games,
    tune,
)

SEEN, UNSEEN = (2, 3, 5, 6, 8, 9, 11, 12), (1, 4, 7, 10)
REPETITIONS, WINDOWS = 5, 4


def training(users=4, gestures=SEEN, seed=0):
    """EMG of these gestures, each with its own pattern of ten channels; poses linear in it."""
    rng = np.random.default_rng(seed)
    pattern = rng.normal(0, 0.8, (13, 10))
    mixing = rng.standard_normal((10, 6))
    cells = [
        (user, gesture, repetition)
        for user in range(users)
        for gesture in gestures
        for repetition in range(1, REPETITIONS + 1)
    ]
    user, label, repetition = (np.repeat(column, WINDOWS) for column in zip(*cells, strict=True))
    log = pattern[label] + rng.normal(0, 0.3, (len(label), 10))
    emg = np.exp(np.repeat(log[:, :, None], 5, axis=2)).astype(np.float32)
    pose = np.repeat((log @ mixing)[:, :, None], 5, axis=2).astype(np.float32)
    of_all = np.tile(np.arange(1, 13), users)
    shown = np.repeat((pattern[of_all] @ mixing)[:, :, None], 5, axis=2).astype(np.float32)
    return TrainSet(
        emg=emg, pose=pose, label=label, repetition=repetition,
        run=np.repeat(np.arange(len(cells)), WINDOWS), user=user,
        users=tuple(f"s{n}" for n in range(users)), seen=SEEN, unseen=UNSEEN, rate_hz=100.0, ring=8,
        gallery=Gallery(shown, of_all, np.repeat(np.arange(users), 12)),
    )  # fmt: skip


def test_a_pattern_that_the_calibration_never_showed_is_novel():
    data = training()
    mine = (data.user == 0) & data.calibration
    shown = mine & np.isin(data.label, SEEN[:5])
    novelty = Novelty.of(data.emg[shown], data.run[shown])
    again = (data.user == 0) & ~data.calibration & np.isin(data.label, SEEN[:5])
    never = (data.user == 0) & np.isin(data.label, SEEN[5:])
    assert novelty(data.emg[again]).mean() == pytest.approx(0, abs=0.5)
    assert novelty(data.emg[never]).mean() > 2


@given(
    st.floats(-1, 1),
    st.floats(0, 1),
    st.lists(st.floats(-5, 5), min_size=2).map(sorted),
)
def test_a_gate_is_a_constant_and_a_share_of_novelty_and_grows_with_it(constant, slope, novelty):
    penalty = Gate(constant, slope)(np.array(novelty))
    assert penalty == pytest.approx([constant + slope * each for each in novelty])
    assert (np.diff(penalty) >= 0).all()
    assert Gate(-0.1, slope)(np.zeros(1)) == pytest.approx(-0.1)  # a bonus


@given(st.integers(0, 2**32 - 1))
def test_seen_alone_never_chooses_an_unseen_gesture(seed):
    rng = np.random.default_rng(seed)
    poses, labels = rng.standard_normal((48, 6)), np.tile(np.arange(1, 13), 4)
    for by in ("class_means", "knn"):
        found = decide(
            rng.standard_normal((20, 6)), poses, labels,
            by=by, penalty=SEEN_ALONE(rng.normal(0, 9, 20)), penalised=SEEN,
        )  # fmt: skip
        assert not set(found.gesture) & set(UNSEEN)


class Listener(RidgeToPose):
    """Notes down what it was fitted on."""

    heard: list[TrainSet]

    def fit(self, training):
        self.heard.append(training)
        super().fit(training)


def listening(heard, tier=Tier.T1):
    """Makes methods that note down in `heard` what they are fitted on."""

    def make():
        method = Listener(tier)
        method.heard = heard
        return method

    return make


def test_tuning_holds_out_users_and_gestures_of_the_training_set():
    data, heard = training(), []
    tune(listening(heard), data, (0.0, 0.4), 0.03)
    assert len(heard) == 6
    for inner in heard:
        assert len(inner.users) == 2
        assert not set(inner.label) & set(inner.unseen)
        assert set(inner.seen) | set(inner.unseen) == set(SEEN)
        assert set(inner.gallery.label) == set(SEEN)  # the really unseen ones stay out of it
        assert inner.user.max() < len(inner.users)


def test_a_slow_method_is_fitted_once_and_another_is_tuned_on():
    data, slow, quick = training(), [], []
    Stacked(listening(slow), tuned_on=listening(quick)).fit(data)
    assert (len(slow), len(quick)) == (1, 6)
    assert slow[0] is data
    assert all(len(inner.users) == 2 for inner in quick)


def test_a_gate_is_that_of_the_method_it_was_tuned_on():
    data = training()
    other = Stacked(lambda: RidgeToPose(Tier.T1), tuned_on=lambda: RidgeToPose(Tier.T0))
    other.fit(data)
    mine = (data.user == 0) & data.calibration
    user = UserData(Tier.T1, data.emg[mine], data.run[mine], None, None)
    gate = tune(lambda: RidgeToPose(Tier.T0), data, SLOPES, MAY_LOSE)
    novelty = Novelty.of(user.emg, user.run)(data.emg[:9])
    assert other.adapt(user).seen_penalty(data.emg[:9]) == pytest.approx(gate(novelty))


@pytest.mark.parametrize("may_lose", [0.0, 0.1])
def test_a_gate_costs_seen_gestures_no_more_than_it_may(may_lose):
    """Where the game is played; `free` is what they have among themselves."""
    data = training()
    games = list(_games(lambda: RidgeToPose(Tier.T1), data))
    gate = tune(lambda: RidgeToPose(Tier.T1), data, SLOPES, may_lose)
    seen, free = (np.mean([g.accuracies(each)[0] for g in games]) for each in (gate, SEEN_ALONE))
    assert seen >= free - may_lose


def test_a_tuned_gate_brings_unseen_gestures_back():
    method = Stacked(lambda: RidgeToPose(Tier.T1))
    data = training()
    method.fit(data)
    everything = training(users=5, gestures=tuple(range(1, 13)))
    new = everything.user == 4  # another user, who also makes the unseen gestures
    known = new & everything.calibration & np.isin(everything.label, SEEN)
    asked = new & ~everything.calibration
    adapted = method.adapt(
        UserData(Tier.T1, everything.emg[known], everything.run[known], None, None)
    )
    emg, label = everything.emg[asked], everything.label[asked]
    poses, unseen = method.embed_pose(data.gallery.pose), np.isin(label, UNSEEN)

    def recall(penalty):
        found = decide(
            adapted.embed(emg), poses, data.gallery.label,
            by="class_means", penalty=penalty, penalised=SEEN,
        )  # fmt: skip
        right = found.gesture == label
        return right[unseen].mean(), right[~unseen].mean()

    before, seen_before = recall(None)
    after, seen_after = recall(adapted.seen_penalty(emg))
    assert after > before
    assert seen_after > seen_before - 0.15


def test_a_gate_needs_calibration_emg():
    stacked = Stacked(lambda: RidgeToPose(Tier.T0))
    stacked.fit(training())
    with pytest.raises(ValueError, match="tier T0"):
        stacked.adapt(UserData(Tier.T0, None, None, None, None))


def test_a_gate_leaves_embeddings_of_emg_and_poses_alone():
    data = training()
    mine = (data.user == 0) & data.calibration
    user = UserData(Tier.T2, data.emg[mine], data.run[mine], data.label[mine], None)
    plain, stacked = RidgeToEmg(Tier.T2), Stacked(lambda: RidgeToEmg(Tier.T2), (0.0, 0.2))
    plain.fit(data)
    stacked.fit(data)
    without, adapted = plain.adapt(user), stacked.adapt(user)
    poses = data.gallery.pose
    assert isinstance(adapted, Adapted)
    assert stacked.tier is Tier.T2
    assert np.array_equal(adapted.embed(data.emg[:9]), without.embed(data.emg[:9]))
    assert np.array_equal(adapted.embed_pose(poses), without.embed_pose(poses))
    assert np.array_equal(stacked.embed_pose(poses), plain.embed_pose(poses))
    assert adapted.seen_penalty(data.emg[:9]).shape == (9,)

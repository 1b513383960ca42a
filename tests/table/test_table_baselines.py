"""Splits, simple methods, and the known figures on real recordings."""

from dataclasses import replace

import numpy as np
import pytest

from embridge.training.table.data import read_users
from embridge.training.table.entries import Entry
from embridge.training.table.forward import RidgeToEmg
from embridge.training.table.protocol import Tier
from embridge.training.table.referee import judge, training_set, user_data
from embridge.training.table.ridge import RidgeToPose
from embridge.training.table.splits import ALL, rotations
from embridge.training.table.tables import run_table


def test_every_user_is_held_out_once_per_fold_and_never_trained_on():
    names = [f"s{number}" for number in range(1, 7)]
    splits = rotations(names)
    assert len(splits) == 9
    for fold in range(3):
        assert sorted(n for s in splits if s.fold == fold for n in s.test) == sorted(names)
    assert all(not set(s.train) & set(s.test) for s in splits)
    assert all(sorted(s.seen + s.unseen) == list(ALL) for s in splits)
    assert splits[0].test == ("s1", "s4")
    assert splits[1].unseen == (2, 5, 8, 11)


def unseen_accuracy(method, users):
    """Of class means over windows on the first split; chance 1/4."""
    split, by_name = rotations([user.user for user in users])[0], {u.user: u for u in users}
    counts = sum(judge(method, split, by_name, 0).values())[0, 0, 0]
    return np.trace(counts) / counts.sum()


@pytest.mark.parametrize("tier", [Tier.T0, Tier.T1, Tier.T2, Tier.T3])
def test_a_map_from_pose_to_emg_infers_unseen_gestures_in_every_tier(users, tier):
    assert unseen_accuracy(RidgeToEmg(tier), users) > 0.5


def turned(user, by):
    """The same user, whose ring sits `by` electrodes further round."""
    order = [*np.roll(np.arange(user.ring), by), *range(user.ring, user.emg.shape[1])]
    return replace(user, emg=np.ascontiguousarray(user.emg[:, order]))


def test_a_turned_band_costs_nothing_where_electrodes_are_brought_together(users):
    worn = [turned(user, number) for number, user in enumerate(users)]
    upright = unseen_accuracy(RidgeToEmg(Tier.T1), users)
    assert unseen_accuracy(RidgeToEmg(Tier.T1), worn) == pytest.approx(upright, abs=0.05)
    assert unseen_accuracy(RidgeToEmg(Tier.T1, align=False), worn) < upright - 0.15


@pytest.mark.parametrize("tier", [Tier.T2, Tier.T3])
def test_own_data_change_where_poses_lie_and_leave_emg_alone(users, tier):
    split, by_name = rotations([user.user for user in users])[0], {u.user: u for u in users}
    training = training_set(split, by_name)
    known, method = RidgeToEmg(Tier.T1), RidgeToEmg(tier)
    known.fit(training)
    method.fit(training)
    adapted = method.adapt(user_data(by_name["s1"], split.seen, tier, 0))
    poses = training.gallery.pose
    assert np.allclose(method.embed_pose(poses), known.embed_pose(poses))
    assert not np.allclose(adapted.embed_pose(poses), method.embed_pose(poses), atol=1e-2)


@pytest.mark.slow
def test_the_known_figures_of_ridge_come_out_on_the_real_recordings(shared_data):
    folder = shared_data / "ninapro_db1_e1"
    entries = [Entry("ridge", lambda _, tier=t: RidgeToPose(tier)) for t in (Tier.T0, Tier.T1)]
    table = run_table(read_users(folder), entries, data="db1", clock=lambda: 0.0)
    t0, t1 = table.results
    assert t0.unseen().mean == pytest.approx(0.287, abs=0.006)
    assert t1.unseen().mean == pytest.approx(0.346, abs=0.006)
    assert t1.unseen(rule=1).mean == pytest.approx(0.343, abs=0.006)
    assert t1.unseen(unit=1).mean == pytest.approx(0.361, abs=0.006)
    assert t1.seen().mean == pytest.approx(0.296, abs=0.006)


@pytest.mark.slow
def test_a_map_from_pose_to_emg_is_better_than_ridge_on_the_real_recordings(shared_data):
    entries = [
        Entry("ridge", lambda _: RidgeToPose(Tier.T1), reference=True),
        Entry("pose to EMG", lambda _: RidgeToEmg(Tier.T1)),
    ]
    folder = shared_data / "ninapro_db1_e1"
    table = run_table(read_users(folder), entries, data="db1", clock=lambda: 0.0)
    assert table.gains[1].mean > 0.03

"""Trained encoders as rows of the table: what is shared, and what a user's own data change."""

from dataclasses import replace

import numpy as np
import pytest

from embridge.training.table.encoder_entries import ROWS, recipe
from embridge.training.table.encoders import ENCODERS, EncoderPair, Trainings
from embridge.training.table.protocol import Tier
from embridge.training.table.referee import judge, training_set, user_data
from embridge.training.table.splits import rotations

STEPS = {"pose_mae": 5, "align": 60, "watch": 60}
SMALL = [f"optim.{name}_steps={count}" for name, count in STEPS.items()] + ["base.depth=2"]
CHANNELS, QUERIES, DIM = 10, 8, 32


@pytest.fixture(scope="module")
def by_name(users):
    return {user.user: user for user in users}


@pytest.fixture(scope="module")
def split(by_name):
    return rotations(list(by_name))[0]


@pytest.fixture(scope="module")
def training(split, by_name):
    return training_set(split, by_name)


@pytest.fixture(scope="module")
def trainings():
    return Trainings(recipe(SMALL))


@pytest.fixture
def fitted(trainings, training):
    def fit(encoder, tier=Tier.T1):
        pair = EncoderPair(trainings, encoder, 0, tier)
        pair.fit(training)
        return pair

    return fit


def test_rows_of_one_configuration_share_its_training(trainings, training):
    assert trainings.on(training, 0) is trainings.on(training, 0)
    other = Trainings(recipe([*SMALL, "optim.align_steps=1", "optim.watch_steps=1"]))
    assert other.on(training, 0) is not other.on(training, 1)
    renamed = replace(training, unseen=(1, 2, 3, 4))
    assert other.on(renamed, 0) is not other.on(training, 0)


def test_base_has_several_vectors_for_a_window_and_watch_one(fitted, training, split, by_name):
    user = user_data(by_name["s1"], split.seen, Tier.T1, 0)
    size = CHANNELS + DIM  # the prior's part, and what is learned
    windows = by_name["s1"].emg[:6]
    assert fitted("base").adapt(user).embed(windows).shape == (6, QUERIES, size)
    assert fitted("watch").adapt(user).embed(windows).shape == (6, size)
    poses = fitted("base").embed_pose(training.gallery.pose)
    assert poses.shape == (len(training.gallery.label), size)
    assert np.linalg.norm(poses, axis=1) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoders_recognise_gestures_they_were_never_trained_on(fitted, encoder, split, by_name):
    counts = sum(judge(fitted(encoder), split, by_name, 0).values())[0, 0, 0]
    assert np.trace(counts) / counts.sum() > 0.4  # chance 1/4


OWN = [(Tier.T1, True), (Tier.T2, False), (Tier.T3, False)]


@pytest.mark.parametrize(("tier", "guess"), OWN)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_own_data_move_the_priors_part_of_both_sides_alone(
    trainings, training, split, by_name, encoder, tier, guess
):
    pair = EncoderPair(trainings, encoder, 0, tier, guess)
    plain = EncoderPair(trainings, encoder, 0)
    for method in (pair, plain):
        method.fit(training)
    poses, windows = training.gallery.pose, by_name["s1"].emg[:6]
    known = plain.adapt(user_data(by_name["s1"], split.seen, Tier.T1, 0))
    own = pair.adapt(user_data(by_name["s1"], split.seen, tier, 0))
    for before, after in (
        (plain.embed_pose(poses), own.embed_pose(poses)),
        (known.embed(windows), own.embed(windows)),
    ):
        assert np.array_equal(before[..., CHANNELS:], after[..., CHANNELS:])
        assert not np.allclose(before[..., :CHANNELS], after[..., :CHANNELS], atol=1e-2)
        lengths = (np.linalg.norm(part, axis=-1) for part in (before, after))
        assert next(lengths) == pytest.approx(next(lengths), abs=1e-4)


def test_own_data_are_of_no_use_without_a_prior(training, split, by_name):
    steps = ["optim.pose_mae_steps=1", "optim.align_steps=1", "optim.watch_steps=1"]
    pair = EncoderPair(Trainings(recipe([*steps, "prior.share=0"])), "base", 0, Tier.T3)
    pair.fit(training)
    with pytest.raises(ValueError, match=r"prior\.share above 0"):
        pair.adapt(user_data(by_name["s1"], split.seen, Tier.T3, 0))


def test_every_group_of_rows_has_names_of_its_own():
    names = [(entry.name, entry.make(0).tier) for rows in ROWS.values() for entry in rows((0,))]
    assert len(set(names)) == len(names)
    facts = {entry.facts for entry in ROWS["ablations"]((0,))}
    assert len(facts) == len(ROWS["ablations"]((0,)))  # each of them is another configuration

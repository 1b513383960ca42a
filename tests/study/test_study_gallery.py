"""The pose gallery and balanced batches."""

import dataclasses

import numpy as np
import pytest

from embridge.training.encoders import PatchEncoder, PoseEmbedder
from embridge.training.gallery import build_gallery
from embridge.training.material import balanced_batch
from embridge.training.study import apply_plan


@pytest.fixture(scope="module")
def embedder(handmade):
    return PoseEmbedder(PatchEncoder(4, handmade.WINDOW, 10, 8, 1, 2, 8), clusters=4).eval()


def same_gallery(a, b):
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("embeddings", "mean_pose", "labels")
    )


def test_the_gallery_has_poses_of_all_gestures_from_all_training_users(handmade, study, embedder):
    gallery = build_gallery(study, embedder, per_gesture=6, seed=0)
    assert np.bincount(gallery.labels).tolist() == [6] * len(handmade.GESTURES)
    assert gallery.names == handmade.GESTURES
    assert np.linalg.norm(gallery.embeddings, axis=1) == pytest.approx(1)
    assert gallery.embedded().vectors.shape == (6 * 7, 8)
    assert gallery.posed().vectors.shape == (6 * 7, 4)
    windows = study.windows(
        study.plan.train_users, handmade.GESTURES, handmade.TRAIN_HOP, need_pose=True
    )
    poses = windows.pose(np.arange(len(windows))).mean(axis=2)
    for label in range(len(handmade.GESTURES)):
        users = [
            int(windows.user[np.flatnonzero((poses == row).all(axis=1))[0]])
            for row in gallery.mean_pose[gallery.labels == label]
        ]
        assert np.bincount(users).tolist() == [2, 2, 2]


def test_a_gallery_holds_no_more_than_there_is(handmade, study, embedder):
    gallery = build_gallery(study, embedder, per_gesture=10_000, seed=0)
    windows = study.windows(
        study.plan.train_users, handmade.GESTURES, handmade.TRAIN_HOP, need_pose=True
    )
    assert np.array_equal(np.bincount(gallery.labels), np.bincount(windows.label))


def test_the_gallery_depends_on_the_training_users_poses_and_the_seed_alone(
    study, recordings, embedder
):
    gallery = build_gallery(study, embedder, 6, seed=0)
    assert same_gallery(gallery, build_gallery(study, embedder, 6, seed=0))
    assert not same_gallery(gallery, build_gallery(study, embedder, 6, seed=1))
    elsewhere, here = [], []
    for recording in recordings:
        assert recording.pose is not None
        trains = recording.user in study.plan.train_users
        other_emg = dataclasses.replace(recording, emg=recording.emg * np.float32(3))
        moved = dataclasses.replace(other_emg, pose=recording.pose + 1)
        elsewhere.append(other_emg if trains else moved)
        here.append(moved if trains else recording)
    assert same_gallery(gallery, build_gallery(apply_plan(study.plan, elsewhere), embedder, 6, 0))
    assert not same_gallery(gallery, build_gallery(apply_plan(study.plan, here), embedder, 6, 0))


def test_a_batch_is_balanced_over_users_and_gestures(study):
    """Rest is by far the most frequent, and one user lacks most windows of one gesture."""
    windows = study.training_windows()
    few = np.flatnonzero((windows.user == 0) & (windows.label == 1))[3:]
    windows = windows.select(np.delete(np.arange(len(windows)), few))
    index = balanced_batch(windows, 30_000, np.random.default_rng(0))
    cells = windows.user[index] * 10 + windows.label[index]
    _, count = np.unique(cells, return_counts=True)
    assert len(count) == 3 * 5
    assert count == pytest.approx(2000, abs=200)
    assert {*index} == {*range(len(windows))}, "every window has its chance"
    _, within = np.unique(index[cells == 1], return_counts=True)
    assert within == pytest.approx(2000 / 3, abs=120)


def test_a_batch_depends_on_its_generator_alone(study):
    windows = study.training_windows()
    first, second, third = (
        balanced_batch(windows, 64, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)

"""Splits, alignment of electrodes, and the known figures on real recordings."""

import numpy as np
import pytest

from embridge.training.table.alignment import Signature, align, orders, reordered
from embridge.training.table.data import read_users
from embridge.training.table.entries import Entry
from embridge.training.table.features import log_envelope
from embridge.training.table.protocol import Tier
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


def test_alignment_finds_how_far_a_ring_was_turned():
    rng = np.random.default_rng(0)
    shape = np.sin(np.arange(8)) + 0.4 * np.arange(8)  # no symmetry
    emg = np.exp(rng.normal(np.r_[shape, 0, 1], 0.3, (500, 10)) * 0.5)[:, :, None]
    log = log_envelope(np.repeat(emg, 5, axis=2).astype(np.float32))
    choices = orders(8, 10, reflect=True)
    turned = [log[:, list(choices[n])] for n in (0, 0, 0, 3, 12)]
    alignment, found = align([Signature.of(each) for each in turned], choices)
    upright = [reordered(each, order) for each, order in zip(turned, found, strict=True)]
    assert all(np.array_equal(each, upright[0]) for each in upright)
    new = log[:, list(choices[6])]
    assert np.array_equal(reordered(new, alignment.order(Signature.of(new))), upright[0])


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

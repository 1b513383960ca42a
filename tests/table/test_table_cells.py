"""Cells of the table are computed once, by any number of processes, and kept."""

import time
from dataclasses import replace

import numpy as np
import pytest

from embridge.training.table.cells import Work, all_cells
from embridge.training.table.entries import Entry
from embridge.training.table.protocol import Tier
from embridge.training.table.ridge import RidgeToPose
from embridge.training.table.splits import rotations

ENTRIES = (
    Entry("ridge", lambda _: RidgeToPose(Tier.T1)),
    Entry("wide", lambda seed: RidgeToPose(Tier.T1, random_features=20, seed=seed), (0, 1)),
)


@pytest.fixture(scope="module")
def work(users):
    splits = rotations([user.user for user in users])[:2]
    return Work(ENTRIES, splits, {user.user: user for user in users}, time.monotonic)


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[cell].counts[user], other[cell].counts[user])
        for cell in one
        for user in one[cell].counts
    )


def test_rows_of_one_seed_and_split_are_computed_together(work):
    groups = [[(cell.entry, cell.seed, cell.split) for cell in group] for group in work.groups()]
    assert groups == [
        [(0, 0, 0), (1, 0, 0)],
        [(0, 0, 1), (1, 0, 1)],
        [(1, 1, 0)],
        [(1, 1, 1)],
    ]


def test_two_processes_count_what_one_counts(work):
    seen = []
    alone = all_cells(work)
    together = all_cells(work, 2, lambda done, total, _what: seen.append((done, total)))
    assert same(alone, together)
    assert seen == [(done, 6) for done in range(1, 7)]


class Refuses(RidgeToPose):
    def fit(self, training):
        raise AssertionError("computed again")


def test_a_finished_cell_is_read_and_not_computed_again(work, tmp_path):
    kept = replace(work, store=tmp_path / "cells")
    first = all_cells(kept)
    refusing = tuple(replace(entry, make=lambda _: Refuses(Tier.T1)) for entry in ENTRIES)
    assert same(first, all_cells(replace(kept, entries=refusing)))


@pytest.mark.parametrize("change", [{"facts": "another alpha"}, {"name": "ridge 2"}])
def test_a_cell_of_another_method_is_computed(work, tmp_path, change):
    kept = replace(work, store=tmp_path / "cells", entries=ENTRIES[:1])
    all_cells(kept)
    other = replace(ENTRIES[0], make=lambda _: Refuses(Tier.T1), **change)
    with pytest.raises(AssertionError, match="computed again"):
        all_cells(replace(kept, entries=(other,)))


def test_a_cell_of_other_recordings_is_computed(work, tmp_path):
    kept = replace(work, store=tmp_path / "cells", entries=ENTRIES[:1])
    all_cells(kept)
    louder = {name: replace(user, emg=user.emg * 2) for name, user in work.users.items()}
    refusing = (replace(ENTRIES[0], make=lambda _: Refuses(Tier.T1)),)
    with pytest.raises(AssertionError, match="computed again"):
        all_cells(replace(kept, users=louder, entries=refusing))

"""A share of the training windows, for experiments with less data (EMBridge's with 40 %).

Of each user and gesture the same share stays, so that neither disappears: whole stretches where
there are enough of them, else one part of each stretch. What is taken depends on seed, user and
gesture alone: a smaller share is a subset of a larger one.
"""

from collections.abc import Iterator
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from embridge.training.windows import WindowSet

STRETCHES = 5  # with fewer of them, each is shortened


def part_of(windows: WindowSet, share: float, seed: int) -> WindowSet:
    """The share (above 0, up to 1) of the windows of each user and gesture, one window at least."""
    if share >= 1:
        return windows
    return windows.select(np.sort(np.concatenate([*_parts(windows, share, seed)])))


def _parts(windows: WindowSet, share: float, seed: int) -> Iterator[NDArray[np.int64]]:
    for user in np.unique(windows.user):
        name = crc32(windows.users[user].encode())
        for label in np.unique(windows.label[windows.user == user]):
            cell = np.flatnonzero((windows.user == user) & (windows.label == label))
            trials = np.unique(windows.trial[cell])
            rng = np.random.default_rng([seed, name, int(label)])
            if len(trials) >= STRETCHES:
                kept = rng.permutation(trials)[: max(1, round(share * len(trials)))]
                yield cell[np.isin(windows.trial[cell], kept)]
                continue
            for trial in trials:
                mine = cell[windows.trial[cell] == trial]
                yield _shortened(mine[np.argsort(windows.start[mine])], share, rng.random())


def _shortened(stretch: NDArray[np.int64], share: float, place: float) -> NDArray[np.int64]:
    """Consecutive windows; place: of 0 .. 1, where in the stretch they lie."""
    count = max(1, round(share * len(stretch)))
    first = int(place * (len(stretch) - count + 1))
    return stretch[first : first + count]

"""Generalised zero-shot: a handicap of the seen gestures, tuned on training users alone.

Every method prefers the gestures whose EMG it has seen. Calibrated stacking (Chao et al. 2016)
subtracts a constant from their scores; here it may grow with the window's novelty for the user.
Both numbers are found by playing the same game inside the training set: some of its users and some
of its seen gestures are held out in turn.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from embridge.training.table.data import standardised
from embridge.training.table.decide import class_scores
from embridge.training.table.novelty import Novelty
from embridge.training.table.protocol import (
    Adapted,
    Gallery,
    Method,
    Tier,
    TrainSet,
    UserData,
)
from embridge.training.table.scores import harmonic_mean

CONSTANTS = tuple(np.round(np.arange(-1.2, 0.71, 0.025), 3).tolist())
SLOPES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)
MAY_LOSE = 0.03  # of the seen gestures' accuracy where they compete alone, by default
_GESTURE_FOLDS, _USER_FOLDS = 3, 2


@dataclass(frozen=True, slots=True)
class Gate:
    """Handicap of the seen gestures: constant + slope * novelty."""

    constant: float
    slope: float

    def __call__(self, novelty: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N,) novelty -> (N,) penalty; what is not novel at all may get a bonus."""
        return np.asarray(self.constant + self.slope * novelty)


SEEN_ALONE = Gate(-1e3, 0.0)  # no unseen gesture is ever chosen


@dataclass
class Stacked:
    """A method of tier T1 or above with a gate.

    make: a fresh base method; slopes: those to choose from, (0,) for a constant alone; may_lose:
    of the balanced accuracy that seen gestures have alone; tuned_on: the method that tuning fits
    six times, one with like cosines where the base method is slow to fit; None: the base method
    """

    make: Callable[[], Method]
    slopes: tuple[float, ...] = SLOPES
    may_lose: float = MAY_LOSE
    tuned_on: Callable[[], Method] | None = None
    _gate: Gate = field(init=False)
    _base: Method = field(init=False)

    @property
    def tier(self) -> Tier:
        """The base method's."""
        return self.make().tier

    def fit(self, training: TrainSet) -> None:
        """Tune the gate, then fit the base method on everything."""
        self._gate = tune(self.tuned_on or self.make, training, self.slopes, self.may_lose)
        self._base = self.make()
        self._base.fit(training)

    def embed_pose(self, pose: NDArray[np.float32]) -> NDArray[np.float32] | NDArray[np.float64]:
        """The base method's."""
        return self._base.embed_pose(pose)

    def adapt(self, user: UserData) -> Adapted:
        """The base method's encoder, with the gate on this user's novelty."""
        adapted, gate = self._base.adapt(user), self._gate
        if user.emg is None or user.run is None:
            raise ValueError(f"expected calibration EMG to know novelty by, got tier {user.tier}")
        novelty = Novelty.of(user.emg, user.run)
        return replace(adapted, seen_penalty=lambda emg: gate(novelty(emg)))


@dataclass(frozen=True, slots=True)
class _Game:
    """One held-out user. scores: (N, K) cosines; novelty: (N,); right: (N,) column of the truth."""

    scores: NDArray[np.float64]
    novelty: NDArray[np.float64]
    right: NDArray[np.int64]
    is_seen: NDArray[np.bool_]  # K

    def accuracies(self, gate: Gate) -> tuple[float, float]:
        """Balanced accuracy of seen and of unseen gestures, all competing."""
        less = gate(self.novelty)[:, None] * self.is_seen
        hit = (self.scores - less).argmax(axis=1) == self.right
        present = np.unique(self.right)
        recall = np.array([hit[self.right == column].mean() for column in present])
        seen = self.is_seen[present]
        return float(recall[seen].mean()), float(recall[~seen].mean())


def tune(
    make: Callable[[], Method], training: TrainSet, slopes: tuple[float, ...], may_lose: float
) -> Gate:
    """The gate with the largest harmonic mean among those that cost seen gestures little."""
    games = list(_games(make, training))
    free = np.array([game.accuracies(SEEN_ALONE)[0] for game in games]).mean()
    best, best_mean = Gate(0.0, 0.0), -1.0
    for slope in slopes:
        for constant in CONSTANTS:
            gate = Gate(constant, slope)
            seen, unseen = np.array([game.accuracies(gate) for game in games]).T
            mean = float(harmonic_mean(seen, unseen).mean())
            if seen.mean() >= free - may_lose and mean > best_mean:
                best, best_mean = gate, mean
    return best


def _games(make: Callable[[], Method], training: TrainSet) -> Iterator[_Game]:
    for gestures in range(_GESTURE_FOLDS):
        unseen = training.seen[gestures::_GESTURE_FOLDS]
        for users in range(_USER_FOLDS):
            held = np.arange(users, len(training.users), _USER_FOLDS)
            inner, method = _without(training, held, unseen), make()
            method.fit(inner)
            poses = method.embed_pose(inner.gallery.pose)
            for user in held:
                yield _play(method, poses, inner, training, int(user))


def _play(
    method: Method,
    poses: NDArray[np.float32] | NDArray[np.float64],
    inner: TrainSet,
    training: TrainSet,
    user: int,
) -> _Game:
    mine = training.user == user
    is_unseen = np.isin(training.label, inner.unseen)
    known = mine & training.calibration & ~is_unseen
    asked = mine & (is_unseen | ~training.calibration)
    labelled, pose = method.tier in (Tier.T2, Tier.T3), training.pose[known]
    data = UserData(
        method.tier,
        training.emg[known],
        training.run[known],
        training.label[known] if labelled else None,
        standardised(pose, pose) if method.tier is Tier.T3 else None,
    )
    emg, adapted = training.emg[asked], method.adapt(data)
    if adapted.embed_pose:
        poses = adapted.embed_pose(inner.gallery.pose)
    scores, classes = class_scores(adapted.embed(emg), poses, inner.gallery.label)
    return _Game(
        scores,
        Novelty.of(training.emg[known], training.run[known])(emg),
        np.searchsorted(classes, training.label[asked]),
        np.isin(classes, inner.seen),
    )


def _without(training: TrainSet, users: NDArray[np.int64], unseen: tuple[int, ...]) -> TrainSet:
    """The training set without these users and without EMG of these gestures."""
    keep = ~np.isin(training.user, users) & ~np.isin(training.label, unseen)
    gallery = training.gallery
    posed = ~np.isin(gallery.user, users) & np.isin(gallery.label, training.seen)
    left = np.delete(np.arange(len(training.users)), users)
    return replace(
        training,
        emg=training.emg[keep],
        pose=training.pose[keep],
        label=training.label[keep],
        repetition=training.repetition[keep],
        run=training.run[keep],
        user=np.searchsorted(left, training.user[keep]),
        users=tuple(training.users[number] for number in left),
        seen=tuple(gesture for gesture in training.seen if gesture not in unseen),
        unseen=unseen,
        gallery=Gallery(
            gallery.pose[posed], gallery.label[posed], np.searchsorted(left, gallery.user[posed])
        ),
    )

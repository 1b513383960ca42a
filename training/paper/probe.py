"""Linear probe and few-shot: logistic regression on the features of a frozen encoder.

The papers train a linear head with random initial weights on the frozen encoder (N2); logistic
regression with scikit-learn reaches that head's optimum. Who the probe's labels come from is not
stated there. Ours: for seen gestures the training users; for unseen ones, whose EMG no training
user may show, one half of the other users at a time and the test is on the other half, so that
everybody is tested once and nobody's own labels are used (EMGBlend splits its users 12 to 20).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from embridge.device.errors import ConfigError
from embridge.training.paper.confusion import Counts, Measured, Truth, confusion, over_users
from embridge.training.table.decide import Decided
from embridge.training.table.scores import balanced_accuracy

PER_USER_AND_GESTURE = 40  # windows of a probe user, evenly spaced
SHOTS = (1, 2, 5)
REPEATS = 5  # N2, fig. 8
_STEPS = 5000


@dataclass(frozen=True)
class Labelled:
    """Features (N, D) of a frozen encoder with the truth of their windows."""

    features: NDArray[np.float32]
    truth: Truth

    def select(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> "Labelled":
        """The windows chosen by a mask or by indices."""
        return Labelled(self.features[keep], self.truth.select(keep))

    def of_users(self, users: Sequence[str]) -> "Labelled":
        """The windows of these users."""
        numbers = [n for n, name in enumerate(self.truth.users) if name in users]
        return self.select(np.isin(self.truth.user, numbers))


@dataclass(frozen=True)
class Probe:
    """What a linear probe reached. counts: (units, U, K, K); taught_by: whose labels it saw."""

    users: tuple[str, ...]
    taught_by: str
    counts: Counts

    def figure(self, unit: int = 0) -> Measured | None:
        """Balanced accuracy per user, averaged; over windows, or (1) over repetitions."""
        return over_users(balanced_accuracy(self.counts[unit]), self.users)


@dataclass(frozen=True)
class FewShot:
    """Accuracy by number of labelled `unit`s ("repetitions", or "windows" where nothing repeats).

    None where no user made every gesture often enough to be tested on the rest.
    """

    unit: str
    figures: dict[int, Measured | None]

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "unit": self.unit,
            "repeats": REPEATS,
            "shots": {str(n): f.json() if f else None for n, f in self.figures.items()},
        }


def thinned(truth: Truth) -> NDArray[np.int64]:
    """Indices of PER_USER_AND_GESTURE evenly spaced windows of each user and gesture."""
    chosen = []
    for cell in _cells(truth):
        spaced = np.linspace(0, len(cell) - 1, min(len(cell), PER_USER_AND_GESTURE))
        chosen.append(cell[spaced.round().astype(int)])
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)


def halves(users: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Every other user; ConfigError when there are fewer than two."""
    if len(users) < 2:
        raise ConfigError(
            "a probe needs at least 2 users that the encoder was not trained on, one to learn from "
            f"and one to be tested; got {len(users)}: add recordings or hold out more users"
        )
    return tuple(users[0::2]), tuple(users[1::2])


def probe_from(training: Labelled, test: Labelled, labels: int, taught_by: str) -> Probe:
    """Fit on all of `training`, decide all of `test`; ConfigError when they share a user."""
    taught, tested = _names(training), _names(test)
    if both := sorted(taught & tested):
        raise ConfigError(
            f"user {both[0]} is among the probe's users and among those tested: keep them apart"
        )
    if missing := {*test.truth.label.tolist()} - {*training.truth.label.tolist()}:
        raise ConfigError(
            f"no probe user ({', '.join(sorted(taught))}) made {len(missing)} of the gestures "
            "tested: add their recordings or leave the gesture out"
        )
    counts = confusion(test.truth, _decide(training, test.features), labels)
    return Probe(test.truth.users, taught_by, counts)


def probe_by_halves(labelled: Labelled, labels: int) -> Probe:
    """Each half of the users teaches, the other is tested; in turn, so that all are tested."""
    sides = halves([user for user in labelled.truth.users if user in _names(labelled)])
    taught_by = "the other half of the users tested, in turn"
    counts = []
    for teachers, tested in (sides, sides[::-1]):
        taught = labelled.of_users(teachers)
        taught = taught.select(thinned(taught.truth))
        counts.append(probe_from(taught, labelled.of_users(tested), labels, taught_by).counts)
    return Probe(labelled.truth.users, taught_by, np.asarray(counts[0] + counts[1]))


def few_shot(labelled: Labelled, window: int, seed: int = 0) -> FewShot:
    """Teach with n units of each gesture of the user himself, test on his other windows.

    REPEATS random draws of the units, averaged per user. Windows (of `window` samples) that overlap
    one taught with are not tested.
    """
    truth = labelled.truth
    repeats = [len(np.unique(truth.run[cell])) > 1 for cell in _cells(truth)]
    by_run = 2 * sum(repeats) >= len(repeats)
    unit = truth.run if by_run else np.arange(len(truth))
    figures = {
        shots: over_users(
            np.array(
                [
                    _shots_of_user(labelled, unit, user, shots, window, seed)
                    for user in range(len(truth.users))
                ]
            ),
            truth.users,
        )
        for shots in SHOTS
    }
    return FewShot("repetitions" if by_run else "windows", figures)


def _shots_of_user(
    labelled: Labelled, unit: NDArray[np.int64], user: int, shots: int, window: int, seed: int
) -> float:
    """Balanced accuracy, mean over draws; NaN when a gesture has too few units for a test."""
    mine = np.flatnonzero(labelled.truth.user == user)
    label = labelled.truth.label[mine]
    units = {c: np.unique(unit[mine[label == c]]) for c in np.unique(label)}
    if len(units) < 2 or min(len(u) for u in units.values()) <= shots:
        return float("nan")
    found = []
    for repeat in range(REPEATS):
        rng = np.random.default_rng([seed, user, shots, repeat])
        drawn = np.concatenate([rng.choice(u, shots, replace=False) for u in units.values()])
        taught = mine[np.isin(unit[mine], drawn)]
        tested = np.setdiff1d(mine, mine[_overlapping(labelled.truth, mine, taught, window)])
        test = labelled.select(tested)
        if len(np.unique(test.truth.label)) < len(units):
            return float("nan")  # all that is left of a gesture overlaps what taught
        right = _decide(labelled.select(taught), test.features).gesture == test.truth.label
        found.append(np.mean([right[test.truth.label == label].mean() for label in units]))
    return float(np.mean(found))


def _overlapping(
    truth: Truth, mine: NDArray[np.int64], taught: NDArray[np.int64], window: int
) -> NDArray[np.bool_]:
    """Which of `mine` share samples with a window of `taught` (or are one)."""
    hit = np.zeros(len(mine), np.bool_)
    for index in taught:
        same_run = truth.run[mine] == truth.run[index]
        hit |= same_run & (np.abs(truth.start[mine] - truth.start[index]) < window)
    return hit


def _decide(training: Labelled, features: NDArray[np.float32]) -> Decided:
    model = _fit(training)
    probability = model.predict_proba(features)  # N K
    best = probability.argmax(axis=1)
    return Decided(np.asarray(model.classes_[best], np.int64), probability.max(axis=1))


def _fit(training: Labelled) -> Pipeline:
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=_STEPS, class_weight="balanced")
    )
    return model.fit(training.features.astype(np.float64), training.truth.label)


def _cells(truth: Truth) -> Iterator[NDArray[np.int64]]:
    """Indices of the windows of each user and gesture."""
    for user in np.unique(truth.user):
        for label in np.unique(truth.label[truth.user == user]):
            yield np.flatnonzero((truth.user == user) & (truth.label == label))


def _names(labelled: Labelled) -> set[str]:
    return {labelled.truth.users[user] for user in np.unique(labelled.truth.user)}

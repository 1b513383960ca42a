"""Judges one method on one split: hands it what its tier allows, counts what it decides."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.training.table.data import UserWindows, standardised
from embridge.training.table.decide import RULES, Decided, decide, vote_of_runs
from embridge.training.table.protocol import (
    Adapted,
    Floats,
    Gallery,
    Method,
    SeenClassifier,
    Tier,
    TrainSet,
    UserData,
)
from embridge.training.table.splits import ALL, CALIBRATION, Split

PER_USER_AND_GESTURE = 40  # gallery windows
TASKS = ("unseen", "seen", "generalised")
UNITS = ("windows", "repetitions")
Counts = NDArray[np.int64]  # (tasks, rules, units, 12 true, 12 decided)
_CHECKED = 4  # windows that are also embedded alone
_TOLERANCE = 1e-3  # relative; batched float32 arithmetic rounds differently

Users = Mapping[str, UserWindows]
_Array = TypeVar("_Array", bound=NDArray[Any])


def training_set(split: Split, users: Users) -> TrainSet:
    """Seen gestures of the training users with EMG and pose, all their gestures with pose only."""
    people = [users[name] for name in split.train]
    keep = [np.isin(person.label, split.seen) for person in people]

    def paired(column: str) -> NDArray[Any]:
        parts = [getattr(person, column)[mask] for person, mask in zip(people, keep, strict=True)]
        return _frozen(np.concatenate(parts))

    return TrainSet(
        emg=paired("emg"),
        pose=paired("pose"),
        label=paired("label"),
        repetition=paired("repetition"),
        run=paired("run"),
        user=_frozen(np.repeat(np.arange(len(people)), [int(mask.sum()) for mask in keep])),
        users=split.train,
        seen=split.seen,
        unseen=split.unseen,
        rate_hz=people[0].rate_hz,
        ring=people[0].ring,
        gallery=_gallery(people),
    )


def _gallery(people: list[UserWindows]) -> Gallery:
    pose, label, user = [], [], []
    for number, person in enumerate(people):
        for gesture in ALL:
            rows = np.flatnonzero(person.label == gesture)
            if len(rows) > PER_USER_AND_GESTURE:
                rows = rows[np.linspace(0, len(rows) - 1, PER_USER_AND_GESTURE).round().astype(int)]
            pose.append(person.pose[rows])
            label.append(np.full(len(rows), gesture))
            user.append(np.full(len(rows), number))
    labels = np.concatenate(label)
    if missing := sorted(set(ALL) - {*labels.tolist()}):
        raise ConfigError(
            f"no training user made gesture {', '.join(map(str, missing))} of 1..12: a gesture "
            "without pose cannot be recognised; add recordings"
        )
    return Gallery(_frozen(np.concatenate(pose)), _frozen(labels), _frozen(np.concatenate(user)))


def user_data(person: UserWindows, seen: tuple[int, ...], tier: Tier, seed: int) -> UserData:
    """What `tier` gives of this user; runs come in an order drawn by `seed`."""
    if tier in (Tier.T0, Tier.POSE):
        return UserData(tier, None, None, None, None)
    rows = np.flatnonzero(np.isin(person.label, seen) & np.isin(person.repetition, CALIBRATION))
    if not len(rows):
        raise ConfigError(
            f"user {person.user}: tier {tier} needs repetitions {CALIBRATION} of the seen gestures,"
            " got none: use tier T0 or add recordings"
        )
    _, run = np.unique(person.run[rows], return_inverse=True)
    drawn = np.random.default_rng(seed).permutation(run.max() + 1)[run]
    order = np.argsort(drawn, kind="stable")
    rows, drawn = rows[order], drawn[order]
    pose = person.pose[rows]
    labelled, paired = tier in (Tier.T2, Tier.T3), tier is Tier.T3
    return UserData(
        tier,
        _frozen(person.emg[rows]),
        _frozen(drawn),
        _frozen(person.label[rows]) if labelled else None,
        _frozen(standardised(pose, pose)) if paired else None,
    )


def judge(
    method: Method | SeenClassifier, split: Split, users: Users, seed: int
) -> dict[str, Counts]:
    """Fit and examine; counts of each test user.

    A seen gesture is tested on the repetitions outside CALIBRATION, in every tier; an unseen one on
    all. ConfigError when a method embeds a window differently in company, or a user lacks windows.
    """
    training = training_set(split, users)
    examine = _examiner(method, training)
    rng = np.random.default_rng(seed)
    counts = {}
    for name in split.test:
        person = users[name]
        rows = np.flatnonzero(
            np.isin(person.label, split.unseen)
            | (np.isin(person.label, split.seen) & ~np.isin(person.repetition, CALIBRATION))
        )
        if not np.isin(person.label[rows], split.unseen).any():
            raise ConfigError(
                f"user {name}: expected windows of gestures {split.unseen}, got none to test "
                "zero-shot with: leave this user out"
            )
        rows = rng.permutation(rows)  # the order of windows must not tell gestures apart
        data = user_data(person, split.seen, method.tier, int(rng.integers(2**32)))
        counts[name] = examine(person, rows, data)
    return counts


def _examiner(
    method: Method | SeenClassifier, training: TrainSet
) -> Callable[[UserWindows, NDArray[np.int64], UserData], Counts]:
    """Fit the method; returns what examines it on one user's test windows."""
    if isinstance(method, Method):
        method.fit(training)
        poses = method.embed_pose(training.gallery.pose)
        return partial(_retrieved, method, training, poses)
    method.fit(training)
    return partial(_classified, method, training.seen)


def _retrieved(
    method: Method,
    training: TrainSet,
    poses: Floats,
    person: UserWindows,
    rows: NDArray[np.int64],
    data: UserData,
) -> Counts:
    label = training.gallery.label
    queries, adapted, penalty = _asked(method, person, rows, data)
    if adapted.embed_pose:
        poses = adapted.embed_pose(training.gallery.pose)
    is_unseen = np.isin(person.label[rows], training.unseen)
    counts = np.zeros((len(TASKS), len(RULES), len(UNITS), len(ALL), len(ALL)), np.int64)
    cases = (
        (is_unseen, training.unseen),
        (~is_unseen, training.seen),
        (np.ones(len(rows), bool), ALL),
    )
    for task, (mine, candidates) in enumerate(cases):
        known = np.isin(label, candidates)
        for number, by in enumerate(RULES):
            decided = decide(
                queries[mine],
                poses[known],
                label[known],
                by=by,
                centred=adapted.centred,
                penalty=None if candidates is not ALL or penalty is None else penalty[mine],
                penalised=training.seen,
            )
            counts[task, number] = _count(person, rows[mine], decided)
    return counts


def _asked(
    method: Method, person: UserWindows, rows: NDArray[np.int64], data: UserData
) -> tuple[Floats, Adapted, NDArray[np.float64] | None]:
    """Queries of the test windows, the method made ready, and its penalty on seen gestures."""
    if method.tier is Tier.POSE:
        ready = Adapted(method.embed_pose)
        return ready.embed(_frozen(person.pose[rows])), ready, None
    adapted, name = method.adapt(data), type(method).__name__
    windows, penalty = _frozen(person.emg[rows]), adapted.seen_penalty
    queries = _one_by_one(adapted.embed, windows, name)
    if penalty is None:
        return queries, adapted, None
    return queries, adapted, np.asarray(_one_by_one(penalty, windows, name), np.float64)


def _one_by_one(
    embed: Callable[[NDArray[np.float32]], Floats], windows: NDArray[np.float32], name: str
) -> Floats:
    """Embed all; refuse a method that lets windows of one user's test know of each other."""
    alone = np.concatenate([embed(windows[i : i + 1]) for i in range(min(_CHECKED, len(windows)))])
    together = embed(windows)
    if len(together) != len(windows) or not np.isfinite(together).all():
        raise ConfigError(
            f"{name}: expected {len(windows)} finite embeddings, got {together.shape} with "
            f"{int((~np.isfinite(together)).sum())} values not finite: repair the method"
        )
    apart = np.abs(together[: len(alone)] - alone).max(initial=0.0)
    if apart > _TOLERANCE * np.abs(together).max(initial=1e-12):
        raise ConfigError(
            f"{name}: a test window alone and among others gave values {apart:.2g} apart: "
            "expected each window to be embedded on its own, without statistics of the test"
        )
    return together


def _classified(
    method: SeenClassifier,
    seen: tuple[int, ...],
    person: UserWindows,
    rows: NDArray[np.int64],
    data: UserData,
) -> Counts:
    """Seen gestures only: one task, one rule."""
    rows = rows[np.isin(person.label[rows], seen)]
    gesture = method.adapt(data)(_frozen(person.emg[rows]))
    decided = Decided(gesture, np.zeros(len(gesture)))
    return _count(person, rows, decided)[None, None]


def _count(person: UserWindows, rows: NDArray[np.int64], decided: Decided) -> Counts:
    """Confusion of windows and of repetitions by vote, (2, 12, 12)."""
    run, first = np.unique(person.run[rows], return_index=True)
    truth = person.label[rows]
    counts = np.zeros((len(UNITS), len(ALL), len(ALL)), np.int64)
    np.add.at(counts[0], (truth - 1, decided.gesture - 1), 1)
    if len(run):
        voted = vote_of_runs(decided, person.run[rows])
        np.add.at(counts[1], (truth[first] - 1, voted - 1), 1)
    return counts


def _frozen(array: _Array) -> _Array:
    """The same values, which no method can change; never a view on the recordings."""
    own = array.copy() if array.base is not None else array
    own.setflags(write=False)
    return own

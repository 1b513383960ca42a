"""How much zero-shot accuracy int8 encoders and compressed galleries keep, paired by user.

Reference: the float encoder against the float gallery, k nearest neighbours. Every other row is
compared with it on the same windows. Several packages (rotations of the test users over one data
set) are pooled, each judged only on users it was neither trained nor validated on.

Two 95 % intervals of each difference:
- over users: what a new user may expect; with fewer than about 8 users it is wide and coarse.
- over users, and over the trials of each gesture within each user: also the chance of which
  repetitions were recorded (Davison and Hinkley 1997, section 3.8).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.benchmarks.evaluation import study_of
from embridge.device.errors import ConfigError
from embridge.device.gallery_codes import CODE_BITS, FLOAT_BITS, compressed, row_bytes
from embridge.device.package import Package
from embridge.quantize.stages import open_stage, queries
from embridge.training.evaluate import TestSet, independent_units, make_test_set, predict
from embridge.training.plan import StudyPlan
from embridge.training.study import Progress, read_all
from embridge.training.windows import WindowSet

TIER = "T1"
REFERENCE_STAGE = "float"
RESAMPLES = 10_000
# Of each user. "seen", "unseen": balanced accuracy against the poses of the window's own group;
# "generalised_*": against all; "generalised": harmonic mean of the two (Xian et al. 2018, 3.2).
SCORES = ("seen", "unseen", "generalised_seen", "generalised_unseen", "generalised")
AMONG = ("seen", "unseen", "all", "all", "all")  # whose poses compete
GROUPS = ("seen", "unseen", "all")
Draw = Callable[[int], NDArray[np.int64]]  # n trials -> (B, n), how often each one counts


@dataclass(frozen=True, slots=True)
class Row:
    """One combination: encoder stage, bits of the gallery's values, all rows or prototypes.

    prototypes: per gesture, searched with k = 1; 0 = the package's own rows and k
    """

    stage: str
    bits: int = FLOAT_BITS
    prototypes: int = 0


@dataclass(frozen=True)
class Judged:
    """The same N windows decided by R combinations.

    user: (N,) index into `users`; label: (N,) true gesture; trial: (N,) what counts as independent;
    unseen: (N,); own, every: (R, N) winner among the window's own group, and among all gestures;
    chance: (U, S); gallery_rows, gallery_bytes: (R,) packed, rest included, without labels
    """

    users: tuple[str, ...]
    user: NDArray[np.int64]
    label: NDArray[np.int64]
    trial: NDArray[np.int64]
    unseen: NDArray[np.bool_]
    own: NDArray[np.int64]
    every: NDArray[np.int64]
    chance: NDArray[np.float64]
    gallery_rows: NDArray[np.int64]
    gallery_bytes: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Difference:
    """Accuracy minus that of one row: mean over users and both 95 % intervals, in points.

    mean: (R, S); over_users, over_trials: (2, R, S), lower and upper end
    """

    mean: NDArray[np.float64]
    over_users: NDArray[np.float64]
    over_trials: NDArray[np.float64]


@dataclass(frozen=True)
class Kept:
    """What was measured: R rows, the first one the reference; U users; S = SCORES.

    accuracy: (R, U, S); ci95: (2, R, S) of its mean, over users
    to_prototypes: against float x float prototypes, for the rows of prototypes
    same_decision: (R, 3) share of windows of each of GROUPS with the reference's winner
    """

    rows: tuple[Row, ...]
    judged: Judged
    accuracy: NDArray[np.float64]
    ci95: NDArray[np.float64]
    to_reference: Difference
    to_prototypes: Difference
    same_decision: NDArray[np.float64]
    resamples: int
    seed: int


def kept_accuracy(
    packages: Sequence[Package],
    data: Path,
    *,
    stages: Sequence[str] = ("tflite-int8",),
    per_gesture: int = 1,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Kept:
    """Judge every combination on recordings of users no package was trained or validated on.

    per_gesture: prototypes of each gesture; limit: at most so many windows of each package
    Raises ConfigError when a user would count twice or lacks windows of a group.
    """
    rows = combinations(stages, per_gesture)
    recordings = read_all(data, progress)
    plans = [StudyPlan.model_validate(p.manifest.config["plan"]) for p in packages]
    tests = [make_test_set(study_of(plan, recordings), TIER, limit) for plan in plans]
    require_users_once([(p.path.name, users_in(t)) for p, t in zip(packages, tests, strict=True)])
    parts = []
    for package, test in zip(packages, tests, strict=True):
        parts.append(judge(package, test, rows))
        if progress:
            progress(len(parts), len(packages), f"judge {package.path.name}")
    return measure_kept(rows, pooled(parts), seed=seed)


def combinations(stages: Sequence[str], per_gesture: int) -> tuple[Row, ...]:
    """The rows of the table, the reference first: neighbours, then prototypes."""
    if not stages or REFERENCE_STAGE in stages or per_gesture < 1:
        raise ConfigError(
            f"stages {', '.join(stages) or 'none'}, {per_gesture} prototypes per gesture: expected "
            f"stages to hold against {REFERENCE_STAGE!r}, as tflite-int8, and at least 1 prototype"
        )
    pairs = [(REFERENCE_STAGE, FLOAT_BITS), (REFERENCE_STAGE, 8)]
    pairs += [(stage, bits) for stage in stages for bits in (FLOAT_BITS, *CODE_BITS)]
    return tuple(Row(*pair, count) for count in (0, per_gesture) for pair in pairs)


def require_users_once(packages: Sequence[tuple[str, Sequence[str]]]) -> None:
    """packages: name and test users of each; ConfigError when two packages share a user."""
    first: dict[str, str] = {}
    for name, of_package in packages:
        for user in of_package:
            if user in first:
                raise ConfigError(
                    f"user {user} is a test user of {first[user]} and of {name}, expected every "
                    "user once; give packages whose test users differ"
                )
            first[user] = name


def users_in(test: TestSet) -> tuple[str, ...]:
    """Users who have windows in a test set."""
    return tuple(test.windows.users[u] for u in np.unique(test.windows.user))


def judge(package: Package, test: TestSet, rows: Sequence[Row]) -> Judged:
    """Every combination on one package's test windows; each encoder runs once."""
    found = {}
    for stage in dict.fromkeys(row.stage for row in rows):
        runtime = open_stage(package, stage)
        found[stage] = queries(stage, runtime, test.inputs)
        runtime.close()
    windows, groups = test.windows, test.groups
    unseen = np.isin(windows.label, [test.labels.index(g) for g in groups["unseen"]])
    own = np.empty((len(rows), len(windows)), np.int64)
    every = np.empty_like(own)
    sizes = []
    for r, row in enumerate(rows):
        k = 1 if row.prototypes else package.manifest.decision.k
        gallery = compressed(package.gallery(REFERENCE_STAGE), row.bits, row.prototypes)
        sizes.append([len(gallery.vectors), row_bytes(gallery.vectors.shape[1], row.bits)])
        for group, mask in (("seen", ~unseen), ("unseen", unseen)):
            own[r, mask] = predict(found[row.stage][mask], gallery.subset(groups[group]), k)
        every[r] = predict(found[row.stage], gallery.subset(groups["all"]), k)
    users = users_in(test)
    return Judged(
        users=users,
        user=np.unique(windows.user, return_inverse=True)[1].astype(np.int64),
        label=windows.label,
        trial=_trials(windows),
        unseen=unseen,
        own=own,
        every=every,
        chance=np.tile([1 / len(groups[group]) for group in AMONG], (len(users), 1)),
        gallery_rows=np.array(sizes)[:, 0],
        gallery_bytes=np.prod(sizes, axis=1),
    )


def _trials(windows: WindowSet) -> NDArray[np.int64]:
    """(N,) what counts as independent within each user's gesture."""
    trial = np.empty(len(windows), np.int64)
    for user, label in {*zip(windows.user.tolist(), windows.label.tolist(), strict=True)}:
        cell = (windows.user == user) & (windows.label == label)
        trial[cell] = independent_units(windows, cell)
    return trial


def pooled(parts: Sequence[Judged]) -> Judged:
    """Windows of several packages as one; their users must differ. Galleries: the largest."""
    first_user = np.cumsum([0, *(len(part.users) for part in parts)])

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, name) for part in parts], axis=-1)

    return Judged(
        users=tuple(user for part in parts for user in part.users),
        user=np.concatenate([p.user + u for p, u in zip(parts, first_user, strict=False)]),
        chance=np.concatenate([part.chance for part in parts]),
        gallery_rows=np.max([part.gallery_rows for part in parts], axis=0),
        gallery_bytes=np.max([part.gallery_bytes for part in parts], axis=0),
        **{name: joined(name) for name in ("label", "trial", "unseen", "own", "every")},
    )


def measure_kept(
    rows: Sequence[Row], judged: Judged, *, resamples: int = RESAMPLES, seed: int = 0
) -> Kept:
    """Accuracy, differences and intervals of decisions; ConfigError when a user lacks a group."""
    rng = np.random.default_rng(seed)
    people = len(judged.users)
    accuracy = user_scores(judged, lambda n: np.ones((1, n), np.int64))[0]  # R U S
    inner = user_scores(judged, lambda n: rng.multinomial(n, np.full(n, 1 / n), resamples))
    drawn = rng.integers(people, size=(resamples, people))  # B U
    # A user drawn twice brings two draws of trials: the same one would widen the interval.
    draws = rng.integers(resamples, size=(resamples, people))  # B U

    def against(base: int) -> Difference:
        gap, gaps = 100 * (accuracy - accuracy[base]), 100 * (inner - inner[:, [base]])
        nested = [gaps[draws, r, drawn].mean(axis=1) for r in range(len(rows))]  # each B S
        over_trials = ci95(np.stack(nested, axis=1))
        return Difference(gap.mean(axis=1), ci95(resampled(gap, drawn)), over_trials)

    own = judged.own == judged.own[0]
    same = [own[:, ~judged.unseen], own[:, judged.unseen], judged.every == judged.every[0]]
    return Kept(
        rows=tuple(rows),
        judged=judged,
        accuracy=accuracy,
        ci95=ci95(resampled(accuracy, drawn)),
        to_reference=against(0),
        to_prototypes=against(next(r for r, row in enumerate(rows) if row.prototypes)),
        same_decision=np.stack([share.mean(axis=1) for share in same], axis=1),
        resamples=resamples,
        seed=seed,
    )


def resampled(values: NDArray[np.float64], drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """Means over drawn users: values (R, U, S), drawn (B, U) -> (B, R, S)."""
    people = np.arange(values.shape[1])
    times = (drawn[:, :, None] == people).sum(axis=1)  # B U
    return np.asarray(np.einsum("bu,rus->brs", times, values) / len(people))


def ci95(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Percentiles 2.5 and 97.5 over the first axis: (B, ...) -> (2, ...)."""
    return np.asarray(np.percentile(samples, [2.5, 97.5], axis=0))


def user_scores(judged: Judged, draw: Draw) -> NDArray[np.float64]:
    """Every user's SCORES, (B, R, U, S); one draw serves all rows, which so stay paired."""
    return np.stack([_scores_of(judged, u, draw) for u in range(len(judged.users))], axis=2)


def _scores_of(judged: Judged, user: int, draw: Draw) -> NDArray[np.float64]:
    recalls = []
    for group, wanted in (("seen", False), ("unseen", True)):
        mine = (judged.user == user) & (judged.unseen == wanted)
        gestures = np.unique(judged.label[mine])
        if not len(gestures):
            raise ConfigError(
                f"user {judged.users[user]} has no window of the {group} gestures; use more windows"
            )
        cells = [_recall(judged, mine & (judged.label == gesture), draw) for gesture in gestures]
        recalls.append(np.mean(cells, axis=0))  # B R 2
    own, every = np.moveaxis(np.stack(recalls, axis=-1), 2, 0)  # each B R 2: seen, unseen
    total = np.maximum(every.sum(axis=-1, keepdims=True), 1e-12)
    return np.concatenate([own, every, 2 * every.prod(axis=-1, keepdims=True) / total], axis=-1)


def _recall(judged: Judged, cell: NDArray[np.bool_], draw: Draw) -> NDArray[np.float64]:
    """Recall of one user's gesture, among its own group and among all: (B, R, 2)."""
    _, trial = np.unique(judged.trial[cell], return_inverse=True)
    windows = np.bincount(trial)  # of each trial
    decided = np.stack([judged.own[:, cell], judged.every[:, cell]], axis=-1)  # R N 2
    right = decided == judged.label[cell][:, None]
    good = np.stack([right[:, trial == t].sum(axis=1) for t in range(len(windows))])  # n R 2
    times = draw(len(windows))  # B n
    return np.asarray(np.tensordot(times, good, 1) / (times @ windows)[:, None, None])

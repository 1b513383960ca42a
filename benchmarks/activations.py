"""`embridge eval PACKAGE --false-activations`: gestures reported while the hand was at rest.

The real decision logic decides whole recordings: encoder, vote, thresholds, debouncing. A false
activation is an "on" event all of whose windows lie in one stretch of rest; a gesture that merely
lingers into it is none. Rest is watched for as long as such an event could come.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from embridge.benchmarks.evaluation import TIERS, DataName, study_of
from embridge.device.decision import Debouncer, Decision, DecisionRule, Voter
from embridge.device.errors import ConfigError
from embridge.device.frontend import UserProfile
from embridge.device.package import Package, read_package
from embridge.device.pipeline import Model, decide_recording
from embridge.quantize.stages import open_stage
from embridge.training.paper.confusion import columns
from embridge.training.plan import StudyPlan
from embridge.training.signals import Signal
from embridge.training.study import Progress, Study, read_all

SWEEP = 21  # thresholds, evenly spaced among the quantiles of similarity


@dataclass(frozen=True)
class Watched:
    """One recording's decisions, nothing rejected yet, and what the hand really did.

    gesture: (N,) name that fills the window, or "" where it changes, is not labelled, or was given
    away as calibration; calm: (N,) rest fills this window and those that debouncing adds up;
    gap: (N,) samples were lost before this window
    """

    user: str
    decisions: Sequence[Decision]
    gesture: NDArray[np.str_]
    calm: NDArray[np.bool_]
    gap: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Point:
    """What one threshold gives. accuracy: of accepted gesture windows, None where none is."""

    min_similarity: float
    false_activations: int
    per_hour: float
    per_hour_ci95: tuple[float, float]
    rest_windows_accepted: float
    accepted: float
    accuracy: float | None


@dataclass(frozen=True)
class Activations:
    """The package's own threshold and a sweep; hours of rest watched, by user."""

    package: str
    stage: str
    tier: str
    data: DataName
    rule: DecisionRule
    rest_hours: dict[str, float]
    own: Point
    sweep: tuple[Point, ...]

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "package": self.package,
            "stage": self.stage,
            "tier": self.tier,
            "data": {"name": self.data.name, "synthetic": self.data.synthetic},
            "rule": self.rule.model_dump(),
            "rest_hours": sum(self.rest_hours.values()),
            "rest_hours_by_user": self.rest_hours,
            "own_threshold": asdict(self.own),
            "sweep": [asdict(point) for point in self.sweep],
        }

    def text(self) -> str:
        """What was run on what, and one line for each threshold."""
        hours = sum(self.rest_hours.values())
        cells = [["threshold", "false activations", "per hour of rest [95 % Poisson]", *_SHARES]]
        cells += [_cells(self.own, "  (the package's)")]
        cells += [_cells(point, "") for point in self.sweep]
        return (
            f"{self.package}, {self.stage}, on {self.data}: {len(self.rest_hours)} users never "
            f"trained or validated on, {hours:.3f} h of rest ({3600 * hours:.0f} s), all gestures "
            f"compete\ntier {self.tier}: {TIERS[self.tier]}. Debounced by "
            f"{self.rule.debounce_ms:g} ms. The interval is exact for the count of events; it does "
            f"not cover how users differ.\n\n{columns(cells)}"
        )


_SHARES = ("rest windows accepted", "gesture windows accepted", "right of those accepted")


def _cells(point: Point, mark: str) -> list[str]:
    low, high = point.per_hour_ci95
    return [
        f"{point.min_similarity:.4f}{mark}",
        str(point.false_activations),
        f"{point.per_hour:.1f} [{low:.1f}, {high:.1f}]",
        f"{point.rest_windows_accepted:.3f}",
        f"{point.accepted:.3f}",
        "-" if point.accuracy is None else f"{point.accuracy:.3f}",
    ]


def false_activations(
    path: Path,
    data: Path,
    *,
    stage: str = "tflite-int8",
    tier: str = "T1",
    thresholds: Sequence[float] = (),
    progress: Progress | None = None,
) -> Activations:
    """Decide all recordings of users not trained or validated on; count events during rest.

    thresholds: of min_similarity; by default a sweep. Raises a leaf of EmbridgeError, also when
    there is no rest to watch.
    """
    if path.is_dir():
        raise ConfigError(
            f"{path}: false activations are counted with a package's decision rule: expected "
            "NAME.embridge, got a folder; make one with `embridge lower`"
        )
    package = read_package(path)
    plan = StudyPlan.model_validate(package.manifest.config["plan"])
    recordings = read_all(data)
    study = study_of(plan, recordings)
    signals = [s for s in study.signals if s.split == "test" and s.user in study.plan.strangers]
    runtime = open_stage(package, stage)
    voter = Voter(package.gallery(stage), package.manifest.decision.k)
    watched = []
    for number, signal in enumerate(signals):
        profile = _profile(study, signal.user, tier)
        model = Model(_rejecting_nothing(package), stage, runtime, voter, profile)
        watched.append(watch(model, signal))
        if progress:
            progress(number + 1, len(signals), f"decide {signal.outline.name}")
    runtime.close()
    return summarise(package, stage, tier, DataName.of(data, recordings), watched, thresholds)


def _profile(study: Study, user: str, tier: str) -> UserProfile | None:
    if tier == "T1" and user not in study.profiles:
        raise ConfigError(
            f"tier T1: no unlabelled EMG of a seen gesture to make a profile of {user} from; "
            "use tier T0 or add recordings"
        )
    return study.profiles[user] if tier == "T1" else None


def _rejecting_nothing(package: Package) -> Package:
    """The same package, whose decisions keep the winner whatever its similarity."""
    manifest = package.manifest
    rule = manifest.decision.model_copy(update={"min_similarity": -2.0, "min_vote": 0.0})
    return replace(package, manifest=manifest.model_copy(update={"decision": rule}))


def watch(model: Model, signal: Signal) -> Watched:
    """Decide a whole recording."""
    spec, rule = model.package.manifest.input, model.package.manifest.decision
    runs, outline = signal.runs, signal.outline
    jump = -(-spec.window // spec.hop) * spec.hop  # beside a gap; keeps to the grid of windows
    breaks = ~runs.follows
    breaks[0] = False
    run = np.searchsorted(runs.stop, np.arange(len(runs)), side="right")  # T
    index = np.arange(len(runs)) + jump * np.cumsum(breaks)[run]
    decisions = decide_recording(model, outline.rows.emg(0, len(runs)), index)
    start = np.array([decision.start for decision in decisions], np.int64)
    first = np.searchsorted(index, start)
    last = run[first + spec.window - 1]
    names = np.array([*outline.head.gestures, ""])  # -1 is UNLABELLED
    given = np.concatenate([[0], np.cumsum(signal.calibration)])
    whole = (runs.stretch[run[first]] == runs.stretch[last]) & (
        given[last + 1] == given[run[first]]
    )
    gesture = np.where(whole, names[runs.gesture[run[first]]], "")
    gap = np.diff(start, prepend=start[:1] - spec.hop) != spec.hop
    resting = gesture == rule.null_gesture
    calm = _calm(resting, runs.stretch[run[first]], gap, rule.hops_held(spec.hop_ms))
    return Watched(signal.user, decisions, gesture, calm, gap)


def _calm(
    rest: NDArray[np.bool_], stretch: NDArray[np.int32], gap: NDArray[np.bool_], hops: int
) -> NDArray[np.bool_]:
    """Windows that, with the hops - 1 before them, lie in one stretch of rest."""
    piece = np.cumsum(gap)
    changes = (np.diff(piece) != 0) | (np.diff(stretch) != 0) | (np.diff(rest) != 0)
    begins = np.concatenate([[0], np.flatnonzero(changes) + 1]).astype(np.int64)
    position = np.arange(len(rest))
    since = position - begins[np.searchsorted(begins, position, side="right") - 1]
    return np.asarray(rest & (since >= hops - 1))


def summarise(
    package: Package,
    stage: str,
    tier: str,
    data: DataName,
    watched: Sequence[Watched],
    thresholds: Sequence[float] = (),
) -> Activations:
    """Rates of the package's own threshold and of others; ConfigError without rest."""
    manifest = package.manifest
    hop_hours = manifest.input.hop_ms / 3_600_000
    hours: dict[str, float] = {}
    for one in watched:
        hours[one.user] = hours.get(one.user, 0.0) + float(one.calm.sum()) * hop_hours
    if not sum(hours.values()):
        raise ConfigError(
            f"{data.name}: no rest to watch: expected stretches labelled rest, longer than a window"
            " and the debouncing, of users the package was not trained on; add recordings with rest"
        )
    similarity = [d.similarity for one in watched for d in one.decisions]
    swept = thresholds or np.unique(np.quantile(similarity, np.linspace(0, 1, SWEEP)))

    def at(threshold: float) -> Point:
        rule = manifest.decision.model_copy(update={"min_similarity": float(threshold)})
        return _point(watched, rule, manifest.input.hop_ms, sum(hours.values()))

    own = at(manifest.decision.min_similarity)
    points = tuple(at(threshold) for threshold in swept)
    return Activations(package.path.name, stage, tier, data, manifest.decision, hours, own, points)


def _point(watched: Sequence[Watched], rule: DecisionRule, hop_ms: float, hours: float) -> Point:
    false = rest = rest_accepted = made = accepted = right = 0
    for one in watched:
        judged = [_judged(decision, rule) for decision in one.decisions]
        false += _activations(one, judged, rule, hop_ms)
        found = np.array([d.gesture or rule.null_gesture for d in judged])
        active = found != rule.null_gesture
        resting = one.gesture == rule.null_gesture
        moving = (one.gesture != "") & ~resting
        rest += int(resting.sum())
        rest_accepted += int((resting & active).sum())
        made += int(moving.sum())
        accepted += int((moving & active).sum())
        right += int((moving & active & (found == one.gesture)).sum())
    return Point(
        min_similarity=rule.min_similarity,
        false_activations=false,
        per_hour=false / hours,
        per_hour_ci95=poisson_interval(false, hours),
        rest_windows_accepted=rest_accepted / max(1, rest),
        accepted=accepted / max(1, made),
        accuracy=right / accepted if accepted else None,
    )


def _judged(decision: Decision, rule: DecisionRule) -> Decision:
    kept = rule.accepts(decision.similarity, decision.share)
    return decision if kept else replace(decision, gesture=None)


def _activations(
    one: Watched, judged: Sequence[Decision], rule: DecisionRule, hop_ms: float
) -> int:
    debouncer, count = Debouncer(rule, hop_ms), 0
    for decision, calm, gap in zip(judged, one.calm, one.gap, strict=True):
        if gap:
            debouncer.reset()
        began = any(event.state == "on" for event in debouncer.push(decision))
        count += bool(began and calm)
    return count


def poisson_interval(events: int, hours: float) -> tuple[float, float]:
    """Exact 95 % interval of a rate per hour (Garwood 1936), events counted in so many hours."""
    low = chi2.ppf(0.025, 2 * events) / 2 if events else 0.0
    return float(low / hours), float(chi2.ppf(0.975, 2 * events + 2) / 2 / hours)

"""False activations: what counts as one, over how much rest, with which interval."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from embridge.benchmarks.activations import (
    Watched,
    _calm,
    false_activations,
    poisson_interval,
    summarise,
)
from embridge.benchmarks.evaluation import DataName
from embridge.device.decision import Decision, DecisionRule
from embridge.device.errors import ConfigError
from embridge.device.package import Package

RULE = DecisionRule(k=10, min_similarity=0.5, min_vote=0.5, debounce_ms=300, null_gesture="rest")
DATA = DataName("somewhere", synthetic=True)


@dataclasses.dataclass(frozen=True)
class Input:
    hop_ms: float = 100.0


@dataclasses.dataclass(frozen=True)
class Facts:
    """The part of a manifest that figures are made from."""

    decision: DecisionRule = RULE
    input: Input = Input()


def package() -> Package:
    return Package(Path("x.embridge"), Facts(), {}, "")  # type: ignore[arg-type]


def watched(
    did: list[str], decided: list[str], similarity: float | list[float] = 0.9, hops: int = 3
) -> Watched:
    """One decision each 100 ms; every change of what was done begins a new stretch."""
    gesture = np.array(did)
    stretch = np.cumsum(np.r_[False, gesture[1:] != gesture[:-1]]).astype(np.int32)
    gap = np.zeros(len(did), bool)
    values = np.broadcast_to(similarity, len(did))
    decisions = [
        Decision(10 * n, name, 1.0, float(value))
        for n, (name, value) in enumerate(zip(decided, values, strict=True))
    ]
    calm = _calm(gesture == "rest", stretch, gap, hops)
    return Watched("u0", decisions, gesture, calm, gap)


def test_a_gesture_that_is_reported_in_the_middle_of_rest_is_one_false_activation() -> None:
    one = watched(["rest"] * 12, ["rest"] * 4 + ["fist"] * 5 + ["rest"] * 3)
    found = summarise(package(), "float", "T0", DATA, [one])
    assert found.own.false_activations == 1
    assert found.rest_hours == {"u0": pytest.approx(10 * 0.1 / 3600)}
    assert found.own.per_hour == pytest.approx(3600)
    assert found.own.rest_windows_accepted == pytest.approx(5 / 12)
    assert found.own.accuracy is None


def test_debouncing_swallows_what_does_not_hold() -> None:
    one = watched(["rest"] * 12, ["rest", "fist", "fist", "rest"] * 3)
    assert summarise(package(), "float", "T0", DATA, [one]).own.false_activations == 0


def test_a_gesture_that_lingers_into_rest_is_no_false_activation() -> None:
    """It begins rightly, and late: the last window that confirms it lies in rest."""
    did = ["fist"] * 6 + ["rest"] * 10
    held = watched(did, ["rest"] * 2 + ["fist"] * 8 + ["rest"] * 6)
    late = watched(did, ["rest"] * 5 + ["fist"] * 5 + ["rest"] * 6)
    for one in (held, late):
        found = summarise(package(), "float", "T0", DATA, [one])
        assert found.own.false_activations == 0
        assert found.rest_hours["u0"] == pytest.approx(8 * 0.1 / 3600)
    assert summarise(package(), "float", "T0", DATA, [held]).own.accepted == pytest.approx(4 / 6)


def test_a_higher_threshold_trades_activations_for_accepted_gestures() -> None:
    did = ["rest"] * 10 + ["fist"] * 10
    decided = ["point"] * 10 + ["fist"] * 10
    one = watched(did, decided, [0.6] * 10 + [0.8] * 5 + [0.55] * 5)
    found = summarise(package(), "float", "T0", DATA, [one], thresholds=[0.0, 0.7, 0.9])
    assert [p.false_activations for p in found.sweep] == [1, 0, 0]
    assert [p.accepted for p in found.sweep] == [1.0, 0.5, 0.0]
    assert [p.accuracy for p in found.sweep] == [1.0, 1.0, None]
    text = found.text()
    assert "somewhere (synthetic)" in text
    assert "tier T0" in text
    assert "h of rest" in text


def test_a_gap_begins_anew() -> None:
    rest, stretch = np.ones(8, bool), np.zeros(8, np.int32)
    gap = np.array([False] * 4 + [True] + [False] * 3)
    assert _calm(rest, stretch, gap, 3).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]


def test_without_rest_there_is_nothing_to_watch() -> None:
    with pytest.raises(ConfigError, match="no rest to watch") as error:
        summarise(package(), "float", "T0", DATA, [watched(["fist"] * 9, ["fist"] * 9)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("events", "hours", "low", "high"),
    [(0, 1.0, 0.0, 3.6889), (1, 1.0, 0.0253, 5.5716), (10, 2.0, 2.3977, 9.1952)],
)
def test_the_interval_is_that_of_poisson_tables(
    events: int, hours: float, low: float, high: float
) -> None:
    """Garwood's exact limits for 0, 1 and 10 events: 3.69, .0253 to 5.57, 4.80 to 18.39."""
    assert poisson_interval(events, hours) == pytest.approx((low, high), abs=2e-4)


def test_a_package_is_watched_while_the_hand_rests(made: Path) -> None:
    """Real decisions of a tiny demo: every window of every recording, rest in one file a user."""
    found = false_activations(made / "raw.embridge", made / "synthetic", stage="float")
    read = json.loads(json.dumps(found.json()))
    users = len(json.loads((made / "report.json").read_text())["data"]["test_users"])
    assert len(found.rest_hours) == users
    assert 0.5 * users < 3600 * read["rest_hours"] < 4 * users  # 4 s each, less a window and more
    assert read["own_threshold"]["min_similarity"] == read["rule"]["min_similarity"]
    accepted = [point["accepted"] for point in read["sweep"]]
    assert accepted == sorted(accepted, reverse=True)
    assert "tier T1" in found.text()

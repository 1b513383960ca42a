"""Runtimes side by side: the same encoder in each, and ratios that a noisy machine cannot move."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from embridge.benchmarks.contestants import OWN_INT8, contestants
from embridge.benchmarks.latency import WARM_UP
from embridge.benchmarks.speed import PARTS, speed, text
from embridge.device.errors import ConfigError
from embridge.device.package import Package, read_package

NAMES = [
    "float",
    *("executorch-fp32", "executorch-int8", "tflite-fp32", "tflite-int8"),
    *("onnx-fp32", "onnx-int8", OWN_INT8),
]


@pytest.fixture(scope="module")
def package(made) -> Package:
    return read_package(made / "raw.embridge")


def ticking(*, slow: range = range(0)) -> Callable[[], int]:
    """A clock that shows 1 us between two looks, and 10 us at those numbered in `slow`."""
    steps_ns = (10_000 if look in slow else 1_000 for look in itertools.count())
    return itertools.accumulate(steps_ns).__next__


def test_every_contestant_runs_the_same_encoder(package):
    entrants = contestants(package)
    assert [c.name for c in entrants] == NAMES
    expected = entrants[0].embed(3)
    for contestant in entrants:
        embedding = contestant.embed(3)
        norms = np.linalg.norm(embedding) * np.linalg.norm(expected)
        assert embedding @ expected / norms > 0.98, contestant.name
        assert contestant.network(3).size == embedding.size
        if contestant.name != "tflite-int8":  # gives codes
            assert np.allclose(contestant.network(3).ravel(), embedding, atol=1e-5)


def test_the_codes_of_tflite_alone_are_those_of_its_embedding(package):
    (entrant,) = (c for c in contestants(package) if c.name == "tflite-int8")
    scale = package.manifest.embedding.scale
    assert np.allclose(entrant.network(5).ravel() * scale, entrant.embed(5), atol=1e-6)


def test_times_are_those_of_the_clock_in_microseconds(package):
    result = speed(package, runs=7, rounds=2, clock_ns=ticking())
    assert (result["runs"], result["rounds"], result["threads"]) == (6, 2, 1)
    for contestant in result["contestants"].values():
        for part in PARTS:
            assert contestant[part] == dict.fromkeys(("p50_us", "p90_us", "p99_us", "min_us"), 1.0)


def test_a_noisy_neighbour_in_one_round_moves_the_tail_and_no_ratio(package):
    rounds, runs = 3, 9
    looks = 2 * len(NAMES) * len(PARTS) * (WARM_UP + runs // rounds)  # in a round
    noise = range(looks, looks + looks // 2)  # half of the second round
    result = speed(package, runs=runs, rounds=rounds, clock_ns=ticking(slow=noise))
    assert result["contestants"]["executorch-int8"]["embed"]["p99_us"] > 9
    assert result["contestants"][OWN_INT8]["embed"]["p99_us"] == 1
    assert len(result["ratios"]) == 6
    assert {ratio[part] for ratio in result["ratios"] for part in PARTS} == {1.0}


def test_the_table_says_what_was_measured_and_where(package):
    result = speed(package, runs=2, rounds=2, clock_ns=ticking())
    shown = text(result)
    assert "1 thread, this machine (" in shown
    assert "batch 1" in shown
    assert all(name in shown for name in NAMES)
    assert f"tflite-int8 than {OWN_INT8}" in shown


def test_rounds_without_a_run_are_refused(package):
    with pytest.raises(ConfigError, match="got 3 runs in 4 rounds"):
        speed(package, runs=3, rounds=4)

"""`embridge parity`, `audit` and `bench` as a user types them, on the package of a tiny demo."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def package(made: Path) -> Path:
    return made / "raw.embridge"


def test_audit_lists_operators_and_the_kernels_that_ran(cli: Cli, package: Path) -> None:
    code, out, _ = cli("audit", package, "--stage", "tflite-int8", "--kernels", "--json")
    result = json.loads(out)
    assert (code, result["failures"]) == (0, [])
    assert list(result["stages"]) == ["tflite-int8"]
    stage = result["stages"]["tflite-int8"]
    assert stage["integer"] is True
    assert {row["integer"] for row in stage["operators"] + stage["kernels"]} == {True}
    assert result["integer_share_of_arithmetic"] == 1
    code, out, _ = cli("audit", package)
    assert code == 0
    assert "tflite-fp32: float" in out
    assert "CONV_2D (float32" in out


def test_parity_exits_with_1_beyond_a_limit_and_prints_it_all_the_same(
    cli: Cli, package: Path
) -> None:
    code, out, _ = cli("parity", package, "--json")
    result = json.loads(out)
    assert code == (0 if result["passed"] else 1)
    assert bool(result["failures"]) != result["passed"]
    pairs = {(pair["a"], pair["b"]): pair for pair in result["pairs"]}
    assert pairs["fakequant", "graph"]["codes_differ"]["max_lsb"] == 0


def test_accuracy_is_judged_and_drawn(cli: Cli, made: Path, tmp_path: Path) -> None:
    command = ("bench", "accuracy", made / "raw.embridge", "--data", made / "synthetic")
    drawing = tmp_path / "kept.svg"
    code, out, _ = cli(*command, "--limit", 100, "--plot", drawing, "--json")
    assert code == 0
    assert {row["encoder"] for row in json.loads(out)["rows"]} == {"float", "tflite-int8"}
    assert drawing.read_text().lstrip().startswith("<?xml")


def test_sensitivity_has_a_row_for_every_quantizer(cli: Cli, made: Path, tmp_path: Path) -> None:
    command = ("bench", "sensitivity", made / "raw.embridge", "--data", made / "synthetic")
    code, out, _ = cli(*command, "--limit", 60, "--plot", tmp_path / "s.png", "--json")
    assert code == 0
    rows = json.loads(out)["layers"]
    weights = {(row["layer"], row["bits"]) for row in rows if row["part"] == "weights"}
    assert {("stem.conv", 8), ("stem.conv", 4), ("head", 8), ("head", 4)} <= weights
    lost = {(row["layer"], row["bits"]): row["cosine_lost"] for row in rows}
    assert lost["stem.conv", 4] > lost["stem.conv", 8]
    alone = [loss for (layer, bits), loss in lost.items() if bits == 8 and layer != "all"]
    assert lost["all", 8] > max(alone)
    assert (tmp_path / "s.png").stat().st_size > 1000


def test_latency_names_machine_and_threads(cli: Cli, package: Path) -> None:
    code, out, _ = cli("bench", "latency", package, "--runs", 20, "--rounds", 2)
    assert code == 0
    assert "1 thread" in out
    assert "times faster" in out


def test_a_package_without_arm_stages_says_how_to_make_them(cli: Cli, package: Path) -> None:
    code, out, err = cli("bench", "npu", package)
    assert (code, out) == (1, "")
    assert "--to ethos-u,cortex-m" in err

"""Parity: every stage against the one before it, and what happens when an artefact is not right."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from embridge.benchmarks.parity import parity
from embridge.benchmarks.parity_pairs import StageOutput, compare, excesses, pair_names
from embridge.benchmarks.parity_report import text
from embridge.benchmarks.parity_stages import with_held_weights
from embridge.benchmarks.parity_windows import parity_windows, spread
from embridge.device.errors import ConfigError
from embridge.device.manifest import STAGE_FILES, ParityLimits
from embridge.device.package import Package, read_package, write_package
from embridge.quantize.export import export_graph
from embridge.quantize.lower import export_float_graph, lower_stage
from embridge.quantize.quantizer import QuantizedEncoder, state_for_file
from embridge.quantize.stages import TorchEncoder, quantized_encoder

# A net trained for a few steps loses more in int8 than a real one; that is not what is tested here.
LIMITS = ParityLimits(cosine_to_float_mean=0.9, cosine_to_float_p01=0.8)


@pytest.fixture(scope="module")
def package(made: Path) -> Package:
    return read_package(made / "raw.embridge")


@pytest.fixture
def rebuilt(package: Package, tmp_path: Path) -> Callable[..., Path]:
    """Write the package once more with some files exchanged."""

    def rebuild(**files: bytes) -> Path:
        path = tmp_path / "planted.embridge"
        manifest = package.manifest.model_copy(update={"parity": LIMITS})
        planted = {STAGE_FILES[stage.replace("_", "-")]: data for stage, data in files.items()}
        write_package(path, manifest, {**package.files, **planted})
        return path

    return rebuild


@pytest.fixture
def encoder_copy(package: Package) -> QuantizedEncoder:
    encoder = quantized_encoder(package)
    assert isinstance(encoder, QuantizedEncoder)
    return encoder


def pair_of(result: dict[str, Any], a: str, b: str) -> dict[str, Any]:
    (pair,) = [pair for pair in result["pairs"] if (pair["a"], pair["b"]) == (a, b)]
    return dict(pair)


def test_a_package_keeps_its_limits_and_fake_quantization_is_the_graph(
    made: Path, rebuilt: Callable[..., Path]
) -> None:
    result = parity(rebuilt(), made / "synthetic", count=150)
    assert result["passed"], text(result)
    assert result["failures"] == []
    assert result["windows"] == 150
    assert pair_of(result, "fakequant", "graph")["codes_differ"]["share"] == 0
    codes = pair_of(result, "executorch-int8", "tflite-int8")["codes_differ"]
    assert codes["max_lsb"] <= 1
    assert sum(codes["counts"].values()) == codes["codes"]
    worst = pair_of(result, "float", "tflite-int8")["worst_windows"]
    assert len(worst) == 10
    assert [w["cosine"] for w in worst] == sorted(w["cosine"] for w in worst)
    assert json.loads(json.dumps(result)) == result


def test_windows_cover_all_users_and_gestures_evenly(made: Path, package: Package) -> None:
    windows = parity_windows(package, made / "synthetic", count=150)
    labels = set(package.manifest.labels)
    cells = {(u, g): 0 for u, g in zip(windows.users, windows.gestures, strict=True)}
    for cell in zip(windows.users, windows.gestures, strict=True):
        cells[cell] += 1
    plan = package.manifest.config["plan"]
    split = {*plan["train_users"], *plan["val_users"], *plan["test_users"]}
    assert set(windows.users) == split
    assert {gesture for _, gesture in cells} == labels
    assert set(package.manifest.unseen) < labels
    assert max(cells.values()) - min(cells.values()) <= 1 + max(0, 150 // len(cells))
    assert windows.inputs.shape[0] == 150 < windows.available


def test_without_recordings_the_golden_windows_are_used(package: Package) -> None:
    windows = parity_windows(package)
    assert (windows.source, windows.available) == ("golden", 64)
    with pytest.raises(ConfigError, match="golden windows are of tier T1"):
        parity_windows(package, tier="T0")
    with pytest.raises(ConfigError, match="expected T0 or T1"):
        parity_windows(package, tier="T2")


def test_tiers_give_other_windows_of_the_same_moments(made: Path, package: Package) -> None:
    with_profile, without = (
        parity_windows(package, made / "synthetic", count=40, tier=tier) for tier in ("T1", "T0")
    )
    assert with_profile.users == without.users
    assert not np.array_equal(with_profile.inputs, without.inputs)


def test_an_artefact_with_another_scale_fails_and_names_the_layer(
    rebuilt: Callable[..., Path], encoder_copy: QuantizedEncoder
) -> None:
    quantizer: Any = encoder_copy.twin.blocks[1].relu1
    scaling = quantizer.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl
    scaling.value.data.mul_(0.4)
    data = lower_stage("tflite-int8", export_graph(encoder_copy.twin)).data
    result = parity(rebuilt(tflite_int8=data))
    assert not result["passed"]
    layer = "blocks.1.depthwise"
    line = next(line for line in result["failures"] if line.startswith("graph -> tflite-int8"))
    assert f"first at {layer} (conv2d)" in line
    found = pair_of(result, "graph", "tflite-int8")["first_diverging_layer"]
    assert found["layer"] == layer
    before = [row for row in found["table"] if row["layer"] in ("input", "blocks.0.depthwise")]
    assert all(row["same_grid"] for row in before)
    assert all(row["codes_differ"] < 0.001 for row in before)  # a tie in a float32 sum, at most
    assert not [line for line in result["failures"] if line.startswith("graph -> executorch")]
    assert text(result).splitlines()[-1] == result["failures"][-1]


def test_a_fake_quantized_state_that_is_not_the_artefacts_fails_at_its_layer(
    rebuilt: Callable[..., Path], encoder_copy: QuantizedEncoder
) -> None:
    with torch.no_grad():
        encoder_copy.twin.blocks[1].pointwise.bias.add_(0.5)
    state = {k: v for k, v in state_for_file(encoder_copy).items() if k.startswith("twin.")}
    result = parity(rebuilt(fakequant=save(state)))
    for stage in ("executorch-int8", "tflite-int8"):
        found = pair_of(result, "graph", stage)["first_diverging_layer"]
        assert found["layer"] == "blocks.1.pointwise"
        assert any(f"graph -> {stage}" in line for line in result["failures"])
    assert pair_of(result, "executorch-int8", "tflite-int8")["codes_differ"]["max_lsb"] <= 1


def test_a_pte_with_swapped_weights_fails_in_int8_and_in_float(
    rebuilt: Callable[..., Path], encoder_copy: QuantizedEncoder
) -> None:
    with torch.no_grad():
        for network in (encoder_copy.twin, encoder_copy.float_encoder):
            weight: Any = network.blocks[1].pointwise.weight
            weight.copy_(weight.flip(0))
    path = rebuilt(
        executorch_int8=lower_stage("executorch-int8", export_graph(encoder_copy.twin)).data,
        executorch_fp32=lower_stage(
            "executorch-fp32", export_float_graph(encoder_copy.float_encoder)
        ).data,
    )
    result = parity(path)
    for a, stage in (("graph", "executorch-int8"), ("float", "executorch-fp32")):
        assert pair_of(result, a, stage)["first_diverging_layer"]["layer"] == "blocks.1.pointwise"
        assert any(
            line.startswith(f"{a} -> {stage}") and "first at blocks.1.pointwise (conv2d)" in line
            for line in result["failures"]
        )
    both = pair_of(result, "executorch-int8", "tflite-int8")
    assert both["codes_differ"]["max_lsb"] > 1
    assert both["first_diverging_layer"]["layer"] == "blocks.1.pointwise"


def test_a_slow_stage_sees_few_windows_and_one_that_cannot_be_read_says_so(
    rebuilt: Callable[..., Path], encoder_copy: QuantizedEncoder
) -> None:
    twin, grid = encoder_copy.twin, (encoder_copy.scale, encoder_copy.zero_point)
    with torch.no_grad():
        twin.head.weight.neg_()
    slow = {"cortex-m4": lambda _: TorchEncoder(twin, *grid)}
    path = rebuilt(cortex_m4=b"opened by the function above", ethos_u55_128=b"has no runtime here")
    result = parity(path, slow=slow, slow_windows=8)
    assert result["stages"]["cortex-m4"] == 8
    pair = pair_of(result, "graph", "cortex-m4")
    assert (pair["windows"], pair["first_diverging_layer"]["layer"]) == (8, None)
    assert any(
        line.startswith("graph -> cortex-m4: ") and "its layers cannot be read" in line
        for line in result["failures"]
    )
    assert list(result["stages_skipped"]) == ["ethos-u55-128"]
    assert "not run: ethos-u55-128" in text(result)


def test_an_arm_artefact_that_the_packages_networks_do_not_give_fails(
    rebuilt: Callable[..., Path],
) -> None:
    pytest.importorskip("ethosu")
    result = parity(rebuilt(cortex_m4=b"some other program"), count=4)
    (line,) = result["failures"]
    assert line.startswith("cortex-m4: ")
    assert "that its own networks give" in line
    assert not result["passed"]


def test_layers_are_walked_when_asked_for(package: Package) -> None:
    result = parity(package.path, count=8, layers=True)
    found = pair_of(result, "float", "fakequant")["first_diverging_layer"]
    assert found["criterion"] == "largest loss"
    assert found["angle_added_deg"] > 0
    assert pair_of(result, "fakequant", "graph")["first_diverging_layer"] is None


def test_held_weights_change_no_bit(package: Package, encoder_copy: QuantizedEncoder) -> None:
    twin, held = encoder_copy.twin, with_held_weights(encoder_copy.twin)
    windows = torch.from_numpy(parity_windows(package, count=16).inputs)
    with torch.inference_mode():
        for window in torch.split(windows, 1):
            assert torch.equal(twin.embed(window), held.embed(window))


def output(stage: str, queries: list[list[int]], decisions: list[int]) -> StageOutput:
    codes = np.array(queries, np.int8)
    return StageOutput(stage, np.arange(len(codes)), codes, np.array(decisions), 0)


def test_a_pair_counts_codes_decisions_and_ranks_the_worst() -> None:
    a = output("graph", [[10, 10], [10, 10], [10, 10]], [0, 1, 1])
    b = output("tflite-int8", [[10, 10], [10, 13], [10, 11]], [0, 1, 0])
    pair = compare(a, b)
    assert pair.max_lsb == 3
    assert pair.codes_differ_share == pytest.approx(2 / 6)
    assert pair.same.tolist() == [True, True, False]
    assert pair.worst().tolist() == [1, 2]
    over = excesses(pair, ParityLimits())
    assert [(e.what, e.limit) for e in over] == [
        ("largest difference of codes", 2),
        ("same decision", 0.999),
    ]
    assert excesses(pair, ParityLimits(graph_max_lsb=3, graph_same_top1=0.5)) == []


@pytest.mark.parametrize(
    ("a", "b", "limit"),
    [
        ("graph", "tflite-int8", 2),
        ("executorch-int8", "tflite-int8", 1),
        ("graph", "cortex-m4", 4),
        ("cortex-m4", "ethos-u55-128-executorch", 4),
    ],
)
def test_each_kind_of_pair_has_its_own_limit(a: str, b: str, limit: int) -> None:
    pair = compare(output(a, [[0, 9]], [0]), output(b, [[0, 9 - limit - 1]], [0]))
    assert [e.limit for e in excesses(pair, ParityLimits())] == [limit]


def test_only_windows_that_both_have_seen_are_compared() -> None:
    a = output("graph", [[1, 2], [3, 4], [5, 6]], [0, 1, 2])
    b = replace(output("cortex-m4", [[3, 4]], [1]), windows=np.array([1]))
    pair = compare(a, b)
    assert pair.a.windows.tolist() == [1]
    assert (pair.max_lsb, pair.same.all()) == (0, True)


def test_an_embedding_that_is_not_a_number_keeps_no_limit() -> None:
    a = StageOutput("float", np.arange(1), np.ones((1, 2), np.float32), np.zeros(1, np.int64), 0)
    b = replace(a, stage="tflite-fp32", queries=np.full((1, 2), np.nan, np.float32))
    assert len(excesses(compare(a, b), ParityLimits())) == 1


def test_every_stage_is_compared_with_the_one_before_it() -> None:
    stages = ["float", "fakequant", "graph", "executorch-fp32", "executorch-int8", "tflite-int8"]
    assert pair_names(stages) == [
        ("float", "fakequant"),
        ("fakequant", "graph"),
        ("graph", "executorch-int8"),
        ("graph", "tflite-int8"),
        ("executorch-int8", "tflite-int8"),
        ("float", "executorch-fp32"),
        ("float", "executorch-int8"),
        ("float", "tflite-int8"),
    ]


@settings(max_examples=200, deadline=None)
@given(cells=st.lists(st.integers(0, 6), min_size=1, max_size=80), count=st.integers(1, 100))
def test_windows_are_spread_as_evenly_as_the_cells_allow(cells: list[int], count: int) -> None:
    array = np.array(cells)
    chosen = spread(array, count)
    assert len(chosen) == min(count, len(cells))
    assert np.all(np.diff(chosen) > 0)
    size, taken = (np.bincount(array, minlength=7), np.bincount(array[chosen], minlength=7))
    short = [t for s, t in zip(size, taken, strict=True) if t < s]
    assert not short or max(taken) <= min(short) + 1

"""Looking inside: every layer of every stage, and the first one where two stages part."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embridge.benchmarks.artefact_cuts import LayerValues, executorch_values, litert_values
from embridge.benchmarks.first_divergence import (
    Layer,
    compare_layer,
    diverge,
    graph_values,
    layers_of,
    module_values,
)
from embridge.device.runtimes import ExecutorchEncoder, LiteRtEncoder
from embridge.quantize.errors import LoweringError
from embridge.quantize.export import export_graph
from embridge.quantize.lower import export_float_graph, lower_stage
from embridge.quantize.quantizer import QuantizedEncoder, quantize_encoder
from embridge.quantize.silence import quiet
from embridge.training.watch import WatchEncoder

Windows = NDArray[np.float32]
NAMES = [
    "input",
    "stem.conv",
    "blocks.0.depthwise",
    "blocks.0.pointwise",
    "blocks.1.depthwise",
    "blocks.1.pointwise",
    "pooled",
    "head",
]


@pytest.fixture(scope="module")
def quantized(make_windows, encoder: WatchEncoder) -> QuantizedEncoder:
    return quantize_encoder(encoder, make_windows(100, 256), "w8a8", seed=0)


@pytest.fixture(scope="module")
def program(quantized):
    return export_graph(quantized.twin)


@pytest.fixture(scope="module")
def artefacts(quantized):
    if shutil.which("g++") is None:
        pytest.skip("needs g++, which compiles the ExecuTorch interface")
    graphs = {
        "int8": export_graph(quantized.twin),
        "fp32": export_float_graph(quantized.float_encoder),
    }
    stages = [f"{family}-{kind}" for family in ("executorch", "tflite") for kind in graphs]
    return {stage: lower_stage(stage, graphs[stage[-4:]]).data for stage in stages}


@pytest.fixture(scope="module")
def windows(make_windows) -> Windows:
    return make_windows(7, 8)


def inside(artefacts, stage: str, windows: Windows) -> list[LayerValues]:
    look = executorch_values if stage.startswith("executorch") else litert_values
    return look(artefacts[stage], windows)


def test_layers_have_the_names_of_the_modules_that_compute_them(program):
    layers = layers_of(program)
    assert [layer.name for layer in layers] == NAMES
    assert [layer.operator for layer in layers[1:]] == [*["conv2d"] * 5, "mean", "conv2d"]


def test_fake_quantization_and_the_graph_are_equal_at_every_layer(quantized, program, windows):
    codes = graph_values(program, windows)
    values = module_values(quantized.twin, quantized.twin, windows)
    for layer, value in zip(codes, values, strict=True):
        real = (layer.values.astype(np.float32) - layer.zero_point) * np.float32(layer.scale)
        assert np.array_equal(real, value)


@pytest.mark.parametrize("stage", ["executorch-int8", "tflite-int8"])
def test_an_int8_artefact_shows_the_codes_of_every_layer(artefacts, program, windows, stage):
    found = diverge(
        layers_of(program), graph_values(program, windows), inside(artefacts, stage, windows)
    )
    assert [row.layer for row in found.table] == NAMES
    assert all(row.same_grid and row.max_lsb <= 1 for row in found.table)
    assert found.table[0].codes_differ == 0


@pytest.mark.parametrize("stage", ["executorch-fp32", "tflite-fp32"])
def test_a_float_artefact_shows_the_values_of_every_layer(artefacts, quantized, windows, stage):
    values = module_values(quantized.float_encoder, quantized.twin, windows)
    for mine, theirs in zip(inside(artefacts, stage, windows), values, strict=True):
        assert np.allclose(mine.values, theirs, atol=1e-4)


@pytest.mark.parametrize("stage", ["executorch-int8", "tflite-int8"])
def test_the_last_layer_is_what_the_whole_artefact_gives(artefacts, quantized, windows, stage):
    data = artefacts[stage]
    if stage == "tflite-int8":
        runtime = LiteRtEncoder(data)
    else:
        runtime = ExecutorchEncoder(data, scale=quantized.scale, zero_point=quantized.zero_point)
    whole = np.stack([runtime.codes(window) for window in windows])
    assert np.array_equal(inside(artefacts, stage, windows)[-1].values, whole)


@pytest.mark.parametrize(
    ("stage", "name"), [("executorch-int8", "stem.conv"), ("tflite-int8", "blocks.1.depthwise")]
)
def test_a_layer_with_another_scale_is_named(
    artefacts, program, windows, make_windows, encoder, stage, name
):
    other = quantize_encoder(encoder, make_windows(100, 256), "w8a8", seed=0)
    quantizer = other.twin.stem.relu if name == "stem.conv" else other.twin.blocks[1].relu1
    quantizer.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl.value.data.mul_(1.3)
    data = lower_stage(stage, export_graph(other.twin)).data
    found = diverge(
        layers_of(program),
        graph_values(program, windows),
        inside({stage: data}, stage, windows),
    )
    assert found.layer is not None
    assert (found.layer.layer, found.criterion) == (name, "first beyond rounding")
    assert found.layer.same_grid is False


def test_two_int8_artefacts_of_other_weights_part_at_that_layer(
    artefacts, program, windows, make_windows, encoder
):
    other = quantize_encoder(encoder, make_windows(100, 256), "w8a8", seed=0)
    with torch.no_grad():
        weight = other.twin.blocks[1].pointwise.weight
        weight.copy_(weight.flip(0))
    data = lower_stage("executorch-int8", export_graph(other.twin)).data
    found = diverge(
        layers_of(program),
        inside(artefacts, "tflite-int8", windows),
        executorch_values(data, windows),
    )
    assert found.layer is not None
    assert found.layer.layer == "blocks.1.pointwise"
    assert found.layer.codes_differ > 0.1


def test_between_float_and_int8_the_layer_that_loses_most_is_named(quantized, program, windows):
    values = module_values(quantized.float_encoder, quantized.twin, windows)
    noisy = [LayerValues(v, None, 0) for v in values]
    codes = graph_values(program, windows)
    codes[5] = LayerValues(np.roll(codes[5].values, 1, axis=1), codes[5].scale, -128)
    found = diverge(layers_of(program), noisy, codes)
    assert found.layer is not None
    assert (found.layer.layer, found.criterion) == ("blocks.1.pointwise", "largest loss")
    angles = [row.angle_deg for row in found.table]
    assert found.angle_added_deg == pytest.approx(angles[5] - angles[4])


def test_an_artefact_of_more_than_one_delegate_is_refused(quantized, windows):
    from executorch.exir import to_edge

    with quiet():
        edge = to_edge(export_float_graph(quantized.float_encoder))
        portable = bytes(edge.to_executorch().buffer)
    with pytest.raises(LoweringError, match="expected one XNNPACK delegate") as error:
        executorch_values(portable, windows)
    assert "\n" not in str(error.value)


@settings(max_examples=50, deadline=None)
@given(
    codes=st.lists(st.integers(-100, 100), min_size=8, max_size=8),
    moved=st.lists(st.integers(-3, 3), min_size=8, max_size=8),
)
def test_a_layer_counts_the_codes_that_differ(codes: list[int], moved: list[int]) -> None:
    layer = Layer("x", "conv2d", 0.5, 0)
    a = np.array(codes, np.int8).reshape(2, 4)
    b = a + np.array(moved, np.int8).reshape(2, 4)
    row = compare_layer(layer, LayerValues(a, 0.5, 0), LayerValues(b, 0.5, 0))
    assert row.codes_differ == np.mean(np.array(moved) != 0)
    assert row.max_lsb == max(map(abs, moved))
    assert row.differs == any(moved)

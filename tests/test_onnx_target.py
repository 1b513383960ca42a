"""One exported graph to ONNX: integer in ONNX Runtime, equal codes, equal bytes each time."""

import hashlib
import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from embridge.device.errors import ConfigError, PackageError
from embridge.device.manifest import STAGE_FILES
from embridge.device.package import read_package, write_package
from embridge.quantize.audit import require_integer
from embridge.quantize.errors import LoweringError
from embridge.quantize.export import export_graph
from embridge.quantize.layers import folded_encoder
from embridge.quantize.lower import lower_all
from embridge.quantize.onnx_encoder import OnnxEncoder
from embridge.quantize.quantizer import (
    QuantizedEncoder,
    from_state,
    quantize_encoder,
    state_for_file,
)
from embridge.quantize.stages import open_stage, quantized_encoder
from embridge.quantize.targets.onnx import lower
from embridge.quantize.targets.table import audit
from embridge.training.watch import FloatLayers, WatchEncoder

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed"
)


@pytest.fixture(scope="module")
def quantized(make_windows, encoder: WatchEncoder) -> QuantizedEncoder:
    return quantize_encoder(encoder, make_windows(100, 256), "w8a8", seed=0)


@pytest.fixture
def copy_of_quantized(quantized) -> QuantizedEncoder:
    return from_state(quantized.twin.shape, "w8a8", state_for_file(quantized))


@pytest.fixture(scope="module")
def artefacts(quantized):
    return lower_all(quantized, ["onnx"])


def test_int8_codes_are_those_of_fake_quantization_within_one(make_windows, quantized, artefacts):
    encoder = OnnxEncoder(
        artefacts["onnx-int8"].data, scale=quantized.scale, zero_point=quantized.zero_point
    )
    windows = make_windows(9, 256)
    codes = np.stack([encoder.codes(window) for window in windows]).astype(np.int64)
    differ = codes - quantized.codes(windows)
    assert np.abs(differ).max() <= 1
    assert np.mean(differ != 0) < 0.01  # observed 0.0024


def test_the_float_model_agrees_with_torch(make_windows, quantized, artefacts):
    windows, encoder = make_windows(11), OnnxEncoder(artefacts["onnx-fp32"].data)
    with torch.no_grad():
        expected = quantized.float_encoder.embed(torch.from_numpy(windows)).numpy()
    assert np.allclose([encoder.embed(window) for window in windows], expected, atol=1e-5)


def test_the_runtime_makes_integer_operators_of_all_but_the_ends(artefacts):
    rows = artefacts["onnx-int8"].audit
    assert {(r.op, r.count) for r in rows if "float32" in r.dtype_in + r.dtype_out} == {
        ("QuantizeLinear", 1),
        ("DequantizeLinear", 1),
    }
    inside = {row.op: row.count for row in rows if "Q" in row.op and "Linear" in row.op}
    assert inside["QLinearConv"] == 6
    assert inside["QLinearGlobalAveragePool"] == 1


def test_every_convolution_reads_int8_weights_and_an_int32_bias(artefacts):
    from onnx import TensorProto, load_from_string

    graph = load_from_string(artefacts["onnx-int8"].data).graph
    makers = {name: node for node in graph.node for name in node.output}
    types = {constant.name: constant.data_type for constant in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for node in convolutions:
        x, weight, bias = (makers[name] for name in node.input)
        assert {x.op_type, weight.op_type, bias.op_type} == {"DequantizeLinear"}
        assert types[weight.input[0]] == TensorProto.INT8
        assert types[bias.input[0]] == TensorProto.INT32
    assert len(convolutions) == 6


LOWER_ELSEWHERE = """
import hashlib, json, sys
from safetensors.torch import load_file
from embridge.quantize.lower import lower_all
from embridge.quantize.quantizer import from_state
from embridge.training.watch import Stage, WatchShape

shape = WatchShape(8, 200, 16, Stage(16, 9, 2), (Stage(24, 9, 2), Stage(32, 5, 2)))
artefacts = lower_all(from_state(shape, "w8a8", load_file(sys.argv[1])), ["onnx"])
print(json.dumps({s: hashlib.sha256(a.data).hexdigest() for s, a in artefacts.items()}))
"""


def test_another_process_makes_equal_bytes_and_writes_nothing_else(quantized, artefacts, tmp_path):
    save_file(state_for_file(quantized), tmp_path / "state.safetensors")
    command = [sys.executable, "-c", LOWER_ELSEWHERE, str(tmp_path / "state.safetensors")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    hashes = {stage: hashlib.sha256(a.data).hexdigest() for stage, a in artefacts.items()}
    assert json.loads(result.stdout) == hashes


def test_a_convolution_that_the_runtime_keeps_in_float_is_named(copy_of_quantized):
    twin = copy_of_quantized.twin
    twin.blocks[0].relu1 = nn.ReLU()
    rows = audit("onnx-int8", lower(export_graph(twin)))
    with pytest.raises(
        LoweringError, match=r"onnx-int8: .* 1 FusedConv \(float32, float32, float32 -> float32\)"
    ):
        require_integer("onnx-int8", rows)


def test_float_weights_are_refused_before_the_runtime_quantizes_them_by_its_own_rule(
    copy_of_quantized,
):
    twin = copy_of_quantized.twin
    twin.head = folded_encoder(twin.shape, FloatLayers()).head
    rows = audit("onnx-int8", lower(export_graph(twin)))
    require_integer("onnx-int8", rows)  # the runtime hides it
    with pytest.raises(LoweringError, match="1 conv2d of module 'head' stayed in float"):
        lower_all(copy_of_quantized, ["onnx-int8"])


def test_an_operator_without_translation_is_named(copy_of_quantized):
    twin = copy_of_quantized.twin
    twin.output = nn.Sequential(twin.output, nn.Softmax(dim=1), twin.output)
    with pytest.raises(LoweringError, match=r"onnx: expected conv2d.*got aten\.softmax"):
        lower(export_graph(twin))


def test_activations_that_onnx_would_clip_elsewhere_are_refused(make_windows, encoder):
    narrow = quantize_encoder(encoder, make_windows(100, 256), "w8a8", seed=0).twin
    graph = export_graph(narrow)
    (first, *_) = graph.graph_module.graph.find_nodes(
        op="call_function", target=torch.ops.quantized_decomposed.quantize_per_tensor.default
    )
    first.update_arg(3, -8)
    with pytest.raises(LoweringError, match=r"got codes -8\.\.127"):
        lower(graph)


def test_a_window_of_another_shape_and_float_codes_are_refused(artefacts):
    encoder = OnnxEncoder(artefacts["onnx-fp32"].data)
    with pytest.raises(ConfigError, match=r"window has shape \(8, 199\)"):
        encoder.embed(np.zeros((8, 199), np.float32))
    with pytest.raises(ConfigError, match="float embeddings"):
        encoder.codes(np.zeros((8, 200), np.float32))


def test_damaged_bytes_are_refused_in_one_line(artefacts):
    with pytest.raises(PackageError, match="ONNX Runtime cannot load") as caught:
        OnnxEncoder(artefacts["onnx-int8"].data[:1000])
    assert "\n" not in str(caught.value)


@pytest.fixture
def package(made, tmp_path):
    """The package of a demo with ONNX models in it, written with changes of its embedding."""
    plain = read_package(made / "raw.embridge")
    artefacts = lower_all(quantized_encoder(plain), ["onnx"])
    models = {STAGE_FILES[stage]: artefact.data for stage, artefact in artefacts.items()}

    def write(**changes):
        embedding = plain.manifest.embedding.model_copy(update=changes)
        manifest = plain.manifest.model_copy(update={"embedding": embedding})
        write_package(tmp_path / "onnx.embridge", manifest, {**plain.files, **models})
        return read_package(tmp_path / "onnx.embridge")

    return write


def test_a_package_opens_its_onnx_stages(package):
    opened = package()
    golden = opened.golden()
    codes = np.stack([open_stage(opened, "onnx-int8").codes(w) for w in golden["windows"]])
    assert np.abs(codes.astype(np.int64) - golden["query.fakequant"]).max() <= 1
    embeddings = np.stack([open_stage(opened, "onnx-fp32").embed(w) for w in golden["windows"]])
    assert np.allclose(embeddings, golden["query.float"], atol=1e-4)


def test_an_artefact_of_another_size_than_the_manifest_says_is_refused(package):
    with pytest.raises(PackageError, match=r"onnx-fp32: the artefact has \(C, T, D\) = .*, the ma"):
        open_stage(package(dim=7), "onnx-fp32")

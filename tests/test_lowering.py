"""One exported graph to .pte and .tflite: integer only, equal codes, equal bytes each time."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from embridge.device.errors import ConfigError
from embridge.device.manifest import CORTEX_CPUS, ETHOS_NPUS, STAGE_FILES
from embridge.device.runtimes import EncoderRuntime, open_runtime
from embridge.quantize.audit import require_integer
from embridge.quantize.errors import LoweringError
from embridge.quantize.export import export_graph
from embridge.quantize.layers import folded_encoder
from embridge.quantize.lower import lower_all
from embridge.quantize.quantizer import (
    QuantizedEncoder,
    from_state,
    quantize_encoder,
    state_for_file,
)
from embridge.quantize.targets.table import TARGETS, audit, stages_of
from embridge.quantize.targets.tflite import lower_float
from embridge.training.watch import FloatLayers, Stage, WatchEncoder, WatchShape

SHAPE = WatchShape(8, 200, 16, Stage(16, 9, 2), (Stage(24, 9, 2), Stage(32, 5, 2)))
Windows = NDArray[np.float32]
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++, which compiles the ExecuTorch interface"
)


@pytest.fixture(scope="module")
def quantized(make_windows, encoder: WatchEncoder) -> QuantizedEncoder:
    return quantize_encoder(encoder, make_windows(100, 256), "w8a8", seed=0)


@pytest.fixture
def copy_of_quantized(quantized) -> QuantizedEncoder:
    return from_state(SHAPE, "w8a8", state_for_file(quantized))


@pytest.fixture(scope="module")
def artefacts(quantized):
    return lower_all(quantized, ["executorch", "tflite"])


def runtime(quantized: QuantizedEncoder, stage: str, data: bytes) -> EncoderRuntime:
    return open_runtime(
        stage,
        data,
        channels=SHAPE.channels,
        window=SHAPE.window,
        embedding_dim=SHAPE.embedding,
        scale=quantized.scale,
        zero_point=quantized.zero_point,
    )


def codes_of(quantized, artefacts, stage: str, windows: Windows) -> NDArray[np.int64]:
    encoder = runtime(quantized, stage, artefacts[stage].data)
    return np.stack([encoder.codes(window) for window in windows]).astype(np.int64)


@needs_compiler
def test_executorch_codes_are_those_of_fake_quantization_within_one(
    make_windows, quantized, artefacts
):
    windows = make_windows(9, 256)
    differ = codes_of(quantized, artefacts, "executorch-int8", windows) - quantized.codes(windows)
    assert np.abs(differ).max() <= 1
    assert np.mean(differ != 0) < 0.01  # observed 0.0009


@needs_compiler
def test_tflite_and_executorch_give_equal_codes(make_windows, quantized, artefacts):
    windows = make_windows(10, 256)
    pte, tflite = (
        codes_of(quantized, artefacts, stage, windows)
        for stage in ("executorch-int8", "tflite-int8")
    )
    assert np.abs(pte - tflite).max() <= 1
    assert np.mean(pte != tflite) < 0.001  # observed 0


@pytest.mark.parametrize(
    "stage", [pytest.param("executorch-fp32", marks=needs_compiler), "tflite-fp32"]
)
def test_float_artefacts_agree_with_torch(make_windows, quantized, artefacts, stage):
    windows = make_windows(11)
    encoder = runtime(quantized, stage, artefacts[stage].data)
    with torch.no_grad():
        expected = quantized.float_encoder.embed(torch.from_numpy(windows)).numpy()
    assert np.allclose([encoder.embed(window) for window in windows], expected, atol=1e-4)


def test_int8_artefacts_are_integer_between_their_ends(artefacts):
    tflite = artefacts["tflite-int8"].audit
    assert {(row.dtype_in.split(",")[0], row.dtype_out) for row in tflite} == {("int8", "int8")}
    pte = artefacts["executorch-int8"].audit
    floats = [row for row in pte if "fp32" in row.dtype_in + row.dtype_out]
    assert [(r.op, r.dtype_in, r.dtype_out, r.count) for r in floats] == [
        ("Convert", "fp32", "qint8", 1),
        ("Convert", "qint8", "fp32", 1),
    ]
    assert [row.count for row in pte if row.op.startswith("delegate")] == [1]


def test_int8_artefacts_are_smaller_than_float_ones(artefacts):
    for family in ("executorch", "tflite"):
        assert len(artefacts[f"{family}-int8"].data) < len(artefacts[f"{family}-fp32"].data)


LOWER_ELSEWHERE = """
import hashlib, json, sys
from safetensors.torch import load_file
from embridge.quantize.lower import lower_all
from embridge.quantize.quantizer import from_state
from embridge.training.watch import Stage, WatchShape

shape = WatchShape(8, 200, 16, Stage(16, 9, 2), (Stage(24, 9, 2), Stage(32, 5, 2)))
artefacts = lower_all(from_state(shape, "w8a8", load_file(sys.argv[1])), ["executorch", "tflite"])
print(json.dumps({s: hashlib.sha256(a.data).hexdigest() for s, a in artefacts.items()}))
"""


def test_another_process_makes_equal_bytes_and_writes_nothing_else(quantized, artefacts, tmp_path):
    save_file(state_for_file(quantized), tmp_path / "state.safetensors")
    command = [sys.executable, "-c", LOWER_ELSEWHERE, str(tmp_path / "state.safetensors")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    hashes = {stage: hashlib.sha256(a.data).hexdigest() for stage, a in artefacts.items()}
    assert json.loads(result.stdout) == hashes


@pytest.mark.parametrize("stage", ["executorch-int8", "tflite-int8"])
def test_a_softmax_left_in_float_is_named(copy_of_quantized, stage):
    twin = copy_of_quantized.twin
    twin.head = nn.Sequential(twin.head, nn.Softmax(dim=1))
    with pytest.raises(LoweringError, match=f"{stage}: .* 1 softmax of module 'head.1'") as caught:
        lower_all(copy_of_quantized, [stage])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stage", ["executorch-int8", "tflite-int8"])
def test_a_convolution_that_was_not_quantized_is_named(copy_of_quantized, stage):
    copy_of_quantized.twin.head = folded_encoder(SHAPE, FloatLayers()).head
    with pytest.raises(LoweringError, match=f"{stage}: .* 1 conv2d of module 'head' stayed in"):
        lower_all(copy_of_quantized, [stage])


def test_an_operator_that_only_the_backend_keeps_in_float_is_named(copy_of_quantized):
    """XNNPACK has no int8 softmax, so a softmax between two quantizers falls back to float."""
    twin = copy_of_quantized.twin
    twin.output = nn.Sequential(twin.output, nn.Softmax(dim=1), twin.output)
    with pytest.raises(LoweringError, match=r"executorch-int8: .* 1 aten::_softmax \(float"):
        lower_all(copy_of_quantized, ["executorch-int8"])


def test_a_tflite_made_without_its_quantization_setting_is_caught(quantized):
    data = lower_float(export_graph(quantized.twin))
    with pytest.raises(LoweringError, match=r"CONV_2D \(float32"):
        require_integer("tflite-int8", audit("tflite-int8", data))


def test_a_family_names_its_stages_and_an_unknown_target_is_refused():
    assert stages_of(["tflite", "executorch-int8"]) == [
        "executorch-int8",
        "tflite-fp32",
        "tflite-int8",
    ]
    assert stages_of(["onnx", "cortex-m"])[2:] == [f"cortex-{cpu}" for cpu in CORTEX_CPUS]
    assert stages_of(["ethos-u55-128"]) == ["ethos-u55-128", "ethos-u55-128-executorch"]
    assert len(stages_of(["ethos-u"])) == 2 * len(ETHOS_NPUS)
    assert set(TARGETS) == set(STAGE_FILES) - {"float", "fakequant"}
    with pytest.raises(ConfigError, match="got coreml"):
        stages_of(["coreml"])

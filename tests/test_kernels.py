"""Kernels that really ran: named by the runtimes, integer in int8 artefacts and not in others."""

import pytest
import torch
from torch import nn

from embridge.device.errors import ConfigError
from embridge.quantize.errors import LoweringError
from embridge.quantize.export import export_graph
from embridge.quantize.kernels import require_integer_kernels, run_kernels
from embridge.quantize.lower import export_float_graph, lower_all
from embridge.quantize.quantizer import (
    QuantizedEncoder,
    from_state,
    quantize_encoder,
    state_for_file,
)
from embridge.quantize.targets import tflite, xnnpack
from embridge.training.watch import WatchEncoder


@pytest.fixture(scope="module")
def quantized(make_windows, encoder: WatchEncoder) -> QuantizedEncoder:
    return quantize_encoder(encoder, make_windows(100, 256), "w8a8", seed=0)


@pytest.fixture
def copy_of_quantized(quantized) -> QuantizedEncoder:
    return from_state(quantized.twin.shape, "w8a8", state_for_file(quantized))


@pytest.fixture(scope="module")
def window(make_windows):
    return make_windows(1)[0]


@pytest.fixture(scope="module")
def kernels(quantized, window):
    """Stage -> kernels that ran."""
    artefacts = lower_all(quantized, ["executorch", "tflite"])
    return {stage: run_kernels(stage, a.data, window) for stage, a in artefacts.items()}


def test_executorch_runs_int8_kernels_of_xnnpack_and_nothing_else(kernels):
    ran = kernels["executorch-int8"]
    products = [k for k in ran if k.name.startswith(("Convolution", "Fully Connected"))]
    assert len(products) == 6
    assert all("QC8" in k.types for k in products)
    assert {k.library for k in ran} == {"XNNPACK"}
    assert [k.types for k in ran if k.name == "Convert (NC)"] == [
        "fp32 -> qint8",
        "qint8 -> fp32",
    ]
    require_integer_kernels("executorch-int8", ran)


def test_xnnpack_takes_every_node_of_the_int8_tflite(kernels):
    ran = kernels["tflite-int8"]
    assert {k.library for k in ran} == {"XNNPACK"}
    assert all(k.types.startswith("int8") and k.types.endswith("-> int8") for k in ran)
    require_integer_kernels("tflite-int8", ran)


@pytest.mark.parametrize(
    ("stage", "kernel"),
    [
        ("executorch-fp32", r"1 Convolution \(NHWC, F32\) IGEMM \(F32\) of XNNPACK"),
        ("tflite-fp32", r"2 DEPTHWISE_CONV_2D \(float32, float32, float32 -> float32\)"),
    ],
)
def test_kernels_of_a_float_artefact_are_named(kernels, stage, kernel):
    with pytest.raises(LoweringError, match=f"{stage}: expected integer kernels only.*{kernel}"):
        require_integer_kernels(stage, kernels[stage])


def test_only_executorch_tells_times(kernels):
    assert all(k.mean_us >= 0 for k in kernels["executorch-int8"])
    assert {k.mean_us for k in kernels["tflite-int8"]} == {None}


def test_a_float_kernel_between_integer_ones_is_named(copy_of_quantized, window):
    twin = copy_of_quantized.twin
    twin.output = nn.Sequential(twin.output, nn.Softmax(dim=1), twin.output)
    ran = run_kernels("executorch-int8", xnnpack.lower(export_graph(twin)), window)
    with pytest.raises(LoweringError, match=r"but 1 native_call__softmax.out \(float.* of Exec"):
        require_integer_kernels("executorch-int8", ran)


class RunningSum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(x, dim=1)


def test_a_node_that_xnnpack_leaves_to_litert_is_told_apart(copy_of_quantized, window):
    float_encoder = copy_of_quantized.float_encoder
    float_encoder.output = RunningSum()
    ran = run_kernels("tflite-fp32", tflite.lower_float(export_float_graph(float_encoder)), window)
    assert [k.name for k in ran if k.library == "LiteRT"] == ["CUMSUM"]
    assert "CONV_2D" in {k.name for k in ran if k.library == "XNNPACK"}


def test_a_run_without_any_kernel_proves_nothing():
    with pytest.raises(LoweringError, match="none at all ran"):
        require_integer_kernels("executorch-int8", ())


def test_a_stage_whose_runtime_does_not_tell_is_refused(window):
    with pytest.raises(ConfigError, match="stage 'onnx-int8': expected executorch"):
        run_kernels("onnx-int8", b"", window)

"""`base` with integer linears: calibration, one exported graph, artefacts, package."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from embridge.device.errors import ConfigError, PackageError
from embridge.device.manifest import RUNTIME_STAGES
from embridge.device.runtimes import EncoderRuntime, LiteRtEncoder, open_runtime
from embridge.quantize.audit import AuditRow, require_integer
from embridge.quantize.base_layers import BaseShape, IntegerLinear, float_form, linears_of
from embridge.quantize.base_quantizer import (
    QuantizedBase,
    base_from_state,
    quantize_base,
)
from embridge.quantize.contract import CONTRACTS, arithmetic
from embridge.quantize.errors import LoweringError
from embridge.quantize.export import export_graph
from embridge.quantize.graph_check import require_quantized
from embridge.quantize.lower import Artefact, lower_all
from embridge.quantize.quantizer import quantize_encoder
from embridge.training.base import QFormerBase
from embridge.training.config import BaseConfig
from embridge.training.watch import WatchEncoder

Windows = NDArray[np.float32]
CONFIG = BaseConfig(
    dim=32, depth=1, heads=4, feed_forward=64, patch_ms=25, queries=4, instance_norm="window"
)
SHAPE = BaseShape(CONFIG, channels=8, window=200, rate_hz=1000, embedding=CONFIG.dim)  # 8 patches
LINEARS = 1 + 5 + (5 + 3) + 1  # patches, E_x, Q-Former with cross-attention, projection
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++, which compiles the ExecuTorch interface"
)


def lively(shape: BaseShape) -> QFormerBase:
    """An encoder whose biases and queries matter, as after training."""
    torch.manual_seed(0)
    encoder = shape.untrained()
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            nn.init.normal_(module.bias, std=0.2)
    nn.init.normal_(encoder.qformer.queries)
    return encoder.eval()


@pytest.fixture(scope="module")
def base() -> QFormerBase:
    return lively(SHAPE)


@pytest.fixture(scope="module")
def quantized(make_windows, base) -> QuantizedBase:
    return quantize_base(base, SHAPE, make_windows(100, 256), "w8a8", seed=0)


@pytest.fixture(scope="module")
def artefacts(quantized) -> dict[str, Artefact]:
    return lower_all(quantized, ["executorch", "tflite"])


def state(quantized: QuantizedBase) -> dict[str, torch.Tensor]:
    parts = {"twin": quantized.twin, "float": quantized.float_encoder}
    return {f"{p}.{k}": v.clone() for p, m in parts.items() for k, v in m.state_dict().items()}


def copy_of(quantized: QuantizedBase) -> QuantizedBase:
    return base_from_state(SHAPE, "w8a8", state(quantized))


def opened(quantized: QuantizedBase, stage: str, data: bytes) -> EncoderRuntime:
    return open_runtime(
        stage,
        data,
        channels=SHAPE.channels,
        window=SHAPE.window,
        embedding_dim=SHAPE.embedding,
        queries=SHAPE.queries,
        scale=quantized.scale,
        zero_point=quantized.zero_point,
    )


def cosines(a: NDArray[np.generic], b: NDArray[np.generic]) -> NDArray[np.float64]:
    """Of matching query vectors."""
    pair = (torch.from_numpy(x.astype(np.float64)) for x in (a, b))
    return F.cosine_similarity(*pair, dim=-1).numpy()


def floats(quantized: QuantizedBase, windows: Windows) -> Windows:
    with torch.no_grad():
        return quantized.float_encoder.embed(torch.from_numpy(windows)).numpy()


@pytest.mark.parametrize("features", ["waveform", "rms"])
@pytest.mark.parametrize("instance_norm", ["none", "window", "channel"])
def test_the_float_form_gives_the_queries_of_the_trained_encoder(
    make_windows, features, instance_norm
):
    changes = {"features": features, "instance_norm": instance_norm, "depth": 2}
    config = CONFIG.model_copy(update=changes)
    shape = replace(SHAPE, config=config)
    encoder, windows = lively(shape), torch.from_numpy(make_windows(1))
    with torch.no_grad():
        got = F.normalize(float_form(shape, encoder).embed(windows), dim=-1)
        assert torch.allclose(got, encoder(windows), atol=1e-5)


def test_the_twin_without_quantizers_gives_what_the_float_form_gives(make_windows, quantized):
    twin = copy_of(quantized).twin
    for layer in linears_of(twin):
        layer.enter = layer.leave = nn.Identity()
        plain = nn.Linear(layer.linear.in_features, layer.linear.out_features)
        plain.load_state_dict({k: layer.linear.state_dict()[k] for k in ("weight", "bias")})
        layer.linear = plain
    windows = make_windows(2)
    with torch.no_grad():
        got = twin.embed(torch.from_numpy(windows)).numpy()
    assert cosines(got, floats(quantized, windows)).min() > 0.99999  # biases are on a grid


def test_int8_queries_stay_close_to_float(make_windows, quantized):
    windows = make_windows(3, 128)
    codes = quantized.codes(windows)
    assert codes.shape == (128, 4, 32)
    assert len(np.unique(codes)) > 150  # the range is used
    cosine = cosines(codes, floats(quantized, windows))
    assert cosine.mean() > 0.999
    assert cosine.min() > 0.99


def test_the_exported_graph_gives_the_codes_of_fake_quantization(make_windows, quantized):
    module, windows = export_graph(quantized.twin).module(), make_windows(4)
    codes = quantized.codes(windows)
    for window, code in zip(torch.from_numpy(windows).split(1), codes, strict=True):
        with torch.no_grad():
            expected = quantized.twin(window[:, :, None])
            assert torch.equal(module(window[:, :, None]), expected)
        assert np.array_equal(code, torch.round(expected / quantized.scale).view(4, 32).numpy())


@pytest.mark.parametrize(
    "stage", [pytest.param("executorch-int8", marks=needs_compiler), "tflite-int8"]
)
def test_int8_artefacts_agree_with_fake_quantization(make_windows, quantized, artefacts, stage):
    """Float operators between the linears round differently, so codes move, but not far."""
    windows = make_windows(5)
    encoder = opened(quantized, stage, artefacts[stage].data)
    codes = np.stack([encoder.codes(window) for window in windows])
    expected = quantized.codes(windows)
    assert codes.shape == expected.shape
    assert cosines(codes, expected).min() > 0.999
    assert np.array_equal(encoder.embed(windows[0]), codes[0] * np.float32(quantized.scale))


@pytest.mark.parametrize(
    "stage", [pytest.param("executorch-fp32", marks=needs_compiler), "tflite-fp32"]
)
def test_float_artefacts_agree_with_torch(make_windows, quantized, artefacts, stage):
    windows = make_windows(6)
    encoder = opened(quantized, stage, artefacts[stage].data)
    got = np.stack([encoder.embed(window) for window in windows])
    assert np.allclose(got, floats(quantized, windows), atol=1e-3)


def test_every_linear_of_an_int8_artefact_is_integer(artefacts):
    rows = {
        ("executorch-int8", "FullyConnected", "qint8, qcint8, qcint32", "qint8"),
        ("tflite-int8", "FULLY_CONNECTED", "int8, int8, int32", "int8"),
    }
    for stage, op, dtype_in, dtype_out in rows:
        linears = [row for row in artefacts[stage].audit if row.op == op]
        assert linears == [AuditRow(op, dtype_in, dtype_out, LINEARS, True)]


def test_the_delegates_are_cut_only_at_layer_norms_and_window_statistics(artefacts):
    rows = artefacts["executorch-int8"].audit
    outside = {row.op for row in rows if row.op.startswith("aten::")}
    assert {"aten::native_layer_norm", "aten::var", "aten::mean"} <= outside
    assert not outside & {"aten::bmm", "aten::_softmax", "aten::gelu", "aten::addmm"}
    layer_norms = sum(row.count for row in rows if row.op == "aten::native_layer_norm")
    delegates = sum(row.count for row in rows if row.op.startswith("delegate"))
    assert delegates <= layer_norms + 1


def test_int8_artefacts_are_smaller_than_float_ones(artefacts):
    for family in ("executorch", "tflite"):
        assert len(artefacts[f"{family}-int8"].data) < len(artefacts[f"{family}-fp32"].data)


@pytest.mark.parametrize("stage", ["executorch-int8", "tflite-int8"])
def test_a_linear_left_in_float_is_named(quantized, stage):
    copy = copy_of(quantized)
    copy.twin.base.project = nn.Linear(32, 32)
    with pytest.raises(LoweringError, match=f"{stage}: .*1 linear of module 'base.project' stayed"):
        lower_all(copy, [stage])


def test_a_linear_without_a_quantized_input_is_named(quantized):
    twin = copy_of(quantized).twin
    layer = twin.base.encoder.blocks[0].mlp[2]
    assert isinstance(layer, IntegerLinear)
    layer.enter = nn.Identity()
    with pytest.raises(
        LoweringError, match=r"1 linear of module 'base\.encoder\.blocks\.0\.mlp\.2"
    ):
        require_quantized("executorch-int8", export_graph(twin), CONTRACTS["base"])


def test_an_artefact_whose_linears_are_float_or_fewer_is_refused(artefacts):
    contract = CONTRACTS["base"]
    for stage in ("executorch", "tflite"):
        with pytest.raises(LoweringError, match=r"(?i)fully_?connected"):
            require_integer(stage, artefacts[f"{stage}-fp32"].audit, contract, LINEARS)
        rows = artefacts[f"{stage}-int8"].audit
        require_integer(stage, rows, contract, LINEARS)
        with pytest.raises(LoweringError, match=f"expected {LINEARS + 1} .* got {LINEARS}"):
            require_integer(stage, rows, contract, LINEARS + 1)


def test_shares_of_arithmetic_add_up_and_macs_are_those_of_the_shapes(quantized):
    result = arithmetic(export_graph(quantized.twin), CONTRACTS["base"])
    floats = result["float_operators"]
    total = sum(row["share_of_arithmetic"] for row in floats)
    assert total + result["integer_share_of_arithmetic"] == pytest.approx(1)
    assert 0.5 < result["integer_share_of_arithmetic"] < 1
    count = {row["op"]: row["count"] for row in floats}
    assert count == {
        "std": 1,
        "mean": 1,
        "sub": 1,
        "div": 1,
        "layer_norm": (2 + 1) + (3 + 1),  # E_x, Q-Former
        "bmm": 2 * 3,
        "softmax": 3,
        "mul": 3,
        "gelu": 2,
        "add": 1 + 2 + 2 + 3,  # to std, positions, E_x, Q-Former
    }
    tokens, dim, wide, queries, patches = 9, 32, 64, 4, 8
    linears = patches * 8 * 25 * dim + queries * dim * dim
    linears += (tokens + queries) * (4 * dim * dim + 2 * dim * wide)  # E_x, Q-Former
    linears += 2 * queries * dim * dim + tokens * 2 * dim * dim  # cross-attention
    products = 2 * dim * (tokens**2 + queries**2 + queries * tokens)
    assert result["macs"] == linears + products


def test_all_of_watch_is_integer_and_its_macs_are_those_of_its_shape(make_windows, encoder):
    watch = quantize_encoder(encoder, make_windows(100, 64), "w8a8", seed=0)
    result = arithmetic(export_graph(watch.twin))
    assert result["integer_share_of_arithmetic"] == 1
    assert result["float_operators"] == []
    assert isinstance(encoder, WatchEncoder)
    assert result["macs"] == encoder.shape.macs()


def test_a_saved_state_reloads_to_equal_bits(make_windows, quantized):
    windows, again = make_windows(7), copy_of(quantized)
    assert np.array_equal(again.codes(windows), quantized.codes(windows))
    assert again.scale == quantized.scale
    assert np.array_equal(floats(again, windows), floats(quantized, windows))


def test_a_state_of_another_architecture_is_refused_in_one_line(quantized):
    other = replace(SHAPE, config=CONFIG.model_copy(update={"queries": 5}))
    with pytest.raises(ConfigError, match="do not fit recipe w8a8") as caught:
        base_from_state(other, "w8a8", state(quantized))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("target", ["cortex-m4", "ethos-u55-128", "onnx-int8"])
def test_a_target_that_base_does_not_fit_is_refused_in_one_line(quantized, target):
    with pytest.raises(ConfigError, match=target) as caught:
        lower_all(quantized, [target])
    assert "'base'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_output_that_is_not_so_many_queries_is_refused(artefacts):
    with pytest.raises(PackageError, match="128 values, expected 3 query vectors"):
        LiteRtEncoder(artefacts["tflite-int8"].data, queries=3)


def test_the_stages_of_base_are_those_that_run_without_torch():
    assert CONTRACTS["base"].stages == RUNTIME_STAGES

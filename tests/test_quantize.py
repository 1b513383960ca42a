"""Calibration, fine-tuning, the exported graph and saved states of a small watch encoder."""

import os
import signal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save
from torch import nn

from embridge.device.errors import ConfigError
from embridge.quantize.calibration import BATCH
from embridge.quantize.export import export_graph
from embridge.quantize.finetune import distillation_loss, finetune, mean_cosine
from embridge.quantize.layers import quantized_twin
from embridge.quantize.mixed import lost_cosine, one_at_a_time, weight_loss
from embridge.quantize.passes import QUANTIZE_WEIGHT, fold_weights
from embridge.quantize.quantizer import (
    QuantizedEncoder,
    calibrate,
    from_state,
    quantize_encoder,
    state_for_file,
)
from embridge.quantize.recipes import RECIPES, Recipe
from embridge.training.trainer import Interrupted
from embridge.training.watch import Stage, WatchEncoder, WatchShape, fold_batch_norm

SHAPE = WatchShape(8, 200, 16, Stage(16, 9, 2), (Stage(24, 9, 2), Stage(32, 5, 2)))
Windows = NDArray[np.float32]


@pytest.fixture(scope="module")
def quantized(make_windows, encoder: WatchEncoder) -> QuantizedEncoder:
    return quantize_encoder(encoder, make_windows(100, 256), "w8a8", seed=0)


def run_graph(module: nn.Module, windows: Windows) -> Windows:
    parts = [module(window[:, :, None]) for window in torch.from_numpy(windows).split(1)]
    return torch.cat(parts).flatten(1).detach().numpy()


def test_int8_embeddings_stay_close_to_float(make_windows, quantized):
    windows = torch.from_numpy(make_windows(7, 128))
    with torch.no_grad():
        pairs = (quantized.twin.embed(windows), quantized.float_encoder.embed(windows))
    cosine = torch.cosine_similarity(*pairs)
    assert float(cosine.min()) > 0.995


def test_folded_batch_norm_gives_the_same_embedding(make_windows, encoder, quantized):
    windows = torch.from_numpy(make_windows(8))
    with torch.no_grad():
        assert torch.allclose(
            quantized.float_encoder.embed(windows), encoder.embed(windows), atol=1e-5
        )


def test_exported_graph_gives_the_codes_of_fake_quantization(make_windows, quantized):
    windows = make_windows(9, 128)
    expected = quantized.codes(windows)
    module = export_graph(quantized.twin).module()
    codes = np.rint(run_graph(module, windows) / np.float32(quantized.scale))
    assert np.array_equal(codes, expected)
    assert len(np.unique(expected)) > 100  # the range is used


def test_exporting_leaves_the_twin_as_it_was(make_windows, quantized):
    windows = make_windows(10)
    before = quantized.codes(windows)
    export_graph(quantized.twin)
    assert np.array_equal(quantized.codes(windows), before)


def test_every_quantization_operator_of_the_graph_is_decomposed(quantized):
    graph = export_graph(quantized.twin).graph_module.graph
    names = {str(n.target) for n in graph.nodes if n.op == "call_function"}
    compute = {name for name in names if not name.startswith("quantized_decomposed.")}
    assert compute == {"aten.conv2d.default", "aten.mean.dim"}


def test_folded_weights_give_equal_values_and_leave_the_graph_alone(make_windows, quantized):
    graph = export_graph(quantized.twin)
    folded = fold_weights(graph)
    windows = make_windows(11)
    assert np.array_equal(run_graph(folded.module(), windows), run_graph(graph.module(), windows))
    targets = [n.target for n in graph.graph_module.graph.nodes]
    assert targets.count(QUANTIZE_WEIGHT) == 6
    assert QUANTIZE_WEIGHT not in [n.target for n in folded.graph_module.graph.nodes]
    assert folded.state_dict["head.grid"].dtype == torch.int8


def test_the_pool_shares_the_scale_of_its_input_and_does_not_narrow_it(make_windows, quantized):
    assert quantized.twin.pooled is quantized.twin.blocks[-1].relu2
    with torch.no_grad():
        x = torch.from_numpy(make_windows(100, 256)).unsqueeze(2)
        x = quantized.float_encoder.stem(x)
        for block in quantized.float_encoder.blocks:
            x = block(x)
    scale = float(quantized.twin.pooled.act_quant.scale().detach())
    assert 255 * scale > 0.9 * float(x.max())


def test_fine_tuning_never_ends_below_calibration(make_windows, encoder, tmp_path):
    recipe = Recipe(qat_steps=40, learning_rate=1e-3)
    windows = torch.from_numpy(make_windows(12, 256))
    windows = windows[torch.randperm(256, generator=torch.Generator().manual_seed(0))]
    reference = fold_batch_norm(encoder)
    twin = quantized_twin(reference, recipe)
    calibrate(twin, windows)
    held = windows[:51]
    before = mean_cosine(twin, reference, held)
    finetune(twin, reference, windows, recipe, tmp_path, seed=0)
    assert mean_cosine(twin, reference, held) >= before


def test_the_same_seed_gives_the_same_fine_tuned_encoder(make_windows, encoder, monkeypatch):
    monkeypatch.setitem(RECIPES, "short", Recipe(qat_steps=5))
    data = make_windows(13, 128)
    first, second = (quantize_encoder(encoder, data, "short", seed=3) for _ in range(2))
    assert np.array_equal(first.codes(data), second.codes(data))


def test_distillation_loss_is_zero_for_the_target_itself():
    target = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert float(distillation_loss(2 * target, target)) == pytest.approx(0, abs=1e-6)
    assert float(distillation_loss(-target, target)) == pytest.approx(2, abs=1e-6)


def test_a_saved_state_reloads_to_equal_bits(make_windows, quantized):
    stored = load(save(state_for_file(quantized)))
    again = from_state(SHAPE, "w8a8", stored)
    windows = make_windows(14)
    assert np.array_equal(again.codes(windows), quantized.codes(windows))
    assert again.scale == quantized.scale
    batch = torch.from_numpy(windows)
    with torch.no_grad():
        floats = [e.float_encoder.embed(batch) for e in (again, quantized)]
    assert torch.equal(*floats)


def test_a_state_of_another_shape_is_refused_in_one_line(quantized):
    other = WatchShape(4, 200, 16, SHAPE.stem, SHAPE.blocks)
    with pytest.raises(ConfigError, match="do not fit recipe w8a8") as caught:
        from_state(other, "w8a8", state_for_file(quantized))
    assert "\n" not in str(caught.value)


def with_nan(windows: Windows) -> Windows:
    windows[3, 2, 50] = np.nan
    return windows


def with_dead_channel(windows: Windows) -> Windows:
    windows[:, 5] = 0.25
    return windows


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda windows: windows[:0], "no calibration windows"),
        (with_nan, "NaN"),
        (with_dead_channel, r"channels \[5\] are constant"),
        (lambda windows: windows[:, :4], r"\(C, T\) = \(8, 200\)"),
    ],
)
def test_unusable_calibration_windows_are_refused_in_one_line(
    make_windows, encoder, spoil, message
):
    with pytest.raises(ConfigError, match=message) as caught:
        quantize_encoder(encoder, spoil(make_windows(1)), "w8a8", seed=0)
    assert "\n" not in str(caught.value)


def test_an_unknown_recipe_is_refused_with_the_known_ones(make_windows, encoder):
    with pytest.raises(ConfigError, match="w4a8-qat, w8a8, "):
        quantize_encoder(encoder, make_windows(1), "w4a4", seed=0)


def test_too_few_windows_to_fine_tune_are_refused(make_windows, encoder):
    with pytest.raises(ConfigError, match="too few"):
        quantize_encoder(encoder, make_windows(1, 8), "w8a8-qat", seed=0)


def test_four_bit_weights_use_fifteen_levels_and_export_to_the_same_codes(make_windows, encoder):
    quantized = quantize_encoder(encoder, make_windows(15, 128), "w4a8-qat", seed=0)
    weights = quantized.twin.stem.conv.quant_weight()
    levels = torch.unique(torch.round(weights.value / weights.scale))
    assert levels.abs().max() <= 7
    assert len(levels) == 15
    windows = make_windows(16)
    graph = export_graph(quantized.twin).module()
    codes = np.rint(run_graph(graph, windows) / np.float32(quantized.scale))
    assert np.array_equal(codes, quantized.codes(windows))


def test_ranges_by_squared_error_keep_the_embedding(make_windows, encoder):
    quantized = quantize_encoder(encoder, make_windows(17, 128), "w8a8-mse", seed=0)
    held = torch.from_numpy(make_windows(18))
    assert mean_cosine(quantized.twin, quantized.float_encoder, held) > 0.999


def test_auto_keeps_the_most_sensitive_layers_at_eight_bits_within_its_budget(
    make_windows, encoder, monkeypatch
):
    monkeypatch.setitem(RECIPES, "auto", Recipe(weight_bits=4, weight_budget=0.8))
    data = make_windows(19, 128)
    quantized = quantize_encoder(encoder, data, "auto", seed=0)
    bits = quantized.weight_bits
    assert set(bits.values()) == {4, 8}
    layers = dict(quantized.float_encoder.named_modules())
    size = {name: layers[name].weight.numel() for name in bits}
    assert sum(bits[n] * size[n] for n in bits) <= 0.8 * sum(8 * size[n] for n in bits)
    loss = weight_loss(quantized.float_encoder, RECIPES["auto"], torch.from_numpy(data))
    worst = max(bits, key=lambda name: loss[name] / size[name])
    assert bits[worst] == 8
    again = from_state(SHAPE, "auto", state_for_file(quantized))
    assert again.weight_bits == bits
    assert np.array_equal(again.codes(data[:16]), quantized.codes(data[:16]))


def test_one_quantizer_alone_loses_less_than_all_of_them(make_windows, quantized):
    windows = torch.from_numpy(make_windows(20))
    reference = quantized.float_encoder
    alone = {n: lost_cosine(t, reference, windows) for n, t in one_at_a_time(quantized.twin)}
    assert len(alone) == 6 + 7  # weights of six convolutions; input, five ReLUs, output
    everything = lost_cosine(quantized.twin, reference, windows)
    assert all(0 <= loss < everything for loss in alone.values())


def test_interrupted_fine_tuning_goes_on_to_the_same_codes(
    make_windows, encoder, monkeypatch, tmp_path
):
    monkeypatch.setitem(RECIPES, "short", Recipe(qat_steps=120))
    data = make_windows(21, 128)
    whole = quantize_encoder(encoder, data, "short", seed=0)

    def stop(done: int, total: int, text: str) -> None:
        if done == 110 * BATCH:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        quantize_encoder(encoder, data, "short", seed=0, folder=tmp_path, progress=stop)
    windows = []
    resumed = quantize_encoder(
        encoder, data, "short", seed=0, folder=tmp_path, progress=lambda d, t, _: windows.append(d)
    )
    assert windows[0] > 100 * BATCH
    assert np.array_equal(resumed.codes(data), whole.codes(data))
    assert list(tmp_path.iterdir()) == []

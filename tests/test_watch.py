"""The watch encoder: exact streaming, folding, cost, and shapes that cannot work."""

import pytest
import torch
from torch import Tensor, nn

from embridge.training.config import PRESETS, load_config
from embridge.training.watch import Stage, WatchEncoder, WatchShape, fold_batch_norm

SHAPE = WatchShape(4, 100, 8, Stage(6, 9, 3), (Stage(10, 5, 2), Stage(12, 3, 1)))
STRIDE = 6  # of all stages together


@pytest.fixture
def encoder() -> WatchEncoder:
    """In eval mode, with batch norm statistics that matter."""
    torch.manual_seed(0)
    encoder = WatchEncoder(SHAPE)
    for norm in encoder.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.2, 3)
    return encoder.eval()


def features(encoder: WatchEncoder, x: Tensor) -> Tensor:
    """What is pooled: (B, C, T) -> (B, D, T')."""
    x = encoder.stem(x.unsqueeze(2))
    for block in encoder.blocks:
        x = block(x)
    return x.squeeze(2)


@torch.no_grad()
def test_folding_batch_norm_changes_no_output_and_not_the_original(encoder: WatchEncoder) -> None:
    x = torch.randn(5, 4, 100)
    before = encoder.embed(x)
    folded = fold_batch_norm(encoder)
    assert torch.allclose(folded.embed(x), before, atol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert torch.equal(encoder.embed(x), before)


@torch.no_grad()
def test_features_of_a_window_are_those_of_the_stream_it_was_cut_from(
    encoder: WatchEncoder,
) -> None:
    """No padding and no statistics of the window: streaming frame by frame is exact."""
    encoder = encoder.double()
    long = torch.randn(1, 4, 400, dtype=torch.float64)
    whole = features(encoder, long)
    frames = SHAPE.frames()
    for start in range(0, 300, STRIDE):
        cut = features(encoder, long[:, :, start : start + 100])
        expected = whole[:, :, start // STRIDE : start // STRIDE + frames]
        assert torch.allclose(cut, expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_an_output_depends_on_samples_up_to_its_own_time_only(encoder: WatchEncoder) -> None:
    x = torch.randn(1, 4, 100)
    before = features(encoder, x)
    x[:, :, 60:] += 1
    after = features(encoder, x)
    same = (before == after).all(dim=1)[0]
    context = 9 + 3 * (4 + 2 * 2)  # receptive field in samples
    first_changed = next(t for t in range(len(same)) if STRIDE * t + context > 60)
    assert bool(same[:first_changed].all())
    assert not bool(same[first_changed:].any())


@torch.no_grad()
def test_an_embedding_depends_on_its_own_window_only(encoder: WatchEncoder) -> None:
    x = torch.randn(6, 4, 100)
    together = encoder.embed(x)
    alone = torch.cat([encoder.embed(x[i : i + 1]) for i in range(6)])
    assert together.shape == (6, 8)
    assert torch.allclose(together, alone, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("preset", ["raw", "raw_slow", "envelope", "paper"])
def test_macs_equal_a_count_over_the_layers(preset: str) -> None:
    config = load_config(PRESETS / f"{preset}.toml")
    rate_hz = {"raw": 2000, "paper": 2000, "raw_slow": 200, "envelope": 100}[preset]
    window = round(config.data.window_ms * rate_hz / 1000)
    shape = config.watch.shape(12, window, config.base.dim)
    encoder = WatchEncoder(shape).eval()
    counted = []

    def count(conv: nn.Conv2d, _: tuple[Tensor, ...], out: Tensor) -> None:
        counted.append(out.numel() * conv.weight[0].numel())

    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    pooled = []
    encoder.blocks[-1].register_forward_hook(lambda *args: pooled.append(args[2].shape[-1]))
    encoder.embed(torch.zeros(1, 12, window))
    assert shape.macs() == sum(counted)
    assert [shape.frames()] == pooled


def test_a_window_of_the_receptive_field_gives_one_frame_and_one_sample_less_is_refused() -> None:
    field = 9 + 3 * (4 + 2 * 2)
    shape = WatchShape(4, field, 8, SHAPE.stem, SHAPE.blocks)
    assert shape.frames() == 1
    assert WatchEncoder(shape).eval().embed(torch.zeros(1, 4, field)).shape == (1, 8)
    with pytest.raises(ValueError, match="shorter than the receptive field") as error:
        WatchEncoder(WatchShape(4, field - 1, 8, SHAPE.stem, SHAPE.blocks))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stride", [-1, 0, 4, 5])
def test_a_stride_the_npu_does_not_have_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride {stride}"):
        WatchEncoder(WatchShape(4, 100, 8, Stage(6, 9, stride), SHAPE.blocks))
    with pytest.raises(ValueError, match=f"stride {stride}"):
        WatchEncoder(WatchShape(4, 100, 8, SHAPE.stem, (Stage(6, 9, stride),)))


def test_every_layer_has_a_gradient() -> None:
    encoder = WatchEncoder(SHAPE).train()
    encoder.embed(torch.randn(8, 4, 100)).square().sum().backward()
    assert all(weight.grad is not None for weight in encoder.parameters())

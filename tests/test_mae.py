"""Masked autoencoding: what it is judged on, what it sees, what it trains."""

import pytest
import torch
from torch import Tensor, nn

from embridge.training.encoders import PatchEncoder
from embridge.training.mae import MaskedAutoencoder

SIZE = (32, 4, 4, 64)  # dim, depth, heads, feed-forward
PATCHES = 8


@pytest.fixture(autouse=True)
def reproducible() -> None:
    torch.manual_seed(0)


@pytest.fixture
def encoder() -> PatchEncoder:
    return PatchEncoder(3, 80, 10, *SIZE)


def watched(module: nn.Module) -> list[Tensor]:
    """The outputs `module` will have."""
    seen: list[Tensor] = []
    module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    return seen


def masks_of(batch: int, chosen: int, seed: int) -> Tensor:
    """(B, P) bool: what an autoencoder shows after manual_seed(seed), first `chosen`."""
    torch.manual_seed(seed)
    order = torch.rand(batch, PATCHES).argsort(dim=1)
    return torch.zeros(batch, PATCHES, dtype=torch.bool).scatter(1, order[:, :chosen], True)


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_autoencoder_is_judged_on_the_masked_patches_only(
    encoder: PatchEncoder, ratio: float
) -> None:
    """A decoder that always says zero is off by the mean square of what was masked."""
    autoencoder = MaskedAutoencoder(encoder, 16, ratio)
    nn.init.zeros_(autoencoder.out.weight)
    nn.init.zeros_(autoencoder.out.bias)
    x = torch.randn(4, 3, 80)
    visible = masks_of(4, int(PATCHES * (1 - ratio)), seed=3)
    expected = encoder.tokens(x)[~visible].square().mean()
    torch.manual_seed(3)
    assert torch.allclose(autoencoder(x), expected)


def test_what_the_autoencoder_rebuilds_depends_on_the_visible_patches_only(
    encoder: PatchEncoder,
) -> None:
    autoencoder = MaskedAutoencoder(encoder, 16, 0.5)
    rebuilt = watched(autoencoder.out)
    x = torch.randn(4, 3, 80)
    visible = masks_of(4, 4, seed=3).repeat_interleave(10, 1)[:, None]
    for changed in (
        x,
        torch.where(visible, x, torch.randn(4, 3, 80)),
        torch.where(visible, torch.randn(4, 3, 80), x),
    ):
        torch.manual_seed(3)
        autoencoder(changed)
    assert torch.equal(rebuilt[0], rebuilt[1])
    assert not torch.allclose(rebuilt[0], rebuilt[2])


def test_the_autoencoder_trains_cls_and_every_weight(encoder: PatchEncoder) -> None:
    autoencoder = MaskedAutoencoder(encoder, 16, 0.5)
    autoencoder(torch.randn(4, 3, 80)).backward()
    assert all(
        weight.grad is not None and bool(weight.grad.any()) for weight in autoencoder.parameters()
    )

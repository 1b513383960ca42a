"""Noise where codes will round: it moves embeddings, scales with its settings, leaves no trace."""

import torch

from embridge.training.disturb import disturbed_embedding
from embridge.training.losses import unsteadiness
from embridge.training.watch import WatchEncoder


def moved(encoder: WatchEncoder, windows: torch.Tensor, input_noise: float, act: float) -> float:
    torch.manual_seed(0)
    with torch.no_grad():
        noisy = disturbed_embedding(encoder, windows, input_noise, act)
        return float(unsteadiness(encoder.embed(windows).double(), noisy.double()))


def test_no_noise_moves_nothing_and_more_noise_moves_more(make_windows, encoder) -> None:
    windows = torch.from_numpy(make_windows(0))
    assert abs(moved(encoder, windows, 0, 0)) < 1e-6
    for small, large in (((0.01, 0), (0.1, 0)), ((0, 0.01), (0, 0.1))):
        assert 0 < moved(encoder, windows, *small) < moved(encoder, windows, *large)


def test_the_encoder_computes_as_before_afterwards(make_windows, encoder) -> None:
    windows = torch.from_numpy(make_windows(1))
    with torch.no_grad():
        before = encoder.embed(windows)
        disturbed_embedding(encoder, windows, 0.1, 0.1)
        assert torch.equal(encoder.embed(windows), before)


def test_noise_on_the_pool_has_the_range_of_the_codes_that_it_averages(encoder) -> None:
    """The pool shares its input's quantizer, so its codes are as coarse as those of one frame."""
    seen = []
    relu = encoder.pooled
    hook = relu.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        encoder.embed(torch.zeros(1, encoder.shape.channels, encoder.shape.window))
    hook.remove()
    assert len(seen) == 2  # the last block's frames, then their mean, through the same module
    assert encoder.pooled is encoder.blocks[-1].relu2

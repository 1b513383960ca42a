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


def test_noise_on_the_pool_has_the_range_of_the_codes_that_it_averages(
    make_windows, encoder
) -> None:
    """The pool shares its input's quantizer, so its codes are as coarse as those of one frame."""
    windows, share = torch.from_numpy(make_windows(2)), 0.1
    clean, noisy = [], []  # what the last ReLU gives: frames, then their mean; what the head reads
    hooks = [
        encoder.pooled.register_forward_hook(lambda module, inputs, out: clean.append(out)),
        encoder.head.register_forward_pre_hook(lambda module, inputs: noisy.append(inputs[0])),
    ]
    with torch.no_grad():
        disturbed_embedding(encoder, windows, 0, share)
    for hook in hooks:
        hook.remove()
    frames, pooled = clean
    largest = float((noisy[0] - pooled).abs().max())
    assert largest <= share * float(frames.max()) / 2
    assert largest > share * float(pooled.max()) / 2

"""Noise in every place where int8 codes will round: the input and each ReLU of `watch`."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from embridge.training.watch import WatchEncoder


def disturbed_embedding(
    encoder: WatchEncoder, windows: Tensor, input_noise: float, act_noise: float
) -> Tensor:
    """windows: (B, C, T) -> (B, D) under pseudo quantization noise (NIPQ, Shin et al. 2023).

    input_noise: standard deviation of white noise on the input, in the input's unit
    act_noise: width of uniform noise after each ReLU, as a share of that layer's largest value
    """
    with _noisy_activations(encoder, act_noise):
        return encoder.embed(windows + input_noise * torch.randn_like(windows))


@contextmanager
def _noisy_activations(encoder: WatchEncoder, share: float) -> Iterator[None]:
    def add_noise(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        width = share * output.detach().amax()
        return output + width * (torch.rand_like(output) - 0.5)

    activations = [module for module in encoder.modules() if isinstance(module, nn.ReLU)]
    hooks = [module.register_forward_hook(add_noise) for module in activations]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

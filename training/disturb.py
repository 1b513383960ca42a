"""Noise in every place where int8 codes will round: input, each ReLU, the pool, the embedding."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from embridge.training.distributed import largest
from embridge.training.draws import normal, uniform
from embridge.training.watch import WatchEncoder


def disturbed_embedding(
    encoder: WatchEncoder, windows: Tensor, input_noise: float, act_noise: float
) -> Tensor:
    """windows: (B, C, T) -> (B, D) under pseudo quantization noise (NIPQ, Shin et al. 2023).

    input_noise: standard deviation of white noise on the input, in the input's unit
    act_noise: width of uniform noise on activations, as a share of the range of their codes
    """
    with _noisy_activations(encoder, act_noise):
        embedding = encoder.embed(windows + input_noise * normal(*windows.shape, like=windows))
    return _add_noise(embedding, act_noise * 2 * largest(embedding.abs()))  # signed codes


@contextmanager
def _noisy_activations(encoder: WatchEncoder, share: float) -> Iterator[None]:
    ranges: dict[nn.Module, Tensor] = {}  # the pool has its input's range: they share a module

    def add_noise(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        top = ranges.setdefault(module, largest(output))
        return _add_noise(output, share * top)

    activations = [module for module in encoder.modules() if isinstance(module, nn.ReLU)]
    hooks = [module.register_forward_hook(add_noise) for module in activations]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _add_noise(values: Tensor, width: Tensor) -> Tensor:
    return values + width * (uniform(*values.shape, like=values) - 0.5)

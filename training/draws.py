"""The random numbers of a training step, all of them drawn here, batch first.

Of several processes each draws for the whole batch, from the same seed, and keeps its own rows.
"""

import torch
from torch import Tensor

from embridge.training.distributed import own_part


def uniform(*shape: int, like: Tensor) -> Tensor:
    """Of [0, 1), (B, ...), on the device of `like`."""
    return _own(torch.rand(_whole(shape), device=like.device)).to(like.dtype)


def normal(*shape: int, like: Tensor) -> Tensor:
    """Standard normal, (B, ...), on the device of `like`."""
    return _own(torch.randn(_whole(shape), device=like.device)).to(like.dtype)


def shuffled(batch: int, patches: int, like: Tensor) -> Tensor:
    """(B, P) the numbers of the patches of each window, in an order of its own."""
    return uniform(batch, patches, like=like).argsort(dim=1)


def hidden_patches(batch: int, patches: int, ratio: float, like: Tensor) -> Tensor:
    """(B, P) bool: True for the share `ratio` of each window's patches, one at least."""
    chosen = shuffled(batch, patches, like)[:, : max(1, int(patches * ratio))]
    none = torch.zeros(batch, patches, dtype=torch.bool, device=like.device)
    return none.scatter(1, chosen, True)


def _whole(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0] * own_part().world, *shape[1:])


def _own(drawn: Tensor) -> Tensor:
    return drawn[own_part().rows(len(drawn))]

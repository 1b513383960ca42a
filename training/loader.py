"""Batches drawn ahead of the step that needs them, in this process or by worker processes."""

import os
import signal
from collections.abc import Callable, Generator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from embridge.firmware_bridge.errors import EmbridgeError

Batch = tuple[NDArray[np.float32], ...]


class _Steps(Dataset[tuple[Tensor, ...] | EmbridgeError]):
    """Item `step` is the batch of that step."""

    def __init__(self, draw: Callable[[int], Batch]) -> None:
        self._draw = draw

    def __getitem__(self, step: int) -> tuple[Tensor, ...] | EmbridgeError:
        try:
            batch = self._draw(step)
        except EmbridgeError as error:
            return error  # raised by `batches`; torch would wrap its one line in a traceback
        return tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in batch)


def batches(
    draw: Callable[[int], Batch], steps: range, *, workers: int, pin: bool
) -> Generator[tuple[Tensor, ...]]:
    """The batches of these steps, in order and the same for any number of `workers`.

    draw: (step) -> arrays, of nothing but the step; may raise EmbridgeError
    pin: into page-locked memory, from which CUDA copies while it computes
    Workers are forked, so recordings are shared and not copied; they end when the iterator is
    closed and when this process dies.
    """
    loader = DataLoader(
        _Steps(draw),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_leave_signals_to_the_parent,
        pin_memory=pin,
    )
    for batch in loader:
        if isinstance(batch, EmbridgeError):
            raise batch
        yield tuple(batch)


def _leave_signals_to_the_parent(_worker: int) -> None:
    """Ctrl-C and what torchrun sends go to whole process groups; the step in hand needs us."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.setpgid(0, 0)

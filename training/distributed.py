"""What the processes of one training exchange: one process, or several started by torchrun.

The loss of a step is the mean of what the processes return, each from its own part of the batch,
and gradients are averaged likewise. A mean over windows therefore needs nothing more. A loss that
compares windows with each other calls `everyone` on what it compares: then every process computes
it in full, over the whole batch, as one process alone would.

DistributedDataParallel is not used: it hooks a module's forward, and our losses call other methods
too; averaging one flat vector gives every process the same bits.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from embridge.device.errors import ConfigError, ProcessLost
from embridge.training.part import Part, launched

# A process waits so long for the others before it gives up; the first one may have to read hundreds
# of hours of recordings meanwhile. One that dies is noticed at once.
PATIENCE = timedelta(hours=2)
_CPU = torch.device("cpu")
_alone: ContextVar[bool] = ContextVar("alone", default=False)
Result = TypeVar("Result")


@contextmanager
def joined(device: torch.device) -> Iterator[Part]:
    """Join the other processes that torchrun started, if any: nccl for CUDA tensors, else gloo."""
    if launched().world == 1 or dist.is_initialized():
        yield own_part()
        return
    on_cuda = device.type == "cuda"
    if on_cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo", timeout=PATIENCE)
    try:
        yield own_part()
    finally:
        dist.destroy_process_group()


def device_of(wanted: str) -> torch.device:
    """The device of `optim.device`; "auto": CUDA where there is one, one for each process.

    Raises ConfigError when this machine has fewer of them than processes.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return _CPU
    number = int(os.environ.get("LOCAL_RANK", 0))
    if number and number >= torch.cuda.device_count():
        raise ConfigError(
            f"process {number} has no CUDA device of its own, this machine has "
            f"{torch.cuda.device_count()}: start fewer processes, or set optim.device=cpu"
        )
    return torch.device("cuda", number)


def own_part() -> Part:
    """This process's part of a batch, here and now."""
    if _alone.get() or not dist.is_initialized():
        return Part()
    return Part(dist.get_rank(), dist.get_world_size())


@contextmanager
def alone() -> Iterator[None]:
    """Within, this process computes on whole batches by itself, whoever else does the same."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo and nccl have no narrower one in common
        raise ProcessLost(
            "expected all processes of this training, one has ended or hangs: see what it said, "
            "then go on from the last checkpoint with --resume"
        ) from error


class _Everyone(torch.autograd.Function):
    """Rows of all processes; what all of them lose through a row flows back to its owner."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        parts = [torch.empty_like(rows) for _ in range(own_part().world)]
        with _exchange():
            dist.all_gather(parts, rows)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        with _exchange():
            dist.all_reduce(gradient)
        return gradient[own_part().rows(len(gradient))]


def everyone(rows: Tensor) -> Tensor:
    """The rows of the whole batch, (B / world, ...) -> (B, ...), with their gradient."""
    if own_part().world == 1:
        return rows
    return cast(Tensor, _Everyone.apply(rows))  # type: ignore[no-untyped-call]


def largest(values: Tensor) -> Tensor:
    """The largest value of all processes' tensors, a scalar without gradient."""
    top = values.detach().amax()
    if own_part().world > 1:
        with _exchange():
            dist.all_reduce(top, dist.ReduceOp.MAX)
    return top


def average(values: Tensor) -> Tensor:
    """Mean over the processes, without gradient."""
    if own_part().world == 1:
        return values
    total = values.detach().clone()
    with _exchange():
        dist.all_reduce(total)
    return total / own_part().world


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Give every process the mean of all gradients, bit for bit the same."""
    if own_part().world == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    vector_to_parameters(average(parameters_to_vector(gradients)), gradients)


def any_of(flag: bool) -> bool:
    """True when any process says so."""
    return bool(largest(torch.tensor(float(flag))))


def spread(modules: Iterable[nn.Module]) -> None:
    """Give all processes the first one's weights and buffers."""
    if own_part().world == 1:
        return
    with _exchange():
        for module in modules:
            for value in module.state_dict().values():
                dist.broadcast(value, src=0)


def on_first(action: Callable[[], Result]) -> Result:
    """Do something in the first process alone; all return its result or raise its error."""
    if own_part().world == 1:
        return action()
    outcome: list[tuple[Result | None, Exception | None]] = [(None, None)]
    if own_part().first:
        try:
            outcome = [(action(), None)]
        except Exception as error:
            outcome = [(None, error)]
    with _exchange():
        dist.broadcast_object_list(outcome, src=0, device=_CPU)
    result, failure = outcome[0]
    if failure is not None:
        raise failure
    return cast(Result, result)

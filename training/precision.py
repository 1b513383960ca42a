"""bf16 where it is safe: networks in bf16, everything that compares embeddings in fp32."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor

Precision = Literal["auto", "fp32", "bf16"]
Args = ParamSpec("Args")
Result = TypeVar("Result")


def autocast(device: torch.device, wanted: Precision) -> torch.autocast:
    """Matrix products and convolutions in bf16 when wanted; "auto": on CUDA."""
    bf16 = wanted == "bf16" or (wanted == "auto" and device.type == "cuda")
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def in_fp32(function: Callable[Args, Result]) -> Callable[Args, Result]:
    """Compute a function of tensors in fp32 also under autocast.

    A bf16 cosine is off by up to 2**-9, a tenth of a logit at the temperature 0.02.
    """

    @wraps(function)
    def exact(*args: Args.args, **named: Args.kwargs) -> Result:
        tensors = [value for value in (*args, *named.values()) if isinstance(value, Tensor)]
        with torch.autocast(tensors[0].device.type, enabled=False):
            return function(*map(_full, args), **{k: _full(v) for k, v in named.items()})

    return exact


def _full(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if half else value

"""Latency of one window through an encoder, on this machine, one thread, batch 1."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

WARM_UP = 50


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles over single windows; microseconds."""

    p50_us: float
    p99_us: float
    runs: int
    threads: int = 1

    def json(self) -> dict[str, Any]:
        """Plain values for a report."""
        return asdict(self)


def measure(
    encode: Callable[[NDArray[np.float32]], object],
    windows: NDArray[np.float32],
    runs: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Latency:
    """Time `encode` on single windows (C, T) of `windows` (N, C, T), quantizing included."""

    def call(i: int) -> object:
        return encode(windows[i % len(windows)])

    with one_thread():
        time_us(call, WARM_UP, clock_ns)
        times_us = time_us(call, runs, clock_ns)
    p50_us, p99_us = np.percentile(times_us, [50, 99])
    return Latency(round(float(p50_us), 1), round(float(p99_us), 1), runs)


def time_us(
    call: Callable[[int], object], runs: int, clock_ns: Callable[[], int] = time.perf_counter_ns
) -> NDArray[np.float64]:
    """Microseconds of `call(0)`, `call(1)`, ... one after the other: (runs,)."""
    times_us = np.empty(runs)
    for i in range(runs):
        began_ns = clock_ns()
        call(i)
        times_us[i] = (clock_ns() - began_ns) / 1000
    return times_us


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread meanwhile; the other runtimes always use one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

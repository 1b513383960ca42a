"""Latency of one window through an encoder, on this machine, one thread, batch 1."""

import time
from collections.abc import Callable
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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for i in range(WARM_UP):
            encode(windows[i % len(windows)])
        times_us = np.empty(runs)
        for i in range(runs):
            began_ns = clock_ns()
            encode(windows[i % len(windows)])
            times_us[i] = (clock_ns() - began_ns) / 1000
    finally:
        torch.set_num_threads(threads)
    p50_us, p99_us = np.percentile(times_us, [50, 99])
    return Latency(round(float(p50_us), 1), round(float(p99_us), 1), runs)

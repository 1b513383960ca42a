"""`embridge bench latency`: the same windows through every runtime of a package, side by side.

One process, one thread, batch 1. The contestants take turns in short blocks, so that whatever else
the machine does slows all of them alike, and ratios are taken within a round of turns.
"""

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.benchmarks.contestants import OWN_INT8, absent, contestants
from embridge.benchmarks.latency import WARM_UP, one_thread, time_us
from embridge.device.errors import ConfigError
from embridge.device.package import Package
from embridge.training.study import Progress

PARTS = ("network", "embed")
PERCENTILES = {"p50_us": 50, "p90_us": 90, "p99_us": 99, "min_us": 0}
PAIRS = (  # slow, fast
    ("executorch-fp32", "executorch-int8"),
    ("tflite-fp32", "tflite-int8"),
    ("onnx-fp32", "onnx-int8"),
    (OWN_INT8, "executorch-int8"),
    (OWN_INT8, "tflite-int8"),
    (OWN_INT8, "onnx-int8"),
)


def speed(
    package: Package,
    *,
    runs: int = 2000,
    rounds: int = 20,
    progress: Progress | None = None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, Any]:
    """Time every contestant on the package's golden windows.

    runs: timed windows of each contestant, in `rounds` blocks. `network` is the runtime alone,
    `embed` what a device calls. A ratio is the median over the rounds of the quotient of both
    medians, how many times faster `fast` is than `slow`. Raises ConfigError for runs that do not
    fill the rounds.
    """
    if not 1 <= rounds <= runs:
        raise ConfigError(
            f"got {runs} runs in {rounds} rounds, expected at least one run in each; give more runs"
        )
    entrants = contestants(package)
    block = runs // rounds
    times = {(c.name, part): np.empty((rounds, block)) for c in entrants for part in PARTS}
    with one_thread():
        for number in range(rounds):
            if progress:
                progress(number, rounds, "time the runtimes in turn")
            for entrant in entrants:
                for part, call in (("network", entrant.network), ("embed", entrant.embed)):
                    time_us(call, WARM_UP, clock_ns)
                    times[entrant.name, part][number] = time_us(call, block, clock_ns)
    if progress:
        progress(rounds, rounds, "time the runtimes in turn")
    return {
        "package": package.manifest.name,
        "cpu": cpu_model(),
        "threads": 1,
        "batch": 1,
        "runs": rounds * block,
        "rounds": rounds,
        "contestants": {
            c.name: {"bytes": c.bytes} | {part: _summary(times[c.name, part]) for part in PARTS}
            for c in entrants
        },
        "ratios": _ratios(times),
        "absent": absent(),
    }


def text(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"{result['package']}: 1 thread, this machine ({result['cpu']}), batch 1; "
        f"{result['runs']} windows in {result['rounds']} rounds",
        f"{'':22}{'network, us':>18}{'embed, us':>18}",
        f"{'':22}{'p50':>9}{'p99':>9}{'p50':>9}{'p99':>9}{'bytes':>11}",
    ]
    for name, row in result["contestants"].items():
        values = [row[part][key] for part in PARTS for key in ("p50_us", "p99_us")]
        cells = "".join(f"{value:9.1f}" for value in values)
        lines.append(f"{name:22}{cells}{row['bytes']:11,}")
    lines.append(f"\n{'times faster':44}{'network':>9}{'embed':>9}")
    for ratio in result["ratios"]:
        pair = f"{ratio['fast']} than {ratio['slow']}"
        lines.append(f"{pair:44}{ratio['network']:9.2f}{ratio['embed']:9.2f}")
    lines += [f"{name}: {reason}" for name, reason in result["absent"].items()]
    return "\n".join(lines)


def cpu_model() -> str:
    """What the processor calls itself, as far as the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _summary(times_us: NDArray[np.float64]) -> dict[str, float]:
    return {key: round(float(np.percentile(times_us, q)), 2) for key, q in PERCENTILES.items()}


def _ratios(times: dict[tuple[str, str], NDArray[np.float64]]) -> list[dict[str, Any]]:
    """times: of each contestant and part, (rounds, runs in a round)."""
    medians = {key: np.median(blocks, axis=1) for key, blocks in times.items()}
    return [
        {"fast": fast, "slow": slow}
        | {p: round(float(np.median(medians[slow, p] / medians[fast, p])), 3) for p in PARTS}
        for slow, fast in PAIRS
        if (slow, "network") in times and (fast, "network") in times
    ]

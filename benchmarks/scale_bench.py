"""`embridge bench train`: windows/s of training by number of processes and of workers.

Every contestant is started anew by torchrun in every round and trains the same steps from the same
global batch, so that all give the same encoders and differ in time alone. The training processes
of a contestant share this machine's cores evenly; workers come on top.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from embridge.device.errors import ConfigError
from embridge.training.part import launched
from embridge.training.run import train_run

Progress = Callable[[int, int, str], None]
Rates = dict[str, float]  # phase -> windows/s
WARM_UP_STEPS = 5  # also what workers had drawn before the first step


@dataclass(frozen=True, slots=True)
class Contestant:
    """So many training processes, each with so many workers that draw its batches ahead."""

    processes: int
    workers: int


CONTESTANTS = tuple(Contestant(p, w) for p in (1, 2) for w in (0, 1, 2))


def bench_train(
    config: Path,
    data: Path,
    *,
    contestants: tuple[Contestant, ...] = CONTESTANTS,
    steps: int = 40,
    rounds: int = 3,
    overrides: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Median windows/s of every phase over rounds in which all contestants take turns.

    config: TOML file or preset; steps: of every phase, of which the first few are not timed
    Raises ConfigError when steps are too few or a training fails.
    """
    if steps < 2 * WARM_UP_STEPS:
        raise ConfigError(f"expected at least {2 * WARM_UP_STEPS} steps to time, got {steps}")
    cores = len(os.sched_getaffinity(0))
    measured: dict[Contestant, list[Rates]] = {one: [] for one in contestants}
    for number in range(rounds * len(contestants)):
        one = contestants[number % len(contestants)]
        shares = [f"optim.workers={one.workers}", f"optim.threads={max(1, cores // one.processes)}"]
        extra = [*shares, *_steps(steps), *overrides]
        measured[one].append(_measured(one.processes, config, data, extra))
        if progress:
            text = f"train {one.processes} processes, {one.workers} workers"
            progress(number + 1, rounds * len(contestants), text)
    rows = [
        asdict(one) | {"windows_per_s": {p: median(r[p] for r in rates) for p in rates[0]}}
        for one, rates in measured.items()
    ]
    return {
        "schema": 1,
        "config": str(config),
        "data": data.resolve().name,
        "steps": steps,
        "rounds": rounds,
        "cpu_count": cores,
        "contestants": rows,
    }


def text(result: dict[str, Any]) -> str:
    """A table: windows/s of each phase, and how many times the first contestant's."""
    rows = result["contestants"]
    phases = list(rows[0]["windows_per_s"])
    lines = [
        f"windows/s, medians of {result['rounds']} rounds on {result['cpu_count']} cores",
        "processes workers " + " ".join(f"{phase:>16}" for phase in phases),
    ]
    for row in rows:
        rates = [(row["windows_per_s"][p], rows[0]["windows_per_s"][p]) for p in phases]
        cells = [f"{rate:8.1f} ({rate / first:4.2f}x)" for rate, first in rates]
        lines.append(f"{row['processes']:9} {row['workers']:7} " + " ".join(cells))
    return "\n".join(lines)


def _steps(steps: int) -> list[str]:
    names = ("pose_mae", "emg_mae", "align", "watch")
    return [*(f"optim.{n}_steps={steps}" for n in names), f"optim.validate_every={steps}"]


def _measured(processes: int, config: Path, data: Path, overrides: list[str]) -> Rates:
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as folder:
        arguments = [str(config), str(data), f"{folder}/run", *overrides]
        done = subprocess.run(
            [sys.executable, "-m", *launcher, "-m", "embridge.benchmarks.scale_bench", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        reason = re.search(r"\w+Error: .*", done.stderr)
        raise ConfigError(
            f"training by {processes} processes failed with exit status {done.returncode}: "
            f"{reason.group() if reason else 'it gave no reason'}"
        )
    rates: Rates = json.loads(done.stdout)
    return rates


def time_run(
    config: Path,
    data: Path,
    out: Path,
    overrides: list[str],
    clock: Callable[[], float] = time.monotonic,
) -> Rates:
    """Train here, and give the windows/s of each phase's median step."""
    stamps: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def stamp(done: int, _total: int, text: str) -> None:
        phase, _, what = text.partition(" ")
        if what.startswith("windows"):
            stamps[phase].append((done, clock()))

    train_run(config, overrides, data, out, progress=stamp)
    return {phase: _rate(seen) for phase, seen in stamps.items()}


def _rate(seen: list[tuple[int, float]]) -> float:
    """The last step, which validates, is left out."""
    timed = seen[WARM_UP_STEPS:-1]
    pairs = itertools.pairwise(timed)
    return median((b - a) / (end_s - begin_s) for (a, begin_s), (b, end_s) in pairs)


if __name__ == "__main__":
    _config, _data, _out, *_overrides = sys.argv[1:]
    found = time_run(Path(_config), Path(_data), Path(_out), _overrides)
    if launched().first:
        print(json.dumps(found))

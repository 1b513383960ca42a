"""`embridge bench data`: windows/s from disk beside a plain h5py loop, and memory by hours of data.

Synthetic files in emg2pose's layout stand in for a data set; hard links to them under other names
make it as long as wanted, so each is read, scanned and kept track of like a file of its own. Every
folder is opened by a fresh process, which opens it as training does, draws batches until its cache
is full, notes its peak memory and then lets the contestants take turns.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from embridge.benchmarks.data_readers import CONTESTANTS, Draw, orders_of, our_reader, reader_of
from embridge.device.errors import ConfigError, RecordingError
from embridge.training.config import PRESETS, Config, load_config
from embridge.training.loader import batches
from embridge.training.study import Progress, make_study, read_all
from embridge.training.synth import synthesize
from embridge.training.synth_poses import STAGES
from embridge.training.windows import NormalisedWindows

USERS = 5  # files of 55 s in an hour: emg2pose's are about as long
CACHE_MB = 256  # less than an hour's training windows, so that every folder fills it
FILL_BATCHES = 100  # more than fill the cache of chunks
TIMED_BATCHES = {"random": 20, "sequential": 100}  # of a contestant in a round: seconds


@dataclass(frozen=True, slots=True)
class Job:
    """What a fresh process measures on one folder; the outlines go to `cache`."""

    config: str
    folder: str
    cache: str
    rounds: int
    fill_batches: int = FILL_BATCHES
    cache_mb: int = CACHE_MB


def bench_data(
    hours: tuple[float, ...] = (1, 20),
    *,
    config: Path = Path("raw"),
    rounds: int = 3,
    users: int = USERS,
    fill_batches: int = FILL_BATCHES,
    cache_mb: int = CACHE_MB,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Median windows/s of all contestants and peak memory, for folders of so many hours.

    config: TOML file or preset; fill_batches: drawn before memory is read and anything is timed
    Needs 300 MB of temporary disk space. Raises ConfigError for too few hours, OSError when the
    temporary folder cannot hold the files.
    """
    seconds = 3600 * min(1.0, *hours) / (users * len(STAGES))
    if seconds < 1:
        shortest = users * len(STAGES) / 3600
        raise ConfigError(f"expected at least {shortest:.3f} hours, got {min(hours):g}")
    preset = PRESETS / f"{config}.toml"
    source = preset if preset.is_file() else config
    settings = load_config(source)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        originals = _synthesized(Path(scratch) / "originals", users, seconds, progress)
        for length in hours:
            folder, cache = Path(scratch) / f"{length:g}h", Path(scratch) / f"cache-{length:g}h"
            copies = round(3600 * length / (seconds * len(originals)))
            link_copies(originals, folder, copies)
            job = Job(
                str(source.resolve()), str(folder), str(cache), rounds, fill_batches, cache_mb
            )
            held = copies * len(originals) * seconds / 3600
            rows.append({"hours": round(held, 3)} | _in_a_fresh_process(job, progress))
    peaks = [row["peak_bytes"] for row in rows]
    return {
        "schema": 1,
        "config": settings.name,
        "synthetic": True,
        "window_ms": settings.data.window_ms,
        "batch": settings.optim.batch,
        "cache_mb": cache_mb,
        "rounds": rounds,
        "cpu_count": len(os.sched_getaffinity(0)),
        "folders": rows,
        "peak_ratio": round(max(peaks) / min(peaks), 4),
    }


def text(result: dict[str, Any]) -> str:
    """A table for people: windows/s, how many times the plain loop's, and memory."""
    lines = [
        f"windows/s of {result['window_ms']:g} ms, batches of {result['batch']}, medians of "
        f"{result['rounds']} rounds on {result['cpu_count']} cores (times a plain h5py loop)",
        f"{'hours':>6} {'order':<10} " + " ".join(f"{name:>18}" for name in CONTESTANTS),
    ]
    for row in result["folders"]:
        for order, rates in row["windows_per_s"].items():
            ratios = row["ratio_to_plain"][order]
            cells = [f"{rates[name]:9.0f} ({ratios[name]:5.2f}x)" for name in CONTESTANTS]
            lines.append(f"{row['hours']:6g} {order:<10} " + " ".join(f"{c:>18}" for c in cells))
    lines.append("")
    for row in result["folders"]:
        lines.append(
            f"{row['hours']:g} h in {row['files']} files: {row['windows']} training windows, "
            f"opened in {row['open_s']:.0f} s, peak {row['peak_bytes'] / 2**20:.0f} MiB"
        )
    lines.append(f"peak memory, largest over smallest: {result['peak_ratio']:.3f}")
    return "\n".join(lines)


def _synthesized(out: Path, users: int, seconds: float, progress: Progress | None) -> list[Path]:
    def report(done: int, total: int) -> None:
        if progress:
            progress(done, total, "synthesize files")

    return synthesize(out, users=users, seconds_per_stage=seconds, progress=report)


def link_copies(originals: list[Path], folder: Path, copies: int) -> None:
    """Make the folder, with so many hard links to each file, under names of their own."""
    folder.mkdir()
    for copy in range(copies):
        for file in originals:
            os.link(file, folder / f"{file.stem}-{copy}{file.suffix}")


def _in_a_fresh_process(job: Job, progress: Progress | None) -> dict[str, Any]:
    """The last line that it prints is the result, those before are its progress."""
    arguments = [getattr(job, name) for name in Job.__slots__]
    command = [sys.executable, "-m", "embridge.benchmarks.data_bench", *map(str, arguments)]
    line: Any = None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for printed in process.stdout:
            line = json.loads(printed)
            if progress and isinstance(line, list):
                progress(*line)
    if process.returncode:
        raise RecordingError(
            f"{job.folder}: measuring failed with exit status {process.returncode}; see above"
        )
    result: dict[str, Any] = line
    return result


def measure(
    job: Job, progress: Progress, clock: Callable[[], float] = time.monotonic
) -> dict[str, Any]:
    """Open the folder as training does, fill the cache, note the peak, time the contestants."""
    config = load_config(
        Path(job.config),
        [
            f"data.cache={json.dumps(job.cache)}",
            f"data.path={json.dumps(job.folder)}",
            f"data.cache_mb={job.cache_mb}",
        ],
    )
    began_s = clock()
    outlines = read_all(Path(job.folder), progress, config.data)
    study = make_study(config, outlines, "bench", progress)
    train = NormalisedWindows(study.training_windows(), study.plan.front_end, study.profiles)
    open_s = clock() - began_s
    orders = orders_of(train, config.optim.batch)
    reader = our_reader(train, orders["random"], config)
    for number, _ in enumerate(batches(reader, range(job.fill_batches), workers=0, pin=False)):
        progress(number + 1, job.fill_batches, "fill cache, batches")
    peak_bytes = _peak_bytes()
    rates = _rates(train, orders, config, job, progress, clock)
    plain = {order: by_name["plain_h5py"] for order, by_name in rates.items()}
    return {
        "files": len(outlines),
        "windows": len(train),
        "open_s": round(open_s, 2),
        "peak_bytes": peak_bytes,
        "windows_per_s": {o: {n: round(r, 1) for n, r in by.items()} for o, by in rates.items()},
        "ratio_to_plain": {
            o: {n: round(r / plain[o], 3) for n, r in by.items()} for o, by in rates.items()
        },
    }


def _rates(
    train: NormalisedWindows,
    orders: dict[str, Draw],
    config: Config,
    job: Job,
    progress: Progress,
    clock: Callable[[], float],
) -> dict[str, dict[str, float]]:
    """Medians by order and contestant. No two read the same windows, lest one warm the other."""
    turns = list(_turns(job.rounds))
    found: dict[str, dict[str, list[float]]] = {o: {n: [] for n in CONTESTANTS} for o in orders}
    for number, (order, name) in enumerate(turns):
        count, draw = TIMED_BATCHES[order], orders[order]
        first = job.fill_batches + number * count
        if order == "sequential":
            first = number * len(train) // (len(turns) * config.optim.batch)
        source = reader_of(name, train, draw, config)
        began_s, windows = clock(), 0
        steps = range(first, first + count)
        for batch in batches(source, steps, workers=CONTESTANTS[name], pin=False):
            windows += len(batch[0])
        found[order][name].append(windows / (clock() - began_s))
        progress(number + 1, len(turns), f"time {order} {name}")
    return {o: {n: median(rates) for n, rates in by.items()} for o, by in found.items()}


def _turns(rounds: int) -> Iterator[tuple[str, str]]:
    for _ in range(rounds):
        for order in TIMED_BATCHES:
            for name in CONTESTANTS:
                yield order, name


def _peak_bytes() -> int:
    """Most resident memory so far, of this program alone.

    getrusage's counts the process it was forked from as well.
    """
    status = Path("/proc/self/status")
    if not status.is_file():
        raise ConfigError("bench data: peak memory is read from /proc: run it on Linux")
    peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(peak.split()[1])


def _print_progress(done: int, total: int, what: str) -> None:
    print(json.dumps([done, total, what]), flush=True)


if __name__ == "__main__":
    _config, _folder, _cache, *_numbers = sys.argv[1:]
    _job = Job(_config, _folder, _cache, *map(int, _numbers))
    print(json.dumps(measure(_job, _print_progress)))

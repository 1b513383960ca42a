"""The work of a table, cell by cell: in several processes, and never the same cell twice."""

import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from embridge.training.run_folder import write_atomic
from embridge.training.table.data import UserWindows
from embridge.training.table.entries import Entry
from embridge.training.table.referee import Counts, judge
from embridge.training.table.splits import Split

Progress = Callable[[int, int, str], None]  # cells done, cells in all, what
Clock = Callable[[], float]  # seconds


@dataclass(frozen=True, slots=True)
class Cell:
    """One method judged on one split with one seed; numbers into the table's lists."""

    entry: int
    seed: int
    split: int


@dataclass(frozen=True, slots=True)
class Counted:
    """counts: of each test user; seconds: that fitting and judging took."""

    counts: Mapping[str, Counts]
    seconds: float


@dataclass(frozen=True)
class Work:
    """Everything a cell is computed from. store: folder that keeps finished cells, or None."""

    entries: Sequence[Entry]
    splits: Sequence[Split]
    users: Mapping[str, UserWindows]
    clock: Clock
    store: Path | None = None

    def groups(self) -> list[list[Cell]]:
        """Cells by seed and split: rows of one group share what they train."""
        seeds = sorted({seed for entry in self.entries for seed in entry.seeds})
        return [
            [Cell(n, seed, split) for n, entry in enumerate(self.entries) if seed in entry.seeds]
            for seed in seeds
            for split in range(len(self.splits))
        ]

    def counted(self, cell: Cell) -> Counted:
        """Compute a cell, or read what an earlier call has stored."""
        path = self.store / f"{self._digest(cell)}.npz" if self.store else None
        if path and path.is_file():
            return _read(path)
        entry, started = self.entries[cell.entry], self.clock()
        counts = judge(entry.make(cell.seed), self.splits[cell.split], self.users, cell.seed)
        found = Counted(counts, self.clock() - started)
        if path:
            write_atomic(path, _packed(found))
        return found

    def _digest(self, cell: Cell) -> str:
        """Of what the method is told and given; not of the code that computes it."""
        entry, split = self.entries[cell.entry], self.splits[cell.split]
        tier = entry.make(cell.seed).tier
        facts = [entry.name, tier, entry.facts, cell.seed, split.train, split.test, split.fold]
        sums = [float(self.users[name].emg.sum(dtype=np.float64)) for name in sorted(self.users)]
        return hashlib.sha256(json.dumps([facts, sums]).encode()).hexdigest()[:20]


def all_cells(work: Work, jobs: int = 1, progress: Progress | None = None) -> dict[Cell, Counted]:
    """Every cell of the table, `jobs` groups of them at a time."""
    if work.store:
        work.store.mkdir(parents=True, exist_ok=True)
    groups = work.groups()
    total, found = sum(map(len, groups)), dict[Cell, Counted]()
    for cell, counted in _computed(work, groups, jobs):
        found[cell] = counted
        if progress:
            progress(len(found), total, f"cells {work.entries[cell.entry].name}")
    return found


def _computed(
    work: Work, groups: Sequence[Sequence[Cell]], jobs: int
) -> Iterator[tuple[Cell, Counted]]:
    if jobs == 1:
        for group in groups:
            for cell in group:
                yield cell, work.counted(cell)
        return
    # Forked, since methods are made by closures; nothing has started a thread yet.
    global _WORK
    _WORK = work
    with multiprocessing.get_context("fork").Pool(jobs, _be_modest) as pool:
        for done in pool.imap_unordered(_group, groups):
            yield from done


_WORK: Work | None = None


def _be_modest() -> None:
    """One thread for each process, of torch and of numpy's BLAS, loaded before the fork."""
    import torch

    torch.set_num_threads(1)
    threadpool_limits(1)


def _group(cells: Iterable[Cell]) -> list[tuple[Cell, Counted]]:
    if _WORK is None:
        raise RuntimeError("expected to be forked by all_cells")
    return [(cell, _WORK.counted(cell)) for cell in cells]


def _packed(found: Counted) -> bytes:
    buffer = BytesIO()
    np.savez_compressed(buffer, seconds=found.seconds, **dict(found.counts))
    return buffer.getvalue()


def _read(path: Path) -> Counted:
    with np.load(path, allow_pickle=False) as stored:
        counts = {name: stored[name] for name in stored.files if name != "seconds"}
        return Counted(counts, float(stored["seconds"]))

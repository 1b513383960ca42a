"""One recording through the front-end, read and filtered where it is asked for.

The filters never see rows of unseen gestures of whoever is trained on: the rows that may be used
are joined as if nothing lay between, so nothing withheld rings on in what follows. Each piece is
begun so far ahead that what the filters did not see no longer matters (`settling_rows`). Windows
that overlap share chunks at fixed places, which are kept; others are read one by one. So a window
holds the same numbers in any order of asking, and in every process.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from embridge.device.frontend import FrontEnd
from embridge.device.outline import Outline
from embridge.device.recordings import REST, UNLABELLED
from embridge.device.row_files import Rows
from embridge.device.runs import Runs
from embridge.training.chunks import chunk_cache

CHUNK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Spans:
    """Rows [begin, end) of a recording, K spans in their order, joined without what lies between.

    before: (K,) rows in the spans before each one
    """

    begin: NDArray[np.int64]
    end: NDArray[np.int64]
    before: NDArray[np.int64]

    def __len__(self) -> int:
        """Rows in all spans."""
        return int(self.before[-1] + self.end[-1] - self.begin[-1]) if len(self.begin) else 0

    def position(self, start: int, stop: int) -> int:
        """Where rows [start, stop) begin in the joined rows; ValueError when they are left out."""
        span = int(np.searchsorted(self.begin, start, side="right")) - 1
        if span < 0 or stop > self.end[span]:
            raise ValueError(
                f"rows {start} to {stop} are withheld: EMG of an unseen gesture of a training user"
            )
        return int(self.before[span] + start - self.begin[span])

    def emg(self, rows: Rows, start: int, stop: int) -> NDArray[np.float32]:
        """Joined rows [start, stop), read from the recording: (T, C)."""
        parts = []
        first = int(np.searchsorted(self.before, start, side="right")) - 1
        for span in range(first, len(self.begin)):
            begin = self.begin[span] + max(0, start - self.before[span])
            end = min(self.end[span], self.begin[span] + stop - self.before[span])
            if end <= begin:
                break
            parts.append(rows.emg(int(begin), int(end)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def spans_of(runs: Runs, chosen: NDArray[np.bool_]) -> Spans:
    """The rows of the chosen runs, (R,) bool."""
    edge = np.diff(chosen.astype(np.int8), prepend=0, append=0)
    begin, end = runs.start[edge[:-1] == 1], runs.stop[edge[1:] == -1]
    return Spans(begin, end, np.cumsum(end - begin) - (end - begin))


@dataclass(frozen=True, slots=True)
class Signal:
    """One recording after filters and compression, not normalised; poses scaled.

    runs: split where calibration ends; label: (R,) index into the study's labels or UNLABELLED;
    calibration: (R,) True where T1 profiles are measured, which evaluation leaves out;
    allowed: what the filters may see; settle: rows they need to settle; key: names the chunks
    """

    outline: Outline
    runs: Runs
    label: NDArray[np.int16]
    calibration: NDArray[np.bool_]
    allowed: Spans
    split: str  # "train", "val" or "test"; "" belongs to none of them
    group: str  # of the test, as the official split of the data names it; "" without one
    front_end: FrontEnd
    settle: int
    pose_offset: NDArray[np.float32]
    pose_scale: NDArray[np.float32]
    key: str
    cache_bytes: int

    @property
    def user(self) -> str:
        """Whose recording it is."""
        return self.outline.user

    def __len__(self) -> int:
        """Number of rows, T."""
        return len(self.runs)

    def emg(self, start: int, stop: int, *, alone: bool = False) -> NDArray[np.float32]:
        """Filtered rows [start, stop) of one gesture: (T, C); ValueError when they are withheld.

        alone: no other rows near by will be asked for, so nothing is kept
        """
        first = self.allowed.position(start, stop)
        last = first + stop - start
        return self._filtered(first, last) if alone else self._from_chunks("emg", first, last)

    def pose(self, start: int, stop: int, *, alone: bool = False) -> NDArray[np.float32]:
        """Scaled joint angles of rows [start, stop): (T, J); ValueError where there are none."""
        rows = self._angles(start, stop) if alone else self._from_chunks("pose", start, stop)
        return (rows - self.pose_offset) / self.pose_scale

    def _from_chunks(self, what: str, start: int, stop: int) -> NDArray[np.float32]:
        read, rows = (
            (self._filtered, len(self.allowed)) if what == "emg" else (self._angles, len(self))
        )
        parts = []
        for number in range(start // CHUNK_ROWS, -(-stop // CHUNK_ROWS)):
            first = number * CHUNK_ROWS
            make = partial(read, first, min(rows, first + CHUNK_ROWS))
            chunk = chunk_cache.get((self.key, what, number), self.cache_bytes, make)
            parts.append(chunk[max(0, start - first) : stop - first])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _filtered(self, first: int, stop: int) -> NDArray[np.float32]:
        """Rows [first, stop) of the allowed ones."""
        lead = max(0, first - self.settle)
        filtered = self.front_end.filtered(self.allowed.emg(self.outline.rows, lead, stop))
        return filtered[first - lead :].copy()

    def _angles(self, first: int, stop: int) -> NDArray[np.float32]:
        if self.outline.head.pose is None:
            raise ValueError(f"{self.outline.name} has no pose: expected windows cut with pose")
        return self.outline.rows.pose(first, stop)


def is_seen(outline: Outline, unseen: set[str]) -> NDArray[np.bool_]:
    """(R,) runs of the outline that training may use: labelled, and of no unseen gesture."""
    gesture = outline.runs.gesture
    hidden = [i for i, name in enumerate(outline.head.gestures) if name in unseen]
    return np.asarray((gesture != UNLABELLED) & ~np.isin(gesture, hidden))


def calibrated(outline: Outline, unseen: set[str]) -> tuple[Runs, NDArray[np.bool_]]:
    """Runs, and which of them a T1 profile may be measured on: never those of an unseen gesture.

    The first repetition of every seen gesture; where nothing repeats, the first quarter of each,
    for which runs are split.
    """
    runs, names = outline.runs, np.array([*outline.head.gestures, ""])  # -1 is UNLABELLED
    if runs.repetition.max() > 1:
        return runs, _usable(runs, names, unseen) & (runs.repetition == 1)
    start = np.append(runs.start[np.diff(runs.stretch, prepend=-1) > 0], len(runs))
    quarter = start[:-1] + np.diff(start) // 4
    runs = runs.split(quarter)
    return runs, _usable(runs, names, unseen) & (runs.start < quarter[runs.stretch])


def _usable(runs: Runs, names: NDArray[np.str_], unseen: set[str]) -> NDArray[np.bool_]:
    ours = ~np.isin(names[runs.gesture], [*unseen, REST])
    return np.asarray((runs.gesture != UNLABELLED) & ours)

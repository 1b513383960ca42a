"""Labels of many rows, kept as runs of equal ones: what of a recording stays in memory."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embridge.device.recordings import Recording


@dataclass(frozen=True, slots=True)
class Runs:
    """Labels of T rows as R runs of equal ones; see `Recording` for what they mean.

    stop: (R,) row after the last one of each run, T in the end
    follows: (R,) False where samples were lost between this run and the one before
    """

    stop: NDArray[np.int64]
    gesture: NDArray[np.int16]
    trial: NDArray[np.int32]
    repetition: NDArray[np.int16]
    valid: NDArray[np.bool_]  # the pose
    follows: NDArray[np.bool_]

    def __len__(self) -> int:
        """Number of rows, T."""
        return int(self.stop[-1])

    @property
    def start(self) -> NDArray[np.int64]:
        """(R,) first row of each run."""
        return np.concatenate([[0], self.stop[:-1]])

    @property
    def stretch(self) -> NDArray[np.int32]:
        """(R,) number of the contiguous stretch of one gesture and trial each run lies in."""
        change = (np.diff(self.gesture) != 0) | (np.diff(self.trial) != 0)
        return np.asarray(np.concatenate([[0], np.cumsum(change)]), np.int32)

    def split(self, rows: NDArray[np.int64]) -> "Runs":
        """The same labels, with a run beginning at each of these rows."""
        stop = np.union1d(self.stop, rows[(rows > 0) & (rows < len(self))])
        run = np.searchsorted(self.stop, stop)  # that holds row stop - 1
        start = np.concatenate([[0], stop[:-1]])
        labels = (self.gesture[run], self.trial[run], self.repetition[run], self.valid[run])
        return Runs(stop, *labels, self.follows[run] | (start != self.start[run]))


def runs_of(recording: Recording, next_index: int | None = None) -> Runs:
    """Runs of a recording, or of a block of one.

    next_index: number of the sample that should come first, by the block before
    """
    gap = np.zeros(len(recording.emg), bool)
    if recording.sample_index is not None:
        gap[1:] = np.diff(recording.sample_index) != 1
        gap[0] = next_index is not None and recording.sample_index[0] != next_index
    labels = (recording.gesture, recording.trial, recording.repetition, recording.pose_valid)
    change = gap.copy()
    change[0] = True
    for label in labels:
        change[1:] |= label[1:] != label[:-1]
    first = np.flatnonzero(change)
    stop = np.append(first[1:], len(gap))
    return Runs(
        stop,
        recording.gesture[first],
        recording.trial[first],
        recording.repetition[first],
        recording.pose_valid[first],
        ~gap[first],
    )


def joined(parts: Sequence[Runs]) -> Runs:
    """Runs of consecutive blocks as those of the whole."""
    offset = np.cumsum([0, *(len(part) for part in parts)])
    shifted = [replace(part, stop=part.stop + at) for part, at in zip(parts, offset, strict=False)]
    columns = {
        name: np.concatenate([getattr(part, name) for part in shifted]) for name in Runs.__slots__
    }
    same = columns["follows"][1:].copy()
    for name in ("gesture", "trial", "repetition", "valid"):
        same &= columns[name][1:] == columns[name][:-1]
    first, last = np.append(True, ~same), np.append(~same, True)
    return Runs(**{n: c[last if n == "stop" else first] for n, c in columns.items()})

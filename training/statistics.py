"""What is measured on recordings before training, block by block: memory does not grow with them.

Where there are very many rows, every n-th recording is measured: they are sorted by user, so those
taken are spread over all of them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embridge.device.electrodes import Band, fit_band
from embridge.device.emg2pose import BLOCK_ROWS
from embridge.device.errors import RecordingError
from embridge.device.frontend import (
    FilterDesign,
    FrontEnd,
    UserProfile,
    fit_front_end,
    fit_profile,
    fit_signature,
)
from embridge.device.moments import Moments
from embridge.device.outline import Outline
from embridge.training.signals import CHUNK_ROWS, Signal, Spans, is_seen, spans_of

MOST_ROWS = 100_000_000  # that population statistics are measured on: 14 h at 2 kHz
MOST_PROFILE_ROWS = 1_000_000  # and the profile of one user
Progress = Callable[[int, int, str], None]  # done, total, what
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _SeenEmg:
    """Unfiltered EMG of the rows that training may use, in blocks, as often as asked for."""

    outline: Outline
    spans: Spans

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        for first in range(0, len(self.spans), BLOCK_ROWS):
            stop = min(first + BLOCK_ROWS, len(self.spans))
            yield self.spans.emg(self.outline.rows, first, stop)


def population_front_end(
    design: FilterDesign,
    outlines: Sequence[Outline],
    unseen: set[str],
    progress: Progress | None = None,
) -> FrontEnd:
    """Fit the front-end to training recordings: also it must not know unseen gestures' EMG."""
    sources = [_SeenEmg(o, spans_of(o.runs, is_seen(o, unseen))) for o in outlines]
    sources = thinned(sources, [len(source.spans) for source in sources], MOST_ROWS)
    total = len(sources) * (1 if design.compression == "none" else 2)
    done = iter(range(1, total + 1))

    def report() -> None:
        if progress:
            progress(next(done), total, "measure EMG")

    return fit_front_end(design, outlines[0].rate_hz, sources, report)


def pose_statistics(
    outlines: Sequence[Outline], unseen: set[str], progress: Progress | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Mean and spread of the joints over seen rows with valid pose: (J,), (J,); None: no row."""
    spans = [spans_of(o.runs, is_seen(o, unseen) & o.runs.valid) for o in outlines]
    chosen = thinned(list(zip(outlines, spans, strict=True)), list(map(len, spans)), MOST_ROWS)
    moments = None
    for number, (outline, rows) in enumerate(chosen):
        moments = moments or Moments(outline.require_pose())
        for begin, end in zip(rows.begin, rows.end, strict=True):
            for first in range(begin, end, BLOCK_ROWS):
                moments.add(outline.rows.pose(first, min(first + BLOCK_ROWS, int(end))))
        if progress:
            progress(number + 1, len(chosen), "measure poses")
    if moments is None or not moments.count:
        return None
    spread = np.maximum(moments.spread, 1e-6)
    return moments.mean.astype(np.float32), spread.astype(np.float32)


def required_pose_statistics(
    outlines: Sequence[Outline], unseen: set[str], progress: Progress | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """As `pose_statistics`; RecordingError where there is nothing to measure."""
    found = pose_statistics(outlines, unseen, progress)
    if found is None:
        raise RecordingError("no valid hand pose of a seen gesture in any training recording")
    return found


def measure_profiles(
    front_end: FrontEnd, signals: Sequence[Signal], progress: Progress | None = None
) -> dict[str, UserProfile]:
    """T1 profile of every user who has calibration rows, by name."""
    by_user, profiles = _by_user(signals), dict[str, UserProfile]()
    for user, own in by_user.items():
        profiles[user] = fit_profile(front_end, user, _calibration_of(own))
        if progress:
            progress(len(profiles), len(by_user), f"profile {user}")
    return profiles


def measure_band(
    front_end: FrontEnd, signals: Sequence[Signal], ring: int, *, reflect: bool
) -> Band:
    """What the electrodes of the training users have in common, from their calibration rows."""
    users = _by_user(signals).values()
    return fit_band(
        [fit_signature(front_end, _calibration_of(own)) for own in users], ring, reflect=reflect
    )


def _by_user(signals: Sequence[Signal]) -> dict[str, list[Signal]]:
    """Signals with calibration rows."""
    found: dict[str, list[Signal]] = {}
    for signal in signals:
        if signal.calibration.any():
            found.setdefault(signal.user, []).append(signal)
    return found


def _calibration_of(signals: list[Signal]) -> Iterator[NDArray[np.float32]]:
    """Filtered calibration rows of one user, in blocks."""
    rows = [len(spans_of(signal.runs, signal.calibration)) for signal in signals]
    for signal in thinned(signals, rows, MOST_PROFILE_ROWS):
        yield from _calibration(signal)


def _calibration(signal: Signal) -> Iterator[NDArray[np.float32]]:
    spans = spans_of(signal.runs, signal.calibration)
    for begin, end in zip(spans.begin, spans.end, strict=True):
        for first in range(int(begin), int(end), CHUNK_ROWS):
            yield signal.emg(first, min(first + CHUNK_ROWS, int(end)))


def thinned(items: list[T], rows: list[int], most: int) -> list[T]:
    """Every n-th item that has rows, n so large that they have about `most` rows in all."""
    held = [item for item, count in zip(items, rows, strict=True) if count]
    return held[:: max(1, -(-sum(rows) // most))]

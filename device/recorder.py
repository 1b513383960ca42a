"""What `embridge record` does: a live source, written down with labels, whole after any kill.

How a file looks: `stream_file`. Who labels: `prompts`.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from embridge.device.errors import RecordingError
from embridge.device.prompts import UNKNOWN, Label, Labeller
from embridge.device.source import Source
from embridge.device.stream_file import (
    Progress,
    Session,
    StreamFile,
    StreamStart,
    compress_recording,
)
from embridge.firmware_bridge import (
    Block,
    EndOfStream,
    Gap,
    Item,
    LinkStats,
    Reconnected,
    Restarted,
)
from embridge.firmware_bridge.clock import ClockFit


@dataclass(frozen=True, slots=True)
class RecordingSummary:
    """What was recorded; gesture_seconds leaves unlabelled time out.

    measured_rate_hz, drift_ppm: by the host's clock, of the latest stream; None when too short
    """

    paths: tuple[Path, ...]  # one, and one more for each time the wrist booted
    samples: int
    seconds: float  # of EMG
    gaps: int
    samples_lost: int
    gesture_seconds: dict[str, float]
    rate_hz: float  # declared
    measured_rate_hz: float | None
    drift_ppm: float | None
    ended: bool  # the wrist said that its stream is over
    link: LinkStats

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"paths": [str(path) for path in self.paths]}


def record(
    source: Source,
    path: Path,
    *,
    labeller: Labeller | None = None,
    session: Session | None = None,
    seconds: float | None = None,
    flush_s: float = 1.0,
    sync: bool = False,
    compress: bool = True,
    progress: Progress | None = None,
    on_link: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
) -> RecordingSummary:
    """Write an opened source to `path` until it ends or is stopped, or the labeller is through.

    A wrist that boots meanwhile begins a stream of its own, and so a file of its own: NAME-2.h5.

    seconds: stop after so much EMG
    flush_s: a kill loses at most the last so many seconds of EMG; the rest is whole
    sync: also survive a loss of power (waits for the disk at each flush)
    compress: rewrite each file once it is complete
    clock: that of the source; wall_clock: unix time

    Raises RecordingError when the name is taken, the disk is full or nothing came; LinkError as the
    source. What was recorded by then is whole, and stays uncompressed.
    """
    if path.exists():
        raise RecordingError(f"{path}: a file of this name exists: choose another name or move it")
    if not path.parent.is_dir():
        raise RecordingError(f"{path}: there is no folder {path.parent}: make it or name another")
    files = _Files(path, source, labeller, session, flush_s, sync, wall_clock() - clock())
    tally = _Tally()
    try:
        _run(source, labeller, files, tally, seconds, progress, on_link)
    finally:
        files.close()
    if not files.paths:
        raise RecordingError(
            f"{path}: expected samples, the stream ended before the first: see what the wrist "
            "sends with `embridge check`"
        )
    if compress:
        for written in files.paths:
            compress_recording(written, progress)
    return tally.summary(tuple(files.paths), source, labeller)


def _run(
    source: Source,
    labeller: Labeller | None,
    files: "_Files",
    tally: "_Tally",
    seconds: float | None,
    progress: Progress | None,
    on_link: Callable[[str], None],
) -> None:
    total_s = seconds if seconds is not None else labeller.seconds if labeller else None
    for item in source.blocks():
        if text := _news(item):
            on_link(text)
        label: Label | None = UNKNOWN
        if isinstance(item, Block) and labeller:
            label = labeller.at(item.arrived_s)
        if label is None:
            break
        files.push(item, label)
        tally.push(item, label, source.info.rate_hz)
        done_s = tally.samples / source.info.rate_hz
        if progress and total_s:
            total = round(total_s)
            progress(min(int(done_s), total), total, f"record {label.text}".strip())
        if seconds is not None and done_s >= seconds:
            break
    source.stop()


def _news(item: Item) -> str:
    """What a person should know of it, or ""."""
    match item:
        case Gap():
            return f"lost {item.samples} samples at sample {item.first_sample}"
        case Restarted():
            return "the wrist restarted; a new stream begins, in a file of its own"
        case Reconnected():
            return f"port back after {item.away_s:.1f} s ({item.cause})"
        case EndOfStream():
            return "the wrist reached the end of its recording"
    return ""


class _Files:
    """Items in stream order -> one file for each stream."""

    def __init__(
        self,
        path: Path,
        source: Source,
        labeller: Labeller | None,
        session: Session | None,
        flush_s: float,
        sync: bool,
        unix_offset_s: float,
    ) -> None:
        self.paths: list[Path] = []
        self._path, self._source = path, source
        self._gestures = labeller.gestures if labeller else ()
        self._session, self._flush_s, self._sync = session, flush_s, sync
        self._unix_offset_s = unix_offset_s
        self._boot_id: int | None = None  # of a wrist that has booted meanwhile
        self._gap_first: int | None = None  # of a gap that no file knows of yet
        self._file: StreamFile | None = None
        self._flushed_s = 0.0  # arrival of the latest block that was flushed

    def push(self, item: Item, label: Label) -> None:
        """Write a block or note a gap; RecordingError when the disk does not take it."""
        if isinstance(item, Block):
            with self._writable():
                self._write(item, label)
        elif isinstance(item, Gap) and self._file:
            self._file.reach(item.first_sample + item.samples)
        elif isinstance(item, Gap) and self._gap_first is None:
            self._gap_first = item.first_sample
        elif isinstance(item, Restarted):
            self.close()
            self._boot_id, self._gap_first = item.boot_id, None

    def close(self) -> None:
        """Make everything count and let go of the file; errors as `push`."""
        if self._file is not None:
            file, self._file = self._file, None
            with self._writable():
                file.close()

    @contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RecordingError(
                f"{self._path}: the recording stopped, it cannot be written ({error.strerror}): "
                "make room or choose another disk; what was written by then is whole"
            ) from error

    def _write(self, block: Block, label: Label) -> None:
        if self._file is None:
            self._file = self._create(block, label)
            self._flushed_s = block.arrived_s
            return
        self._file.append(block, label)
        if block.arrived_s - self._flushed_s >= self._flush_s:
            self._file.flush()
            self._flushed_s = block.arrived_s

    def _create(self, block: Block, label: Label) -> StreamFile:
        info = self._source.info
        if self._boot_id is not None:
            info = replace(info, boot_id=self._boot_id)
        first_sample = block.first_sample if self._gap_first is None else self._gap_first
        taken_s = (block.first_sample + len(block.samples) - first_sample) / info.rate_hz
        start_s = block.arrived_s + self._unix_offset_s - taken_s
        path = self._free_path() if self.paths else self._path
        file = StreamFile(
            path,
            info,
            StreamStart(first_sample, start_s, self._unix_offset_s),
            (block, label),
            gestures=self._gestures,
            session=self._session,
            sync=self._sync,
        )
        self.paths.append(path)
        return file

    def _free_path(self) -> Path:
        number = len(self.paths) + 1
        while (path := self._path.with_stem(f"{self._path.stem}-{number}")).exists():
            number += 1
        return path


class _Tally:
    """Counts what was recorded."""

    def __init__(self) -> None:
        self.samples = 0
        self._gaps = self._samples_lost = 0
        self._ended = self._has_clock = False
        self._labelled: Counter[int] = Counter()  # samples by gesture
        self._fit = ClockFit()

    def push(self, item: Item, label: Label, rate_hz: float) -> None:
        """Count an item."""
        if isinstance(item, Block):
            self.samples += len(item.samples)
            self._labelled[label.gesture] += len(item.samples)
            self._has_clock = item.device_us is not None
            nominal_s = item.first_sample / rate_hz
            device_s = nominal_s if item.device_us is None else 1e-6 * item.device_us
            self._fit.push(device_s, item.first_sample, item.arrived_s)
        elif isinstance(item, Gap):
            self._gaps += 1
            self._samples_lost += item.samples
        elif isinstance(item, Restarted):
            self._fit.restart()
        elif isinstance(item, EndOfStream):
            self._ended = True

    def summary(
        self, paths: tuple[Path, ...], source: Source, labeller: Labeller | None
    ) -> RecordingSummary:
        """What was recorded."""
        rate_hz = source.info.rate_hz
        labelled = sorted((number, n) for number, n in self._labelled.items() if number >= 0)
        return RecordingSummary(
            paths=paths,
            samples=self.samples,
            seconds=self.samples / rate_hz,
            gaps=self._gaps,
            samples_lost=self._samples_lost,
            gesture_seconds={
                labeller.gestures[number]: count / rate_hz for number, count in labelled if labeller
            },
            rate_hz=rate_hz,
            measured_rate_hz=self._fit.rate_hz,
            drift_ppm=self._fit.drift_ppm if self._has_clock else None,
            ended=self._ended,
            link=source.stats,
        )

"""Which recordings of a folder a study is made of."""

import logging
from collections.abc import Iterable
from pathlib import Path

from embridge.device.errors import RecordingError
from embridge.device.outline import Outline, default_cache, read_outline
from embridge.device.recordings import (
    AS_USUAL,
    ReadOptions,
    Recording,
    find_recordings,
    natural_key,
    remarks_by_user,
)
from embridge.training.config import DataConfig
from embridge.training.splits import read_split, require_files
from embridge.training.statistics import Progress

log = logging.getLogger(__name__)


def read_all(
    path: Path, progress: Progress | None = None, data: DataConfig | None = None
) -> list[Outline]:
    """Outlines of a folder of recordings that belong together, only those of `data.split`.

    Raises RecordingError when a file is unusable, they do not belong together, or files of the
    split are missing.
    """
    files = find_recordings(path)
    split = read_split(data, path) if data else None
    if data and split:
        require_files(split, {file.stem for file in files}, path, data.allow_missing)
        files = [file for file in files if file.stem in split.files]
    cache = Path(data.cache).expanduser() if data and data.cache else default_cache()
    options = ReadOptions(data.mirror_left_arms, data.glove_sensors) if data else AS_USUAL
    outlines: list[Outline] = []
    for number, file in enumerate(files):
        outlines.append(read_outline(file, cache, options))
        _require_alike(outlines[0], outlines[-1])
        if progress:
            progress(number + 1, len(files), f"read {file.name}")
    for remark in remarks_by_user((o.user, o.head.remarks) for o in outlines):
        log.warning("%s", remark)
    return [split.described(outline) for outline in outlines] if split else outlines


def _require_alike(first: Outline, other: Outline) -> None:
    got, want = (other.channels, other.rate_hz), (first.channels, first.rate_hz)
    if got != want:
        raise RecordingError(
            f"{other.name}: expected {want[0]} channels at {want[1]:g} Hz as in {first.name}, "
            f"got {got[0]} at {got[1]:g} Hz; put recordings of one kind into one folder"
        )


def users_of(recordings: Iterable[Recording | Outline]) -> list[str]:
    """Names of the users, s2 before s10."""
    return sorted({recording.user for recording in recordings}, key=natural_key)

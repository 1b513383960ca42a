"""What a recording holds, without its samples: labels by runs, and where to read the rows.

Scanning a file takes as long as reading it, so its outline is kept in a cache folder, under the
file's place, size and time of change. What cannot be read in pieces (MATLAB 5, CSV) is written
there once as an HDF5 file that can. The folder may be deleted at any time.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.device.emg2pose import read_blocks, write_emg2pose
from embridge.device.errors import RecordingError
from embridge.device.recordings import (
    AS_USUAL,
    ReadOptions,
    Recording,
    read_recording,
    require_finite,
    require_pose,
)
from embridge.device.row_files import FileRows, HeldRows, Rows
from embridge.device.runs import Runs, joined, runs_of

SCHEMA = 1  # of the cache's files; raise it whenever a reader gives something else
SLICEABLE = (".hdf5", ".h5")
_ARRAYS = ("emg", "pose", "pose_valid", "gesture", "trial", "repetition", "sample_index")


@dataclass(frozen=True, slots=True)
class Outline:
    """One recording; its rows are read when asked for.

    head: the recording without any row: names, units, channels and joints
    """

    head: Recording
    runs: Runs
    rows: Rows

    def __len__(self) -> int:
        """Number of rows, T."""
        return len(self.runs)

    @property
    def name(self) -> str:
        """Of the file, without its suffix."""
        return self.head.name

    @property
    def user(self) -> str:
        """Who wore the electrodes."""
        return self.head.user

    @property
    def rate_hz(self) -> float:
        """Samples per second."""
        return self.head.rate_hz

    @property
    def is_envelope(self) -> bool:
        """Whether the recorder rectified and smoothed the EMG."""
        return self.head.is_envelope

    @property
    def synthetic(self) -> bool:
        """Whether the recording was made by a model."""
        return self.head.synthetic

    @property
    def channels(self) -> int:
        """Number of EMG channels, C."""
        return int(self.head.emg.shape[1])

    def require_pose(self) -> int:
        """Number of joints, J; RecordingError where there is no valid pose to learn from."""
        valid = np.broadcast_to(self.runs.valid.any(), len(self))
        return int(require_pose(replace(self.head, pose_valid=valid)).shape[1])


def outline_of(recording: Recording) -> Outline:
    """Outline of a recording that stays in memory."""
    return Outline(_head(recording), runs_of(recording), HeldRows(recording))


def read_outline(path: Path, cache: Path, options: ReadOptions = AS_USUAL) -> Outline:
    """Scan a file, or take its outline from the cache folder.

    Raises RecordingError when it cannot be read, is empty or holds EMG that is not finite, or when
    the cache folder cannot be written.
    """
    stat = path.stat()
    facts = (SCHEMA, str(path.resolve()), stat.st_size, stat.st_mtime_ns, asdict(options))
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    sliceable = path.suffix.lower() in SLICEABLE
    rows = path if sliceable else cache / f"{path.stem}-{key}.hdf5"
    kept = cache / f"{path.stem}-{key}.npz"
    if kept.is_file() and rows.is_file():
        return _kept(kept, rows)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        outline = _scanned(path) if sliceable else _converted(path, rows, options)
        _keep(outline, kept)
    except OSError as error:
        raise RecordingError(
            f"{cache}: cannot keep the outline of {path.name} ({error.strerror or error}): choose "
            "another folder with data.cache"
        ) from error
    return outline


def default_cache() -> Path:
    """The user's cache folder, by the XDG convention."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embridge"


def _head(recording: Recording) -> Recording:
    pose = None if recording.pose is None else recording.pose[:0].copy()
    names = ("gesture", "trial", "repetition")
    labels = {name: getattr(recording, name)[:0].copy() for name in names}
    return replace(
        recording,
        emg=recording.emg[:0].copy(),
        pose=pose,
        pose_valid=np.zeros(0, bool),
        sample_index=None,
        measured_rate_hz=None,
        **labels,
    )


def _scanned(path: Path) -> Outline:
    parts: list[Runs] = []
    head, rows, next_index = None, 0, None
    for block in read_blocks(path):
        require_finite(block, path, rows)
        parts.append(runs_of(block, next_index))
        if block.sample_index is not None:
            next_index = int(block.sample_index[-1]) + 1
        rows += len(block.emg)
        head = head or _head(block)
    if head is None or head.emg.shape[1] == 0:
        raise RecordingError(
            f"{path.name}: expected at least 1 sample of 1 channel, got none: record it again"
        )
    return Outline(head, joined(parts), FileRows(path))


def _converted(path: Path, rows: Path, options: ReadOptions) -> Outline:
    recording = read_recording(path, options=options)
    partial = rows.with_name(f".{os.getpid()}-{rows.name}")  # another process may convert it too
    write_emg2pose(partial, recording, compress=False)
    os.replace(partial, rows)
    return replace(outline_of(recording), rows=FileRows(rows))


def _keep(outline: Outline, path: Path) -> None:
    head = outline.head
    facts = {f.name: getattr(head, f.name) for f in fields(Recording) if f.name not in _ARRAYS}
    facts["channels"] = outline.channels
    facts["joints"] = None if head.pose is None else head.pose.shape[1]
    labels = {name: getattr(outline.runs, name) for name in Runs.__slots__}
    partial = path.with_name(f".{os.getpid()}-{path.name}")
    np.savez(partial, head=np.array(json.dumps(facts)), **labels)
    os.replace(partial, path)


def _kept(path: Path, rows: Path) -> Outline:
    try:
        with np.load(path, allow_pickle=False) as file:
            facts = json.loads(str(file["head"]))
            runs = Runs(**{name: file[name] for name in Runs.__slots__})
            return Outline(_head_from(facts), runs, FileRows(rows))
    except Exception as error:  # zipfile, numpy and json raise many kinds on damaged files
        raise RecordingError(f"{path}: damaged; delete it, it will be made again") from error


def _head_from(facts: dict[str, Any]) -> Recording:
    channels, joints = facts.pop("channels"), facts.pop("joints")
    for name in ("gestures", "remarks"):
        facts[name] = tuple(facts[name])
    none: NDArray[Any] = np.zeros(0)
    return Recording(
        **facts,
        emg=np.zeros((0, channels), np.float32),
        pose=None if joints is None else np.zeros((0, joints), np.float32),
        pose_valid=none.astype(bool),
        gesture=none.astype(np.int16),
        trial=none.astype(np.int32),
        repetition=none.astype(np.int16),
    )

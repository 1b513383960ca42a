"""One recording on disk: an emg2pose file that grows with a stream, whole after a kill at any byte.

While it grows it is a `growing_hdf5` table; `compress_recording` rewrites it in one step. Rows are
emg2pose's time, joint_angles (all 0: no hand was tracked) and emg, the labels, and

    sample_index i8   number of the sample in the wrist's stream; a jump is a gap
    seq          i8   number of the frame it came in
    device_time  f8   seconds since the wrist booted when it was taken; NaN: the wrist has no clock
    arrived      f8   unix time when its frame arrived

`time` is the unix time of sample number first_sample plus the nominal time since. The attributes
first_sample and end_sample bound what was recorded, gaps at both ends included.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from embridge.device.emg2pose import CHUNK_ROWS, JOINT_NAMES, STORAGE, TABLE
from embridge.device.errors import RecordingError
from embridge.device.growing_hdf5 import GrowingDataset
from embridge.device.prompts import Label
from embridge.device.source import physical
from embridge.firmware_bridge import Block, StreamInfo

Progress = Callable[[int, int, str], None]
COPY_ROWS: Final = 16 * CHUNK_ROWS


@dataclass(frozen=True, slots=True)
class Session:
    """What a file says about the wearer and the occasion; session "": the file's name."""

    user: str = "unknown"
    session: str = ""
    side: str = "left"


@dataclass(frozen=True, slots=True)
class StreamStart:
    """Where a file begins in its stream.

    first_sample: number of the first sample, or of the gap before it
    start_s: unix time when that sample was taken
    unix_offset_s: unix time minus the clock that stamps the blocks
    """

    first_sample: int
    start_s: float
    unix_offset_s: float


class StreamFile:
    """The growing file of one stream; errors as `GrowingDataset`."""

    def __init__(
        self,
        path: Path,
        info: StreamInfo,
        start: StreamStart,
        first: tuple[Block, Label],
        *,
        gestures: tuple[str, ...] = (),
        session: Session | None = None,
        sync: bool = False,
    ) -> None:
        self.path = path
        self._info, self._start = info, start
        self._end_sample = start.first_sample
        self._dtype = stream_dtype(info.n_ch)
        rows = self._rows(*first)
        attributes = _attributes(path, info, start, gestures, session or Session())
        attributes |= self._bounds()
        self._growing = GrowingDataset.create(path, TABLE, attributes, rows, sync=sync)

    def append(self, block: Block, label: Label) -> None:
        """Write a block; it counts after `flush`."""
        self._growing.append(self._rows(block, label))

    def reach(self, end_sample: int) -> None:
        """The stream has come up to this sample, though not all arrived."""
        self._end_sample = end_sample

    def flush(self) -> None:
        """Make all that was appended count."""
        self._growing.flush(**self._bounds())

    def close(self) -> None:
        """Flush and let go of the file."""
        try:
            self.flush()
        finally:
            self._growing.close()

    def _rows(self, block: Block, label: Label) -> NDArray[np.void]:
        start, rate_hz = self._start, self._info.rate_hz
        rows = np.zeros(len(block.samples), self._dtype)  # T
        within = np.arange(len(rows))
        index = block.first_sample + within
        device_us = np.nan if block.device_us is None else block.device_us
        rows["time"] = start.start_s + (index - start.first_sample) / rate_hz
        rows["emg"] = physical(block.samples, self._info.scale)
        rows["gesture"], rows["trial"] = label.gesture, label.trial
        rows["repetition"] = label.repetition
        rows["sample_index"], rows["seq"] = index, block.seq
        rows["device_time"] = 1e-6 * device_us + within / rate_hz
        rows["arrived"] = block.arrived_s + start.unix_offset_s
        self._end_sample = block.first_sample + len(rows)
        return rows

    def _bounds(self) -> dict[str, float]:
        """Attributes that grow with the file."""
        recorded_s = (self._end_sample - self._start.first_sample) / self._info.rate_hz
        return {"end": self._start.start_s + recorded_s, "end_sample": self._end_sample}


def stream_dtype(channels: int) -> np.dtype[Any]:
    """The type of one row."""
    return np.dtype(
        [
            ("time", "<f8"), ("joint_angles", "<f8", (len(JOINT_NAMES),)),
            ("emg", "<f4", (channels,)), ("gesture", "<i2"), ("trial", "<i4"),
            ("repetition", "<i2"), ("sample_index", "<i8"), ("seq", "<i8"),
            ("device_time", "<f8"), ("arrived", "<f8"),
        ]
    )  # fmt: skip


def _attributes(
    path: Path, info: StreamInfo, start: StreamStart, gestures: tuple[str, ...], session: Session
) -> dict[str, Any]:
    """emg2pose's, then `write_emg2pose`'s, then those of a stream."""
    return {
        "filename": path.stem, "session": session.session or path.stem, "stage": "unconstrained",
        "user": session.user, "side": session.side, "start": start.start_s,
        "num_channels": info.n_ch, "sample_rate": float(info.rate_hz),
        "gestures": json.dumps(gestures), "emg_unit": info.unit, "is_envelope": info.envelope,
        "pose_unit": "rad", "synthetic": False, "source": "embridge",
        "emg_unit_per_count": float(info.scale), "has_pose": False,
        "first_sample": start.first_sample, "boot_id": info.boot_id, "bits": info.bits,
        "samples_per_frame": info.samples_per_frame, "encoding": info.encoding.name.lower(),
        "firmware": info.firmware, "device": info.device,
        "model_sha256": info.model_sha256.hex(),
    }  # fmt: skip


def compress_recording(path: Path, progress: Progress | None = None) -> None:
    """Rewrite a recording in compressed chunks: readers see the old file, or the whole new one.

    Takes constant memory. RecordingError when it cannot be written; the recording stays as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with h5py.File(path, "r") as old, h5py.File(partial, "w") as new:
            rows = old[TABLE]
            group = new.create_group(rows.parent.name)
            group.attrs.update(rows.parent.attrs)
            chunks = (min(len(rows), CHUNK_ROWS),)
            table = new.create_dataset(
                TABLE, shape=rows.shape, dtype=rows.dtype, chunks=chunks, **STORAGE
            )
            for start in range(0, len(rows), COPY_ROWS):
                table[start : start + COPY_ROWS] = rows[start : start + COPY_ROWS]
                if progress:
                    done = min(start + COPY_ROWS, len(rows))
                    progress(done, len(rows), f"compress {path.name}")
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # or a loss of power could replace a whole file by an empty one
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RecordingError(
            f"{path}: recorded and whole, but it could not be compressed ({reason}): make room; it "
            "can be used as it is"
        ) from error
    finally:
        partial.unlink(missing_ok=True)

"""What a recording holds to play: counts in frames, and what the wrist declared.

Files of emg2pose's layout are read piece by piece, so that hours take no more memory than seconds.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from embridge.device.emg2pose import CHUNK_ROWS, checked_table, readable
from embridge.device.errors import RecordingError
from embridge.device.recordings import read_recording
from embridge.firmware_bridge import Encoding, StreamInfo, default_samples_per_frame, to_counts

PIECE_ROWS: Final = 4 * CHUNK_ROWS


@dataclass(slots=True)
class Piece:
    """Consecutive rows of a recording."""

    counts: NDArray[np.int16]  # T C
    index: NDArray[np.int64]  # T: number of the sample in its stream
    seq: NDArray[np.int64]  # T: number of its frame
    time_s: NDArray[np.float64]  # T: when it was taken
    device_s: NDArray[np.float64] | None  # T: the same on the wrist's clock

    def __getitem__(self, rows: slice) -> "Piece":
        """Some of these rows, as views."""
        device_s = None if self.device_s is None else self.device_s[rows]
        return Piece(
            self.counts[rows], self.index[rows], self.seq[rows], self.time_s[rows], device_s
        )

    def __add__(self, other: "Piece") -> "Piece":
        """These rows, then those."""
        join = np.concatenate
        device_s = None
        if self.device_s is not None and other.device_s is not None:
            device_s = join([self.device_s, other.device_s])
        return Piece(
            join([self.counts, other.counts]), join([self.index, other.index]),
            join([self.seq, other.seq]), join([self.time_s, other.time_s]), device_s,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tape:
    """An opened recording.

    pieces: all rows, in order, from the beginning at each call
    first_sample, end_sample: bounds in the stream with gaps at both ends; None: as the rows
    """

    info: StreamInfo
    pieces: Callable[[], Iterator[Piece]]
    first_sample: int | None = None
    end_sample: int | None = None


@contextmanager
def open_tape(path: Path) -> Iterator[Tape]:
    """Open a recording of any kind; RecordingError when it cannot be read."""
    with ExitStack() as stack:
        if path.suffix.lower() not in (".h5", ".hdf5"):
            yield _whole(path)
            return
        with readable(path):
            file = stack.enter_context(h5py.File(path, "r"))
            table, attributes = checked_table(path, file)
        yield _table_tape(path, table, attributes)


def frames(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Cut where the frame number changes or samples are missing; only whole frames come out."""
    rest: Piece | None = None
    for piece in pieces:
        rows = piece if rest is None else rest + piece
        cuts = np.flatnonzero((np.diff(rows.seq) != 0) | (np.diff(rows.index) != 1)) + 1
        start = 0
        for end in cuts.tolist():
            yield rows[start:end]
            start = end
        rest = rows[start:]
    if rest is not None:
        yield rest


def _whole(path: Path) -> Tape:
    """A recording that is read in one go."""
    recording = read_recording(path)
    counts, scale = to_counts(recording.emg, recording.emg_unit_per_count)
    attributes = {
        "emg_unit": recording.emg_unit,
        "is_envelope": recording.is_envelope,
        "user": recording.user,
    }
    info = _declared(path, recording.emg.shape[1], recording.rate_hz, scale, attributes)
    index = np.arange(len(counts))
    piece = Piece(counts, index, index // info.samples_per_frame, index / info.rate_hz, None)
    return Tape(info, lambda: iter([piece]))


def _table_tape(path: Path, table: Any, attributes: dict[str, Any]) -> Tape:
    """Rows of emg2pose's layout."""
    scale = attributes.get("emg_unit_per_count") or _fitting_scale(path, table)
    channels, rate_hz = table.dtype["emg"].shape[0], float(attributes["sample_rate"])
    info = _declared(path, channels, rate_hz, scale, attributes)
    names = table.dtype.names

    def pieces() -> Iterator[Piece]:
        for start, rows in _read(path, table):
            counts, _ = to_counts(rows["emg"], scale)
            index = np.arange(start, start + len(rows))
            index = rows["sample_index"] if "sample_index" in names else index
            seq = rows["seq"] if "seq" in names else index // info.samples_per_frame
            device_s = rows["device_time"] if "device_time" in names else None
            yield Piece(counts, index, seq, rows["time"], device_s)

    return Tape(info, pieces, attributes.get("first_sample"), attributes.get("end_sample"))


def _fitting_scale(path: Path, table: Any) -> float:
    """Unit per count at which the largest value of the whole file fits int16."""
    peak = max(np.abs(rows["emg"]).max() for _, rows in _read(path, table))
    _, scale = to_counts(np.array([[peak]], np.float32), None)
    return scale


def _read(path: Path, table: Any) -> Iterator[tuple[int, NDArray[np.void]]]:
    """(first row, rows) of about PIECE_ROWS, so that no chunk is unpacked twice."""
    chunk = table.chunks[0] if table.chunks else 1
    step = -(-PIECE_ROWS // chunk) * chunk
    for start in range(0, len(table), step):
        with readable(path):
            rows = table[start : start + step]
        yield start, rows


def _declared(
    path: Path, channels: int, rate_hz: float, scale: float, attributes: dict[str, Any]
) -> StreamInfo:
    """What the wrist declared, as far as the file tells it."""
    per_frame = default_samples_per_frame(rate_hz, channels)
    device = attributes.get("device", attributes.get("user", ""))
    try:
        return StreamInfo(
            n_ch=channels,
            rate_hz=rate_hz,
            samples_per_frame=attributes.get("samples_per_frame", per_frame),
            unit=attributes.get("emg_unit", "uV"),
            scale=scale,
            boot_id=attributes.get("boot_id", zlib.crc32(path.name.encode())),
            bits=attributes.get("bits", 16),
            envelope=attributes.get("is_envelope", False),
            firmware=attributes.get("firmware", "replay"),
            device=device.encode()[:16].decode(errors="ignore"),
            model_sha256=bytes.fromhex(attributes.get("model_sha256", "00" * 32)),
            encoding=Encoding[attributes.get("encoding", "int16").upper()],
        )
    except (KeyError, ValueError) as error:
        raise RecordingError(
            f"{path.name}: its attributes describe a stream that cannot be ({error}): the file was "
            "changed after recording"
        ) from error

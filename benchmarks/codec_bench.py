"""`embridge bench codec`: how fast frames are made and read, and how small samples get.

Framing is timed on int16 frames of 16 channels, since its work depends on bytes alone. The
encodings are measured on recordings, cut into frames as a wrist would send them; beside them stand
raw int16, zlib on each frame's samples, and zlib on the differences of a whole file, which no live
link can use. How many bits an exact code needs is decided by the size of one count: halving it
costs about one bit a sample. So each row says where its count comes from:

declared   the recording says it
found      all values are multiples of it, up to rounding
assumed    neither: the largest value became 32000 counts, finer than any converter
"""

import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import RecordingError
from embridge.device.recordings import Recording, find_recordings, read_recording
from embridge.firmware_bridge import (
    DataFrame,
    Decoder,
    Encoding,
    data_frame,
    decode_samples,
    encode,
    encode_samples,
    to_counts,
)
from embridge.firmware_bridge.synthetic_signal import synthetic_counts

FRAMING_FRAMES: Final = 20_000
READ_BYTES: Final = 4096
SYNTHETIC_S: Final = 20.0
ZLIB_LEVEL: Final = 6
_LEVELS: Final = 16  # fewer different values say nothing about their step
_OFF: Final = 1 / 8  # of a step, that a multiple of it may be off by rounding

Clock = Callable[[], float]


class Kind(NamedTuple):
    """What recordings of one row have in common."""

    source: str
    channels: int
    rate_hz: float
    unit: str
    resolution: str  # where the size of a count comes from: declared, found or assumed


def bench_codec(
    paths: Sequence[Path] = (),
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    *,
    samples_per_frame: int = 20,
    frames_per_recording: int = 2000,
    rounds: int = 7,
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """Time the framing, and all encodings on the recordings at `paths`, files or folders.

    Without `paths` the encodings are tried on a synthetic signal.
    frames_per_recording: so many at most, drawn at random. Recordings of one kind share a row.
    RecordingError when one cannot be read or is shorter than a frame.
    """
    rng = np.random.default_rng(seed)
    files = [file for path in paths for file in find_recordings(path)]
    rows: dict[Kind, Row] = {}
    for number, file in enumerate(files or [None]):
        if progress:
            progress(number, len(files), f"encodings: {file.name if file else 'synthetic signal'}")
        kind, counts, step = _counts_of(file) if file else _synthetic(seed)
        frames = _cut(counts, samples_per_frame, frames_per_recording, rng, kind.source)
        rows.setdefault(kind, Row()).add(counts, step, frames, clock)
    if progress:
        progress(len(files), len(files), "encodings: done")
    return {
        "samples_per_frame": samples_per_frame,
        "seed": seed,
        "framing": _framing(rng, rounds, clock),
        "recordings": [kind._asdict() | row.result() for kind, row in rows.items()],
    }


def text(result: dict[str, Any]) -> str:
    """The result for people."""
    framing = result["framing"]
    lines = [
        f"framing of {framing['frame_bytes']:.0f} bytes, median of {framing['rounds']} rounds: "
        f"encode {framing['encode_frames_per_s']:,.0f} frames/s, "
        f"decode {framing['decode_frames_per_s']:,.0f} frames/s"
    ]
    for row in result["recordings"]:
        least, most = (f"{step:.5g}" for step in row["unit_per_count"])
        count = least if least == most else f"{least} to {most}"
        lines += [
            "",
            f"{row['source']}: {row['recordings']} recordings, {row['channels']} channels, "
            f"{row['rate_hz']:g} Hz, {row['frames']:,} frames of {result['samples_per_frame']} "
            f"samples; a count is {count} {row['unit']} ({row['resolution']}), rms "
            f"{row['rms_counts']:.0f} counts",
            f"  {'':22}{'bits/sample':>12}{'of int16':>10}{'p99':>8}{'encode/s':>11}"
            f"{'decode/s':>11}  back",
        ]
        for name, of in row["encodings"].items():
            back = "exact" if of["exact"] else f"{of['snr_db']:.1f} dB"
            lines.append(
                f"  {name:22}{of['bits_per_sample']:12.2f}{of['share']:10.3f}"
                f"{of['share_p99']:8.3f}{of['encode_frames_per_s']:11,.0f}"
                f"{of['decode_frames_per_s']:11,.0f}  {back}"
            )
        for name in ("zlib_frame", "zlib_file"):
            bits = row[f"{name}_bits_per_sample"]
            label = {"zlib_frame": "zlib 6, each frame", "zlib_file": "zlib 6, file's deltas"}
            lines.append(f"  {label[name]:22}{bits:12.2f}{bits / 16:10.3f}")
    return "\n".join(lines)


def count_size(recording: Recording) -> tuple[float | None, str]:
    """Size of one count in `emg_unit`, and whether it is declared, found or assumed (None)."""
    if recording.emg_unit_per_count is not None:
        return recording.emg_unit_per_count, "declared"
    step = step_of(recording.emg)
    return step, "assumed" if step is None else "found"


def step_of(values: NDArray[np.float32]) -> float | None:
    """The step of which all values are int16 multiples, up to rounding; None: there is none.

    It starts from the smallest difference and is fitted to more and more values, so that values
    printed with few digits give it to many.
    """
    levels = np.unique(np.abs(values)).astype(np.float64)
    levels = levels[levels > 0]
    if len(levels) < _LEVELS:
        return None
    step = float(np.diff(levels, prepend=0.0).min())
    for count in 2 ** np.arange(1, math.ceil(math.log2(len(levels))) + 1):
        head = levels[:count]
        multiples = np.rint(head / step)
        step = float(multiples @ head / (multiples @ multiples))
    if np.abs(levels / step - np.rint(levels / step)).max() > _OFF:
        return None
    return step if levels[-1] / step <= np.iinfo(np.int16).max else None


@dataclass(slots=True)
class Tally:
    """Of one encoding."""

    payload_bytes: list[int] = field(default_factory=list)
    encode_s: float = 0.0
    decode_s: float = 0.0
    error: float = 0.0  # sum of squares

    def add(self, frames: NDArray[np.int16], encoding: Encoding, clock: Clock) -> None:
        """Encode and decode frames, (frame, T, C)."""
        began_s = clock()
        payloads = [encode_samples(frame, encoding) for frame in frames]
        encoded_s = clock()
        back = [decode_samples(payload, encoding, *frames.shape[1:]) for payload in payloads]
        decoded_s = clock()
        self.encode_s += encoded_s - began_s
        self.decode_s += decoded_s - encoded_s
        self.payload_bytes += map(len, payloads)
        self.error += float(np.square(np.stack(back) - frames.astype(np.float64)).sum())

    def result(self, frame_samples: int, signal: float) -> dict[str, Any]:
        """frame_samples: T x C; signal: sum of squares."""
        shares = np.array(self.payload_bytes) / (2 * frame_samples)
        exact = self.error == 0
        return {
            "bits_per_sample": float(16 * shares.mean()),
            "share": float(shares.mean()),  # of int16
            "share_p99": float(np.percentile(shares, 99)),  # of single frames
            "encode_frames_per_s": len(shares) / self.encode_s,
            "decode_frames_per_s": len(shares) / self.decode_s,
            "exact": exact,
            "snr_db": None if exact else 10 * math.log10(signal / self.error),
        }


class Row:
    """Recordings of one kind."""

    def __init__(self) -> None:
        self._tallies = {encoding: Tally() for encoding in Encoding}
        self._steps: list[float] = []
        self._frames = 0
        self._frame_samples = 0  # T x C
        self._signal = 0.0  # sum of squares of all samples in frames
        self._zlib_frame_bytes = 0
        self._zlib_file_bytes = 0
        self._file_samples = 0

    def add(
        self, counts: NDArray[np.int16], step: float, frames: NDArray[np.int16], clock: Clock
    ) -> None:
        """counts: (T, C), the whole recording; frames: (frame, T, C), those that are sent."""
        for encoding, tally in self._tallies.items():
            tally.add(frames, encoding, clock)
        self._steps.append(step)
        self._frames += len(frames)
        self._frame_samples = frames[0].size
        self._signal += float(np.square(frames.astype(np.float64)).sum())
        self._zlib_frame_bytes += sum(
            len(zlib.compress(frame.tobytes(), ZLIB_LEVEL)) for frame in frames
        )
        deltas = np.diff(counts, axis=0, prepend=np.zeros_like(counts[:1]))  # wraps, so invertible
        self._zlib_file_bytes += len(zlib.compress(deltas.tobytes(), ZLIB_LEVEL))
        self._file_samples += counts.size

    def result(self) -> dict[str, Any]:
        """What was measured."""
        sent = self._frames * self._frame_samples
        return {
            "recordings": len(self._steps),
            "unit_per_count": [min(self._steps), max(self._steps)],
            "frames": self._frames,
            "rms_counts": math.sqrt(self._signal / sent),
            "encodings": {
                encoding.name.lower(): tally.result(self._frame_samples, self._signal)
                for encoding, tally in self._tallies.items()
            },
            "zlib_frame_bits_per_sample": 8 * self._zlib_frame_bytes / sent,
            "zlib_file_bits_per_sample": 8 * self._zlib_file_bytes / self._file_samples,
        }


def _counts_of(file: Path) -> tuple[Kind, NDArray[np.int16], float]:
    """A recording as counts (T, C), and the size of one."""
    recording = read_recording(file)
    step, how = count_size(recording)
    counts, step = to_counts(recording.emg, step)
    kind = Kind(recording.source, counts.shape[1], recording.rate_hz, recording.emg_unit, how)
    return kind, counts, step


def _synthetic(seed: int) -> tuple[Kind, NDArray[np.int16], float]:
    counts = synthetic_counts(SYNTHETIC_S, seed=seed)
    return Kind("synthetic signal", counts.shape[1], 2000.0, "count", "declared"), counts, 1.0


def _cut(
    counts: NDArray[np.int16], samples: int, most: int, rng: np.random.Generator, name: str
) -> NDArray[np.int16]:
    """counts: (T, C) -> (frame, samples, C), at most `most` of them."""
    whole = len(counts) // samples
    if not whole:
        raise RecordingError(
            f"{name}: has {len(counts)} samples, expected a frame of {samples} at least: leave it "
            "out or use shorter frames"
        )
    frames = counts[: whole * samples].reshape(whole, samples, counts.shape[1])
    return frames[np.sort(rng.choice(whole, min(most, whole), replace=False))]


def _framing(rng: np.random.Generator, rounds: int, clock: Clock) -> dict[str, Any]:
    """Frames/s of `encode` and of `Decoder.feed`, 20 samples of 16 channels each."""
    samples = rng.integers(-600, 600, (FRAMING_FRAMES, 20, 16), np.int16)
    frames = [
        data_frame(DataFrame(number % 2**16, 20 * number, block))
        for number, block in enumerate(samples)
    ]
    encode_s, decode_s = [], []
    for _ in range(rounds):
        began_s = clock()
        line = b"".join([encode(frame) for frame in frames])
        encoded_s = clock()
        decoder = Decoder()
        for at in range(0, len(line), READ_BYTES):
            decoder.feed(line[at : at + READ_BYTES])
        decode_s.append(clock() - encoded_s)
        encode_s.append(encoded_s - began_s)
        assert decoder.frames_ok == len(frames)
    return {
        "rounds": rounds,
        "frame_bytes": len(line) / len(frames),
        "encode_frames_per_s": len(frames) / median(encode_s),
        "decode_frames_per_s": len(frames) / median(decode_s),
    }

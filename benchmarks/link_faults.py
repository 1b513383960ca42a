"""`embridge bench faults`: what a damaged serial line can do to a stream, frame by frame.

A wrist's stream of DATA frames, with a declaration each second, goes through a FaultyLine and then
the way of every link: Decoder, decode_data, Reassembler. What was sent and where it was damaged is
known, so each promise of the protocol is checked on each frame:

undetected            accepted frames that are not, byte for byte, a sent one at its place
gaps_wrong            accepted frames before which another gap is reported than the frames that were
                      not, or whose block has other samples, another place or another time
recovery_violations   frames without damage in them or in the delimiter before, yet not accepted
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge import (
    FLAG_STREAMING,
    Block,
    DataFrame,
    Decoder,
    Frame,
    FrameType,
    Gap,
    Reassembler,
    StreamInfo,
    data_frame,
    decode_data,
    encode,
)
from embridge.firmware_bridge.errors import EmbridgeError
from embridge.firmware_bridge.faults import FaultyLine
from embridge.firmware_bridge.frames import DELIMITER

Key = tuple[FrameType, int]  # of a sent frame: the DATA frame of this number, or one before it

INFO: Final = StreamInfo(16, 2000.0, 20, "uV", 0.5, boot_id=1, device="faults")
FRAME_US: Final = 10_000
DECLARE_EVERY: Final = 100  # DATA frames in a second
READ_BYTES: Final = 4096
CHUNK_FRAMES: Final = 10_000  # DATA frames sent and checked at once
RATES: Final = (1e-5, 1e-4, 1e-3)
PROMISES: Final = ("undetected", "gaps_wrong", "recovery_violations")


def bench_faults(
    frames: int = 1_000_000,
    rates: Sequence[float] = RATES,
    seed: int = 0,
    progress: Callable[[int, int, str], None] | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Send `frames` DATA frames through each rate of byte drops and, as often, of bit flips.

    The first declaration and the last one arrive whole, since a host asks until it has them.
    Memory does not grow with `frames`. ValueError for a rate that is none.
    """
    if frames < 1:
        raise EmbridgeError(f"--frames {frames}: expected at least 1 frame")
    rows = []
    for number, rate in enumerate(rates):
        trial = Trial(rate, np.random.default_rng([seed, number]))
        began_s = clock()
        for done in range(0, frames, CHUNK_FRAMES):
            if progress:
                text = f"faults: {rate:g} of the bytes dropped, {rate:g} flipped"
                progress(number * frames + done, len(rates) * frames, text)
            trial.send(min(CHUNK_FRAMES, frames - done))
        row = trial.finish()
        rows.append(row | {"frames_per_s": row["frames"] / (clock() - began_s)})
    if progress:
        progress(len(rates) * frames, len(rates) * frames, "faults: done")
    return {
        "channels": INFO.n_ch,
        "samples_per_frame": INFO.samples_per_frame,
        "seed": seed,
        "rates": rows,
        "passed": not any(row[promise] for row in rows for promise in PROMISES),
    }


def text(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"{result['channels']} channels, {result['samples_per_frame']} samples a frame, seed "
        f"{result['seed']}; rate: of all bytes so many are dropped, and so many have a bit flipped",
        f"{'rate':>8}{'frames':>11}{'bytes':>14}{'dropped':>10}{'flipped':>10}{'lost':>9}"
        f"{'lost %':>9}{'undetected':>12}{'gaps wrong':>12}{'not recovered':>15}{'frames/s':>10}",
    ]
    for row in result["rates"]:
        lines.append(
            f"{row['rate']:8g}{row['frames']:11,}{row['bytes']:14,}{row['bytes_dropped']:10,}"
            f"{row['bytes_flipped']:10,}{row['frames_lost']:9,}"
            f"{100 * row['frames_lost'] / row['frames']:9.3f}{row['undetected']:12}"
            f"{row['gaps_wrong']:12}{row['recovery_violations']:15}{row['frames_per_s']:10,.0f}"
        )
    return "\n".join([*lines, f"every promise kept: {'yes' if result['passed'] else 'NO'}"])


class Trial:
    """One rate: what was sent and may still arrive, and what was found so far."""

    def __init__(self, rate: float, rng: np.random.Generator) -> None:
        self._rate = rate
        self._rng = rng
        self._line = FaultyLine(rate, rate, rng)
        self._decoder = Decoder()
        self._reassembler = Reassembler(INFO)
        self._reassembler.expect(0, 0)  # the declaration that answers START
        self._sent = 0  # DATA frames
        self._next = 0  # number of the DATA frame after the last one accepted or declared
        self._before: dict[Key, Frame] = {}  # the chunk before, whose end may still arrive
        self._on_the_way: dict[Key, Frame] = {}
        self._last_delimiter = np.zeros(0, np.int64)  # where it is, if it was damaged
        self._counts = dict.fromkeys(("bytes_dropped", "bytes_flipped", *PROMISES), 0)

    def send(self, count: int) -> None:
        """Send so many DATA frames, with their declarations, and look at what arrives."""
        chunk = dict(self._make(count))
        lines = [encode(frame) for frame in chunk.values()]
        begin = self._line.bytes_sent
        accepted = self._arrive(self._line.damage(b"".join(lines)), self._before | chunk)
        clean = self._clean(begin + np.cumsum([0, *map(len, lines)]))
        self._counts["recovery_violations"] += sum(
            key not in accepted for key, whole in zip(chunk, clean, strict=True) if whole
        )
        self._sent += count
        self._before = chunk

    def finish(self) -> dict[str, Any]:
        """Declare where the stream ends, and sum up."""
        end = self._declaration(self._sent)
        self._arrive(DELIMITER + encode(end), {(end.type, self._sent): end})
        stats = self._reassembler.stats
        lost = self._sent - stats.frames_received
        if (stats.frames_lost, stats.samples_lost) != (lost, lost * INFO.samples_per_frame):
            self._counts["gaps_wrong"] += 1
        sizes = {"frames": self._sent, "bytes": self._line.bytes_sent, "frames_lost": lost}
        return {"rate": self._rate, **sizes, **self._counts}

    def _make(self, count: int) -> Iterator[tuple[Key, Frame]]:
        shape = (count, INFO.samples_per_frame, INFO.n_ch)
        samples = self._rng.integers(-600, 600, shape, np.int16)  # zeros in most high bytes
        for number, block in enumerate(samples, self._sent):
            if number % DECLARE_EVERY == 0:
                yield (FrameType.STREAM_INFO, number), self._declaration(number)
            seq, first_sample, time_us = self._header(number)
            yield (
                (FrameType.DATA, number),
                data_frame(DataFrame(seq, first_sample, block, time_us)),
            )

    def _declaration(self, number: int) -> Frame:
        """STREAM_INFO before that DATA frame."""
        header = self._header(number)
        return Frame(FrameType.STREAM_INFO, FLAG_STREAMING, *header, payload=INFO.pack())

    def _header(self, number: int) -> tuple[int, int, int]:
        """Seq, sample_index and time_us of that DATA frame."""
        first_sample = number * INFO.samples_per_frame
        return number % 2**16, first_sample % 2**32, number * FRAME_US % 2**32

    def _arrive(self, data: bytes, on_the_way: dict[Key, Frame]) -> set[Key]:
        """Read these bytes; return which of the frames on the way were accepted."""
        accepted = set()
        for at in range(0, len(data), READ_BYTES):
            for frame in self._decoder.feed(data[at : at + READ_BYTES]):
                number = self._next + (frame.seq - self._next) % 2**16
                key = (frame.type, number)
                if on_the_way.pop(key, None) == frame:
                    accepted.add(key)
                    self._hand_on(frame, number)
                else:
                    self._counts["undetected"] += 1
        return accepted

    def _hand_on(self, frame: Frame, number: int) -> None:
        """What a link does with a frame, and whether the right gap and block come out."""
        missing = number - self._next
        per_frame = INFO.samples_per_frame
        right = [Gap(self._next * per_frame, missing * per_frame)] if missing else []
        self._next = number
        if frame.type is not FrameType.DATA:
            got = self._reassembler.expect(frame.seq, frame.sample_index)
            self._counts["gaps_wrong"] += got != right
            return
        self._next += 1
        *gaps, block = self._reassembler.push(decode_data(frame), 0.0)
        assert isinstance(block, Block)
        place = (block.seq, block.first_sample, block.device_us)
        self._counts["gaps_wrong"] += (
            gaps != right
            or place != (number, number * per_frame, number * FRAME_US)
            or block.samples.tobytes() != frame.payload
        )

    def _clean(self, bounds: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which frames between these offsets have no damage, in them or in the byte before."""
        log = self._line.take_log()
        self._counts["bytes_dropped"] += len(log.dropped)
        self._counts["bytes_flipped"] += len(log.flipped)
        damaged = np.sort(np.concatenate([self._last_delimiter, log.dropped, log.flipped]))
        self._last_delimiter = damaged[damaged == bounds[-1] - 1]
        hits = np.searchsorted(damaged, bounds[1:]) - np.searchsorted(damaged, bounds[:-1] - 1)
        clean: NDArray[np.bool_] = hits == 0
        return clean

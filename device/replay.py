"""A recording played without a wire, through the same items as a live stream.

What the recorder wrote comes back to the bit: counts, frame boundaries, sample and frame numbers,
device clock, gaps of their exact size. Other recordings are cut into frames as a wrist would.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from embridge.device.tape import Piece, Tape, frames, open_tape
from embridge.firmware_bridge import Block, EndOfStream, Gap, Item, LinkStats, Status, StreamInfo


class ReplaySource:
    """Plays a recording frame by frame; see `Source`.

    speed: seconds of the recording per second, each frame when its last sample was taken and gaps
        as pauses; 0: as fast as it is read
    sleep: how to wait; None: until `stop` at most
    """

    def __init__(
        self,
        path: Path,
        *,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._path, self._speed, self._clock = path, speed, clock
        self._stop = threading.Event()
        self._sleep = sleep or self._stop.wait
        self._stats = LinkStats()
        self._stack = ExitStack()
        self._tape: Tape | None = None
        self._began_s: float | None = None
        self._zero_s = 0.0  # time stamp that is played at _began_s

    def __enter__(self) -> Self:
        """Open the recording; RecordingError when it cannot be read."""
        self._tape = self._stack.enter_context(open_tape(self._path))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the recording."""
        self._stack.close()

    @property
    def info(self) -> StreamInfo:
        """What the recording declares; RuntimeError before it is opened."""
        return self._opened().info

    @property
    def how(self) -> str:
        """Nothing travels."""
        return ""

    @property
    def stats(self) -> LinkStats:
        """Counts so far; what is lost was lost when it was recorded."""
        return replace(self._stats)

    def stop(self) -> None:
        """End `blocks` soon; safe from a signal handler."""
        self._stop.set()

    def blocks(self) -> Iterator[Item]:
        """The recording from its beginning, then the end."""
        tape = self._opened()
        next_sample, next_seq = tape.first_sample, None
        for frame in frames(tape.pieces()):
            self._wait(frame.time_s)
            if self._stop.is_set():
                return
            first, seq = int(frame.index[0]), int(frame.seq[0])
            if next_sample is not None and first > next_sample:
                missing = first - next_sample
                lost = self._frames_of(missing) if next_seq is None else seq - next_seq
                yield self._lose(next_sample, missing, lost)
            yield self._block(frame, first, seq)
            next_sample, next_seq = first + len(frame.index), seq + 1
        if tape.end_sample is not None and next_sample is not None:
            missing = tape.end_sample - next_sample
            if missing > 0:
                yield self._lose(next_sample, missing, self._frames_of(missing))
        sent = self._stats.frames_received + self._stats.frames_lost
        self._stats.declared = Status(frames_sent=sent, frames_dropped=0)
        yield EndOfStream(self._stats.declared)

    def _block(self, frame: Piece, first: int, seq: int) -> Block:
        self._stats.frames_received += 1
        self._stats.samples_received += len(frame.index)
        device_us = None
        if frame.device_s is not None and not np.isnan(frame.device_s[0]):
            device_us = round(1e6 * float(frame.device_s[0]))
        return Block(
            first_sample=first,
            samples=frame.counts,
            arrived_s=self._clock(),
            seq=seq,
            device_us=device_us,
        )

    def _lose(self, first_sample: int, samples: int, frames: int) -> Gap:
        self._stats.gaps += 1
        self._stats.samples_lost += samples
        self._stats.frames_lost += frames
        return Gap(first_sample, samples)

    def _frames_of(self, samples: int) -> int:
        """How many frames the wrist needed at least; the file does not say."""
        return -(-samples // self.info.samples_per_frame)

    def _wait(self, time_s: NDArray[np.float64]) -> None:
        """Until the last sample of a frame is taken."""
        if self._speed <= 0:
            return
        if self._began_s is None:
            self._began_s, self._zero_s = self._clock(), float(time_s[0])
        played_s = float(time_s[-1]) - self._zero_s + 1 / self.info.rate_hz
        wait_s = self._began_s + played_s / self._speed - self._clock()
        if wait_s > 0:
            self._sleep(wait_s)

    def _opened(self) -> Tape:
        if self._tape is None:
            raise RuntimeError("the recording is not open: use `with`")
        return self._tape

"""Data frames in arrival order -> blocks on one growing sample index, with every loss located.

Pure: no I/O, no clock. Numbers on the wire wrap (seq modulo 2**16, sample_index and time_us modulo
2**32); here they are Python ints that do not. A hole is reported as a `Gap`, never filled.

Block, Gap      what comes out, in stream order
LinkStats       what happened so far
Reassembler     the state between frames
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge.errors import HandshakeError
from embridge.firmware_bridge.frames import MAX_SAMPLES, DataFrame
from embridge.firmware_bridge.protocol import Status
from embridge.firmware_bridge.stream_info import StreamInfo


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive samples as received.

    samples: (T, C) int16, device counts
    first_sample: index of samples[0] since the stream began
    arrived_s: when the bytes were read, on the clock of the link
    seq: number of the frame since the stream began
    device_us: when samples[0] was taken, on the clock of the wrist; None where it has none
    """

    first_sample: int
    samples: NDArray[np.int16]
    arrived_s: float
    seq: int = 0
    device_us: int | None = None


@dataclass(frozen=True, slots=True)
class Gap:
    """Samples that the wrist took and that never arrived."""

    first_sample: int
    samples: int


@dataclass(slots=True)
class LinkStats:
    """Counts since the link was opened."""

    frames_received: int = 0
    frames_lost: int = 0  # sent or dropped by the wrist, never received
    frames_repeated: int = 0  # received again, or too late to be of use: dropped
    frames_corrupt: int = 0  # pieces of the byte stream that were no intact frame
    samples_received: int = 0
    samples_lost: int = 0
    gaps: int = 0
    bytes_received: int = 0
    reconnects: int = 0  # the port went away and came back
    restarts: int = 0  # the wrist booted and began a new stream
    declared: Status | None = None  # the wrist's own counts, from its latest event
    drift_ppm: float | None = None  # device clock against the host's; None while unknown
    rate_hz: float | None = None  # samples per second of the host's clock, measured


class Reassembler:
    """Orders the frames of one wrist; HandshakeError when the wrist contradicts itself."""

    def __init__(self, info: StreamInfo, stats: LinkStats | None = None) -> None:
        self.stats = LinkStats() if stats is None else stats
        self._n_ch = info.n_ch
        self._rate_hz = info.rate_hz
        self._samples_per_frame = info.samples_per_frame
        self._next_sample: int | None = None  # None: the stream has no known beginning yet
        self._next_frame = 0
        self._next_us: int | None = None  # device clock at _next_sample, as its rate predicts

    def adopt(self, info: StreamInfo) -> None:
        """The wrist declared how many samples it puts in a frame from now on."""
        self._samples_per_frame = info.samples_per_frame

    def restart(self) -> None:
        """The wrist booted: its next frame begins a new stream, whatever its numbers."""
        self._next_sample = self._next_us = None
        self.stats.restarts += 1

    def expect(self, seq: int, sample_index: int) -> list[Gap]:
        """The wrist declared the number of the frame that follows: what is missing before it?"""
        if self._next_sample is None:
            self._next_sample, self._next_frame = sample_index, seq
        ahead = self._ahead(sample_index)
        return [self._lose(ahead, seq)] if ahead > 0 else []

    def push(self, frame: DataFrame, arrived_s: float) -> list[Gap | Block]:
        """Take the next frame; return the gap before it, if any, and its samples."""
        n_samp = self._check_shape(frame)
        items: list[Gap | Block] = [*self.expect(frame.seq, frame.sample_index)]
        assert self._next_sample is not None
        if self._ahead(frame.sample_index) < 0:
            self.stats.frames_repeated += 1
            return items
        if frame.seq != self._next_frame % 2**16:
            raise HandshakeError(
                f"the wrist sent frame {frame.seq} at sample {self._next_sample} where frame "
                f"{self._next_frame % 2**16} belongs: check how its firmware counts"
            )
        device_us = self._unwrapped_us(frame.time_us)
        items.append(
            Block(self._next_sample, frame.samples, arrived_s, self._next_frame, device_us)
        )
        self._next_us = device_us
        self._advance(n_samp, frames=1)
        self.stats.frames_received += 1
        self.stats.samples_received += n_samp
        return items

    def _check_shape(self, frame: DataFrame) -> int:
        n_samp, n_ch = map(int, frame.samples.shape)  # T C
        if n_ch != self._n_ch:
            raise HandshakeError(
                f"the wrist declared {self._n_ch} channels and sent {n_ch}: check its firmware"
            )
        return n_samp

    def _ahead(self, sample_index: int) -> int:
        """Samples from the next expected one to this one; negative: it is older.

        Unique while an outage lasts less than 2**31 samples, 12 days at 2 kHz.
        """
        assert self._next_sample is not None
        half = 2**31
        return (sample_index - self._next_sample + half) % (2 * half) - half

    def _unwrapped_us(self, time_us: int) -> int:
        """The device time with these low 32 bits that lies nearest to what is expected here."""
        if self._next_us is None:
            return time_us
        half = 2**31
        return self._next_us + (time_us - self._next_us + half) % (2 * half) - half

    def _lose(self, samples: int, seq: int) -> Gap:
        """Count `samples` missing before frame `seq`.

        seq alone is blind beyond 65535 frames; the number of samples tells how often it wrapped.
        """
        assert self._next_sample is not None
        likely = samples / self._samples_per_frame
        wrapped = (seq - self._next_frame) % 2**16
        frames = wrapped + 2**16 * max(0, round((likely - wrapped) / 2**16))
        if not frames <= samples <= frames * MAX_SAMPLES:
            raise HandshakeError(
                f"from sample {self._next_sample} the wrist skipped {samples} samples, but counted "
                f"from frame {self._next_frame % 2**16} to {seq}: check its firmware"
            )
        gap = Gap(self._next_sample, samples)
        self._advance(samples, frames)
        self.stats.frames_lost += frames
        self.stats.samples_lost += samples
        self.stats.gaps += 1
        return gap

    def _advance(self, samples: int, frames: int) -> None:
        assert self._next_sample is not None
        self._next_sample += samples
        self._next_frame += frames
        if self._next_us is not None:
            self._next_us += round(1e6 * samples / self._rate_hz)

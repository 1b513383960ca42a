"""What the sources of other people's devices have in common: opening, silence, coming back."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from embridge.device.foreign.counting import Counting
from embridge.firmware_bridge.errors import HandshakeError, LinkError, LinkLost
from embridge.firmware_bridge.items import Item, Reconnected
from embridge.firmware_bridge.reassembly import LinkStats
from embridge.firmware_bridge.stream_info import StreamInfo

FIRST_WAIT_S: Final = 0.1  # before the device is tried again; doubled each time
LONGEST_WAIT_S: Final = 2.0

Log = Callable[[str], None]
log_warning: Final[Log] = logging.getLogger(__name__).warning


@dataclass(frozen=True, slots=True, eq=False)
class Arrival:
    """Consecutive frames of the device. samples: (T, C); number: of the first, as it was sent."""

    number: int
    samples: NDArray[np.int16]
    arrived_s: float


class ForeignSource(ABC):
    """A device read through its own protocol; a `device.source.Source`.

    timeout_s: how long the device may take to answer and to send its first sample
    reconnect_s: how long a lost device may stay away
    silence_s: without any sample for so long, the device counts as lost
    clock: seconds; stamps blocks and measures all of the above

    After an absence the device counts anew: the `Gap` that follows `Reconnected` is as long as the
    absence was on the host's clock.
    """

    ADVICE: ClassVar[str]  # what to look at when the device does not answer

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        reconnect_s: float,
        silence_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
        log: Log = log_warning,
    ) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._reconnect_s = reconnect_s
        self._silence_s = silence_s
        self._clock = clock
        self._log = log
        self._stop = threading.Event()
        self._stats = LinkStats()
        self._info: StreamInfo | None = None
        self._counting: Counting | None = None
        self._ready: deque[Item] = deque()  # arrived, not yet taken
        self._silent_s = 0.0  # spent in reads since the last sample

    @property
    @abstractmethod
    def how(self) -> str:
        """How samples travel, in words, for the log."""

    @property
    @abstractmethod
    def _modulus(self) -> int:
        """What the numbers of frames wrap at; 1: they have none."""

    @abstractmethod
    def _connect(self, timeout_s: float) -> StreamInfo:
        """Open the device and start it; LinkError, or OSError when there is no answer."""

    @abstractmethod
    def _read(self) -> list[Arrival]:
        """What arrives within some ms, maybe nothing; OSError when the device is gone."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Stop and close the device; does nothing when it is closed, or gone."""

    def __enter__(self) -> Self:
        """Open the device and start it.

        PortNotFound when there is none; HandshakeError when it does not answer as it should, or
        sends no sample within timeout_s.
        """
        try:
            self._place(self._begin(self._timeout_s), silent_s=0.0)
        except OSError as error:
            raise HandshakeError(
                f"{self.url}: no samples within {self._timeout_s:g} s ({error}); {self.ADVICE}"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Stop and close the device."""
        self._disconnect()

    @property
    def info(self) -> StreamInfo:
        """What the stream carries; RuntimeError before the source is opened."""
        if self._info is None:
            raise RuntimeError("the source is not open: use `with`")
        return self._info

    @property
    def stats(self) -> LinkStats:
        """A copy of the counts so far."""
        return replace(self._stats)

    def stop(self) -> None:
        """End `blocks` soon; safe from any thread and from a signal handler."""
        self._stop.set()

    def blocks(self) -> Iterator[Item]:
        """What arrives, in order, until `stop`; LinkLost when a lost device does not come back."""
        while not self._stop.is_set():
            if self._ready:
                yield self._ready.popleft()
                continue
            try:
                arrivals, silent_s = self._receive()
            except OSError as error:
                if (back := self._reconnect(str(error))) is not None:
                    yield back
                continue
            self._place(arrivals, silent_s)

    def _receive(self) -> tuple[list[Arrival], float]:
        """What the next read gives, and for how long the line was silent before."""
        before_s = self._clock()
        arrivals = self._read()
        silent_s = self._silent_s
        # Only time spent reading counts: a slow consumer must not look like a silent device.
        self._silent_s = 0.0 if arrivals else silent_s + self._clock() - before_s
        if self._silent_s > self._silence_s:
            raise TimeoutError(f"no sample for {self._silence_s:g} s")
        return arrivals, silent_s

    def _place(self, arrivals: list[Arrival], silent_s: float) -> None:
        assert self._counting is not None
        for arrival in arrivals:
            self._ready += self._counting.push(
                arrival.number, arrival.samples, arrival.arrived_s, silent_s
            )
            silent_s = 0.0

    def _begin(self, timeout_s: float) -> list[Arrival]:
        """Connect, and the first samples; OSError when there are none within timeout_s."""
        deadline_s = self._clock() + timeout_s
        try:
            info = self._connect(timeout_s)
            while not (arrivals := self._read()):
                if self._clock() > deadline_s or self._stop.is_set():
                    raise TimeoutError("connected, but nothing is streamed")
        except BaseException:
            self._disconnect()
            raise
        if self._counting is None:
            self._info = info
            frame_s = info.samples_per_frame / info.rate_hz
            self._counting = Counting(self._modulus, frame_s, info.samples_per_frame, self._stats)
        self._counting.renumber()
        self._silent_s = 0.0
        return arrivals

    def _reconnect(self, cause: str) -> Reconnected | None:
        """Open the device again; None when `stop` was called meanwhile."""
        lost_s, wait_s, why = self._clock(), FIRST_WAIT_S, cause
        self._disconnect()
        while not self._stop.wait(wait_s):
            left_s = self._reconnect_s - (self._clock() - lost_s)
            if left_s <= 0:
                raise LinkLost(
                    f"{self.url}: lost ({cause}) and not back within {self._reconnect_s:g} s "
                    f"({why}); {self.ADVICE}"
                )
            try:
                arrivals = self._begin(min(self._timeout_s, left_s))
            except (LinkError, OSError) as error:
                why = str(error)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
                continue
            self._place(arrivals, silent_s=0.0)
            self._stats.reconnects += 1
            return Reconnected(self._clock() - lost_s, cause)
        return None


def boot_id() -> int:
    """A number for a device that draws none itself."""
    return int(np.random.default_rng().integers(2**32))


def clipped_text(text: str, size: int = 16) -> str:
    """As much of `text` as fits `size` bytes of UTF-8, for the texts of StreamInfo."""
    return text.encode()[:size].decode(errors="ignore").replace("\0", "")

"""What a live run reads, wherever it comes from."""

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge import Item, LinkStats, StreamInfo


class Source(Protocol):
    """A stream of blocks from a wrist or a file; `info` is what it declares about itself."""

    @property
    def info(self) -> StreamInfo:
        """What the stream carries."""

    @property
    def how(self) -> str:
        """How samples travel, in words, for the log; "" where there is nothing to say."""

    @property
    def stats(self) -> LinkStats:
        """Counts so far."""

    def blocks(self) -> Iterator[Item]:
        """What arrives, in order."""

    def stop(self) -> None:
        """End `blocks` soon; safe from a signal handler."""

    def __enter__(self) -> Self:
        """Open."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        """Close."""


def physical(counts: NDArray[np.int16], scale: float) -> NDArray[np.float32]:
    """Counts -> values in the stream's unit; the one place where this is done."""
    return (counts * np.float64(scale)).astype(np.float32)

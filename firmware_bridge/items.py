"""What a link yields besides the samples and gaps of `reassembly`."""

from dataclasses import dataclass

from embridge.firmware_bridge.protocol import Status
from embridge.firmware_bridge.reassembly import Block, Gap


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The line was lost and is back; a `Gap` with the samples missed follows."""

    away_s: float
    cause: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """The wrist booted: a new stream follows, with sample indices of its own."""

    boot_id: int


@dataclass(frozen=True, slots=True)
class EndOfStream:
    """The wrist has played all it had."""

    status: Status


Item = Block | Gap | Reconnected | Restarted | EndOfStream

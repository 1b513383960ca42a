"""A process's part in what several processes do together."""

import os
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError

Item = TypeVar("Item", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Part:
    """The `rank`-th of `world` equal parts of every batch; by default all of it."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """True for the one process that writes files and reports."""
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """Its rows of a batch of `total` windows; ConfigError when they cannot be shared evenly."""
        if total % self.world:
            raise ConfigError(
                f"a batch of {total} windows cannot be shared by {self.world} processes evenly: "
                f"choose optim.batch as a multiple of {self.world}"
            )
        size = total // self.world
        return slice(self.rank * size, (self.rank + 1) * size)

    def of(self, batch: NDArray[Item]) -> NDArray[Item]:
        """Its rows of an array that was drawn for the whole batch, (B, ...) -> (B / world, ...)."""
        return batch[self.rows(len(batch))]


ALL = Part()


def launched() -> Part:
    """The part that torchrun gave this process in its environment; all of it without torchrun."""
    return Part(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

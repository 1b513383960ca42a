"""A bounded memory of what was read last, one in each process."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Key = tuple[str, str, int]  # whose, what, which
Made = Callable[[], NDArray[np.float32]]


class ChunkCache:
    """Arrays kept for the next asker; when there are too many, those asked for longest ago go."""

    def __init__(self) -> None:
        self.held_bytes = 0
        self._arrays: OrderedDict[Key, NDArray[np.float32]] = OrderedDict()

    def get(self, key: Key, limit_bytes: int, make: Made) -> NDArray[np.float32]:
        """The array of this key, made when it is not held; at most `limit_bytes` stay held."""
        found = self._arrays.pop(key, None)
        if found is None:
            found = make()
            self.held_bytes += found.nbytes
        self._arrays[key] = found
        while self.held_bytes > limit_bytes:
            self.held_bytes -= self._arrays.popitem(last=False)[1].nbytes
        return found


chunk_cache = ChunkCache()

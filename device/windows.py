"""Where windows lie: one grid for training, evaluation and the live runtime."""

import numpy as np
from numpy.typing import NDArray


def window_starts(samples: int, window: int, hop: int, first: int = 0) -> range:
    """Starts of all whole windows in samples [first, samples): the multiples of `hop`."""
    aligned = -(-first // hop) * hop
    return range(aligned, samples - window + 1, hop)


class WindowBuffer:
    """Cuts a stream of normalised samples into windows on the grid of `window_starts`."""

    def __init__(self, channels: int, window: int, hop: int) -> None:
        self.window, self.hop = window, hop
        self._channels = channels
        self.restart(0)

    def restart(self, first_sample: int) -> None:
        """Forget everything; the next pushed sample has this index. No window spans a restart."""
        self._samples: NDArray[np.float32] = np.empty((0, self._channels), np.float32)
        self._index = first_sample  # index of _samples[0]
        self._next = -(-first_sample // self.hop) * self.hop

    def push(self, samples: NDArray[np.float32]) -> list[tuple[int, NDArray[np.float32]]]:
        """Add (T, C) samples; return (start, window (C, T)) for each window now complete."""
        windows = []
        self._samples = np.concatenate([self._samples, samples])
        end = self._index + len(self._samples)
        while self._next + self.window <= end:
            start = self._next - self._index
            window = np.ascontiguousarray(self._samples[start : start + self.window].T)  # C T
            windows.append((self._next, window))
            self._next += self.hop
        keep_from = max(0, min(self._next - self._index, len(self._samples)))
        self._samples = self._samples[keep_from:]
        self._index += keep_from
        return windows

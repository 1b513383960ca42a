"""Mean and standard deviation of rows that come in blocks, however many there are."""

import numpy as np
from numpy.typing import NDArray


class Moments:
    """Count, mean and spread of the rows seen so far, in float64 (Chan, Golub, LeVeque 1983)."""

    def __init__(self, columns: int) -> None:
        self.count = 0
        self.mean = np.zeros(columns)
        self._square = np.zeros(columns)  # summed squares of deviations from the mean

    def add(self, rows: NDArray[np.float32]) -> None:
        """Take in (T, C) rows; T may be 0."""
        if not len(rows):
            return
        mean = rows.mean(axis=0, dtype=np.float64)
        square = ((rows - mean) ** 2).sum(axis=0, dtype=np.float64)
        count = self.count + len(rows)
        step = mean - self.mean
        self._square += square + step**2 * (self.count * len(rows) / count)
        self.mean = self.mean + step * (len(rows) / count)
        self.count = count

    @property
    def spread(self) -> NDArray[np.float64]:
        """(C,) standard deviation."""
        return np.asarray(np.sqrt(self._square / max(1, self.count)))

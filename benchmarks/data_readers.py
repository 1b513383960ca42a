"""Who takes turns in `embridge bench data`: a plain h5py loop, the same with filters, and ours."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from embridge.device.row_files import FileRows, OpenFiles
from embridge.training.config import Config
from embridge.training.loader import Batch
from embridge.training.material import Balanced
from embridge.training.windows import NormalisedWindows, WindowSet

CONTESTANTS = {  # and their worker processes
    "plain_h5py": 0,
    "plain_filtered": 0,
    "workers_0": 0,
    "workers_2": 2,
}
Draw = Callable[[int], NDArray[np.int64]]


def orders_of(train: NormalisedWindows, batch: int) -> dict[str, Draw]:
    """Indices of the batch of a step: as the trainer draws them, and one after the other."""
    balanced = Balanced(train)

    def random(step: int) -> NDArray[np.int64]:
        return balanced.draw(batch, np.random.default_rng(step))

    def sequential(step: int) -> NDArray[np.int64]:
        return (step * batch + np.arange(batch)) % len(train)

    return {"random": random, "sequential": sequential}


def reader_of(
    name: str, train: NormalisedWindows, draw: Draw, config: Config
) -> Callable[[int], Batch]:
    """The reader of a contestant."""
    if name.startswith("plain"):
        return plain_reader(train.windows, draw, filtered=name == "plain_filtered")
    return our_reader(train, draw, config)


def our_reader(train: NormalisedWindows, draw: Draw, config: Config) -> Callable[[int], Batch]:
    """Filtered and normalised EMG (B, C, T) with scaled pose (B, J, T)."""

    def read(step: int) -> Batch:
        index = draw(step)
        population = np.random.default_rng(step).random(len(index)) < config.optim.population_share
        return train.inputs(index, population), train.pose(index)

    return read


def plain_reader(
    windows: WindowSet, draw: Draw, *, filtered: bool = False
) -> Callable[[int], Batch]:
    """The rows of the same windows as they are in the file; as many files stay open as in ours.

    filtered: read from where the filters must begin, and filter; else nothing but read
    """
    opened = OpenFiles()

    def window(i: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        signal, start = windows.signals[windows.signal[i]], int(windows.start[i])
        source = signal.outline.rows
        if not isinstance(source, FileRows):
            raise TypeError(f"expected recordings in files, got {type(source).__name__}")
        first = max(0, start - signal.settle) if filtered else start
        rows = opened.table(source.path)[first : start + windows.window]
        emg = signal.front_end.filtered(rows["emg"]) if filtered else rows["emg"]
        return emg[start - first :], rows["joint_angles"][start - first :]

    def read(step: int) -> Batch:
        found = [window(int(i)) for i in draw(step)]
        emg = np.stack([emg for emg, _ in found])  # B T C
        return emg, np.stack([angles for _, angles in found]).astype(np.float32)

    return read

"""Rows of a recording, read when they are asked for."""

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from embridge.device.emg2pose import TABLE, angles_of, readable
from embridge.device.recordings import Recording

OPEN_FILES = 64
FILE_CACHE_BYTES = 2 << 20  # of HDF5 in each open file: pose lies in the chunks EMG was read from


class Rows(Protocol):
    """Row-synchronous EMG and pose of one recording."""

    def emg(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows [start, stop): (T, C), in the unit of the recording."""
        ...

    def pose(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows [start, stop): (T, J), 0 where it is not valid; ValueError where there is none."""
        ...


@dataclass(frozen=True, slots=True)
class HeldRows:
    """Rows of a recording that is in memory."""

    recording: Recording

    def emg(self, start: int, stop: int) -> NDArray[np.float32]:
        """See `Rows`."""
        return self.recording.emg[start:stop]

    def pose(self, start: int, stop: int) -> NDArray[np.float32]:
        """See `Rows`."""
        if self.recording.pose is None:
            raise ValueError(f"{self.recording.name} has no pose")
        return self.recording.pose[start:stop]


@dataclass(frozen=True, slots=True)
class FileRows:
    """Rows of an HDF5 file in emg2pose's layout; only the path travels to another process.

    RecordingError when the file cannot be read any more.
    """

    path: Path

    def emg(self, start: int, stop: int) -> NDArray[np.float32]:
        """See `Rows`."""
        with readable(self.path):
            rows = _opened.table(self.path).fields("emg")[start:stop]
        return np.ascontiguousarray(rows, np.float32)

    def pose(self, start: int, stop: int) -> NDArray[np.float32]:
        """See `Rows`."""
        with readable(self.path):
            rows = _opened.table(self.path).fields("joint_angles")[start:stop]
        return angles_of(rows)[0]


class OpenFiles:
    """Files of this process that are open, the one used longest ago closed first."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, tuple[h5py.File, h5py.Dataset]] = OrderedDict()
        self._inherited: list[OrderedDict[Path, tuple[h5py.File, h5py.Dataset]]] = []
        os.register_at_fork(after_in_child=self.forget)

    def table(self, path: Path) -> Any:
        """The dataset of rows of a file, kept open: HDF5 drops the chunks of a closed one."""
        found = self._files.pop(path, None)
        if found is None:
            file = h5py.File(path, "r", rdcc_nbytes=FILE_CACHE_BYTES)
            found = file, file[TABLE]
            while len(self._files) >= OPEN_FILES:
                self._files.popitem(last=False)[1][0].close()
        self._files[path] = found
        return found[1]

    def forget(self) -> None:
        """Leave the parent's files alone, even unclosed; this process opens its own."""
        self._inherited.append(self._files)
        self._files = OrderedDict()


_opened = OpenFiles()

"""The C firmware on an emulated board, read through its UART."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge.ports import Address
from embridge.firmware_bridge.qemu_board import QemuBoard
from embridge.firmware_bridge.recording_blob import write_blob
from embridge.firmware_bridge.serial_transport import SerialTransport
from embridge.firmware_bridge.stream_info import StreamInfo
from embridge.firmware_bridge.transport import Capacity


class QemuTransport(SerialTransport):
    """A board that samples (T, C) int16 are loaded into; it boots at the first `open`.

    speed: the board samples so many times faster than `info` says, and declares it
    """

    def __init__(
        self,
        url: str,
        board: str,
        samples: NDArray[np.int16],
        info: StreamInfo,
        *,
        speed: float = 1.0,
        loop: bool = False,
    ) -> None:
        super().__init__(url, self._where)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._samples = samples
        self._info = replace(info, rate_hz=info.rate_hz * speed)
        self._loop = loop
        self._name = board
        self._board: QemuBoard | None = None

    def open(self) -> None:
        """Boot the board, the first time, and open its UART; LinkError when it cannot be run."""
        if self._board is None:
            board = QemuBoard(self._name, self._blob())
            board.start()
            self._board = board
        super().open()

    def release(self) -> None:
        """Switch the board off."""
        if self._board is not None:
            self._board.stop()
            self._board = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def capacity(self) -> Capacity:
        """An emulated UART has no baud rate."""
        return Capacity(text=f"the emulated UART of {self._name}")

    def _blob(self) -> Path:
        self._folder = tempfile.TemporaryDirectory(prefix="embridge-")
        path = Path(self._folder.name) / "recording.blob"
        write_blob(path, self._samples, self._info, loop=self._loop)
        return path

    def _where(self) -> Address:
        assert self._board is not None
        return Address(str(self._board.port), None)

"""The C state machine of the wrist, compiled for this machine, on a port made of Python."""

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from embridge.firmware_bridge import boards, frames
from embridge.firmware_bridge.frames import Frame, FrameType

STRICT = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion")
RATE_HZ: Final = 2048


class Stamp(ctypes.Structure):
    _fields_ = (("time_us", ctypes.c_uint64), ("missed", ctypes.c_uint32))


class CWrist:
    """The C wrist, playing samples (T, C) of RATE_HZ to a line of limited room."""

    def __init__(self, library: Any, samples: NDArray[np.int16], datagram: bool) -> None:
        self.c = library
        self.samples = samples
        self.now_us = 0
        self.sent = b""
        self.room = 10**9  # bytes that the line still takes
        self.datagram = datagram
        self.missed: dict[int, int] = {}  # sample -> how many are missing before it
        self._began_us: int | None = None
        self._next = self._lost = 0
        self._inbox: list[bytes] = []
        self._decoder = frames.Decoder()
        size = ctypes.c_size_t
        self._keep = [
            self._hook("port_now", lambda: self.now_us, ctypes.c_uint64),
            self._hook("port_sample", self._sample, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p),
            self._hook("port_write", self._write, size, ctypes.c_void_p, size),
            self._hook("port_read", self._read, size, ctypes.c_void_p, size),
        ]

    def start(self, per_frame: int, *, frame_size: int = 8244, ring: int = 65536) -> bool:
        sizes = map(ctypes.c_size_t, (frame_size, ring))
        return bool(self.c.start(self.samples.shape[1], per_frame, self.datagram, *sizes) & 1)

    def step(self, us: int = 0) -> list[Frame]:
        """Time passes, the wrist does what is due; what it sent meanwhile."""
        self.now_us += us
        before = len(self.sent)
        self.c.step()
        if self.datagram:
            return []
        got = self._decoder.feed(self.sent[before:])
        assert not self._decoder.frames_corrupt
        return got

    def tell(self, op: int, value: bytes = b"") -> list[Frame]:
        return self.hear(Frame(FrameType.CONTROL, payload=bytes([op, len(value)]) + value))

    def hear(self, frame: Frame) -> list[Frame]:
        self._inbox.append(frames.pack(frame) if self.datagram else frames.encode(frame))
        return self.step()

    def noise(self, line: bytes) -> None:
        self._inbox.append(line)
        self.step()

    def _hook(self, name: str, function: Any, *types: Any) -> Any:
        pointer = ctypes.CFUNCTYPE(*types)(function)
        ctypes.c_void_p.in_dll(self.c, name).value = ctypes.cast(pointer, ctypes.c_void_p).value
        return pointer

    def _sample(self, row: int, stamp: int) -> int:
        self._began_us = self.now_us if self._began_us is None else self._began_us
        if self._next == len(self.samples):
            return 2
        index = self._next + self._lost + self.missed.get(self._next, 0)
        if (self.now_us - self._began_us) * RATE_HZ < (index + 1) * 1_000_000:
            return 0
        self._lost += (missed := self.missed.get(self._next, 0))
        ctypes.memmove(row, self.samples[self._next].tobytes(), 2 * self.samples.shape[1])
        time_us = round(self._began_us + 1e6 * index / RATE_HZ)
        Stamp.from_address(stamp).time_us, Stamp.from_address(stamp).missed = time_us, missed
        self._next += 1
        return 1

    def _write(self, data: int, n: int) -> int:
        taken = min(n, self.room) if not self.datagram or self.room >= n else 0
        self.sent += ctypes.string_at(data, taken)
        self.room -= taken
        return taken

    def _read(self, data: int, n: int) -> int:
        if not self._inbox:
            return 0
        first, rest = self._inbox[0][:n], self._inbox[0][n:]
        self._inbox[:1] = [rest] if rest and not self.datagram else []
        ctypes.memmove(data, first, len(first))
        return len(first)


@pytest.fixture(scope="session")
def c_library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if shutil.which("cc") is None:
        pytest.skip("no `cc` on this machine: the C core cannot be compiled for it")
    library = tmp_path_factory.mktemp("wrist") / "wrist.so"
    sources = [Path(__file__).with_name("port.c"), *sorted(boards.FIRMWARE.glob("*.c"))]
    command = ["cc", *STRICT, f"-I{boards.FIRMWARE}", "-shared", "-fPIC", *map(str, sources)]
    subprocess.run([*command, "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


@pytest.fixture(scope="session")
def c_wrist(c_library: Any) -> Callable[..., CWrist]:
    """(samples, datagram) -> a wrist that plays samples (T, C) int16 at 2048 Hz; see CWrist."""
    return lambda samples, datagram=False: CWrist(c_library, samples, datagram)

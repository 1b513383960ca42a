"""The device end of a pseudo-terminal that looks like a serial port to every program.

Linux. The host opens the other end by its path, or by a stable symbolic link to it.
"""

import errno
import os
import tty
from collections import deque
from pathlib import Path

from embridge.firmware_bridge.errors import LinkError


class PtyPort:
    """A port that can appear and disappear, with a bounded queue of whole frames to send.

    link: symbolic link that points at the port while it exists
    queue_bytes: frames beyond it are refused, as a wrist with a full transmit buffer does
    """

    def __init__(self, link: Path | None, queue_bytes: int) -> None:
        self.path: Path | None = None  # what the host opens; None while the port is away
        self.frames_written = 0  # DATA frames of which the last byte was handed to the terminal
        self._link = link
        self._queue_bytes = queue_bytes
        self._queued_bytes = 0
        self._queue: deque[tuple[memoryview, bool]] = deque()  # what is left of a frame, is it DATA
        self._master = -1
        self._slave_path = Path()

    def open(self) -> Path:
        """Make the port appear; LinkError when `link` exists and is no symbolic link."""
        if self._link is not None and self._link.exists() and not self._link.is_symlink():
            raise LinkError(f"{self._link} exists and is no link to a port: name another path")
        self._master, slave = os.openpty()
        tty.setraw(slave)  # before any byte passes; the settings live as long as the master
        os.set_blocking(self._master, False)
        self._slave_path = Path(os.ttyname(slave))
        os.close(slave)  # so that a read tells when the host hangs up
        if self._link is not None:
            _point(self._link, self._slave_path)
        self.path = self._link or self._slave_path
        return self.path

    def close(self) -> int:
        """Make the port disappear; return how many queued DATA frames were never written."""
        if self.path is None:
            return 0
        if self._link is not None and _points(self._link, self._slave_path):
            self._link.unlink()
        os.close(self._master)
        self.path = None
        return self.discard()

    def discard(self) -> int:
        """Forget what is queued; return how many DATA frames that were."""
        lost = sum(is_data for _, is_data in self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        return lost

    def queue(self, frame: bytes, *, is_data: bool) -> bool:
        """Take a whole frame to be written, or refuse it (False) when the queue is full."""
        if self._queued_bytes + len(frame) > self._queue_bytes:
            return False
        self._queue.append((memoryview(frame), is_data))
        self._queued_bytes += len(frame)
        return True

    @property
    def idle(self) -> bool:
        """True when nothing waits to be written."""
        return not self._queue

    def write(self) -> None:
        """Hand over as much of the queue as the terminal takes now."""
        while self._queue:
            left, is_data = self._queue.popleft()
            try:
                written = os.write(self._master, left)
            except BlockingIOError:
                written = 0
            self._queued_bytes -= written
            if written < len(left):
                self._queue.appendleft((left[written:], is_data))
                return
            self.frames_written += is_data

    def read(self) -> bytes | None:
        """What the host has sent, b"" for nothing yet, None when no host holds the port."""
        try:
            return os.read(self._master, 4096)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the other end is closed
                raise
            return None


def _point(link: Path, target: Path) -> None:
    """Make `link` point at `target` in one step, whether or not it exists."""
    fresh = link.with_name(f".{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def _points(link: Path, target: Path) -> bool:
    """False when another wrist has taken the link over."""
    return link.is_symlink() and link.readlink() == target

"""The device end of a pseudo-terminal that looks like a serial port to every program.

Linux. The host opens the other end by its path, or by a stable symbolic link to it.
"""

import errno
import os
import tty
from pathlib import Path

from embridge.firmware_bridge.errors import LinkError
from embridge.firmware_bridge.transmit_queue import TransmitQueue


class PtyPort:
    """A port that can appear and disappear.

    link: symbolic link that points at the port while it exists
    """

    def __init__(self, link: Path | None) -> None:
        self.path: Path | None = None  # what the host opens; None while the port is away
        self._link = link
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

    def close(self) -> None:
        """Make the port disappear; does nothing when it is away."""
        if self.path is None:
            return
        if self._link is not None and _points(self._link, self._slave_path):
            self._link.unlink()
        os.close(self._master)
        self.path = None

    def write(self, queue: TransmitQueue) -> None:
        """Hand over as much of the queue as the terminal takes now."""
        while (head := queue.head()) is not None:
            try:
                written = os.write(self._master, head)
            except BlockingIOError:
                return
            queue.sent(written)

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

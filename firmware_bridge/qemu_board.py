"""An emulated board that runs the wrist's real firmware, behind a pseudo-terminal. Linux."""

import re
import secrets
import shutil
import subprocess
import threading
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Final

from embridge.firmware_bridge.boards import Board, build_firmware, find_board
from embridge.firmware_bridge.errors import EmbridgeError, LinkLost

EMULATOR: Final = "qemu-system-arm"
START_S: Final = 30.0  # for the emulator to name its terminal; it takes 0.1 s on an idle machine
STOP_S: Final = 5.0
_TERMINAL: Final = re.compile(r"/dev/pts/\d+")


class QemuBoard:
    """One emulated board, from `start` to `stop`; a context manager does both.

    board: a name out of BOARDS
    blob: recording to play, made by `write_blob`; without it the board plays its built-in table
    elf: firmware to run; without it, the one that `build_firmware` makes
    """

    def __init__(self, board: str, blob: Path | None = None, elf: Path | None = None) -> None:
        self._board = find_board(board)
        self._blob = blob
        self._elf = elf
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._terminal = ""
        self._named = threading.Event()  # the terminal is known, or never will be
        self._said: deque[str] = deque(maxlen=64)  # latest lines of the emulator
        self._failure: OSError | None = None

    def __enter__(self) -> "QemuBoard":
        """Start the board."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the board."""
        self.stop()

    def start(self) -> None:
        """Switch the board on; EmbridgeError when the emulator is missing or gives up."""
        command = self._command()
        self._reader = threading.Thread(
            target=self._run, args=(command,), name=f"qemu {self._board.name}", daemon=True
        )
        self._reader.start()
        if not self._named.wait(START_S) or not self._terminal:
            self.stop()
            raise EmbridgeError(
                f"{EMULATOR} did not start {self._board.name}: {self._last_words()}"
            )

    @property
    def port(self) -> Path:
        """The terminal that is the board's serial line; LinkLost when the board is off."""
        if self._process is None or self._process.poll() is not None:
            raise LinkLost(
                f"the emulated {self._board.name} is off: {self._last_words()}; start it again"
            )
        return Path(self._terminal)

    def wait(self, timeout_s: float) -> bool:
        """Until the board is off by itself, or at most so long; True when it is off."""
        assert self._reader is not None
        self._reader.join(timeout_s)
        return not self._reader.is_alive()

    def stop(self) -> None:
        """Switch the board off; does nothing when it is off."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._reader is not None:
            self._reader.join()

    def _command(self) -> list[str]:
        board = self._board
        emulator, keeper = shutil.which(EMULATOR), shutil.which("setpriv")
        if emulator is None or keeper is None:
            raise EmbridgeError(
                f"no {EMULATOR} or no setpriv on this machine: `apt install qemu-system-arm "
                "util-linux` to run emulated boards"
            )
        elf = self._elf or build_firmware(board.name)
        # No process of ours outlives us, however we end: the kernel sees to it.
        command = [keeper, "--pdeathsig", "KILL", "--", emulator, "-machine", board.machine]
        command += ["-display", "none", "-monitor", "none", "-serial", "pty", "-kernel", str(elf)]
        seed = f"addr={board.seed_address:#x},data={secrets.randbits(32):#x},data-len=4"
        command += ["-action", "watchdog=reset", "-device", f"loader,{seed}"]
        if self._blob is not None:
            command += ["-device", _load(self._blob, board)]
        return command

    def _run(self, command: list[str]) -> None:
        """Start the emulator and hear it out.

        The kernel ends a process with the thread that started it; this one lives as long as that.
        """
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        except OSError as error:
            self._failure = error
            self._named.set()
            return
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._said.append(line.strip())
                if not self._terminal and (found := _TERMINAL.search(line)):
                    self._terminal = found[0]
                    self._named.set()
        self._process.wait()
        self._named.set()

    def _last_words(self) -> str:
        """Why it is off, as far as the emulator says; a crash ends in a long dump of registers."""
        complaints = [line for line in self._said if line.startswith("qemu")]
        return str(self._failure or (complaints[-1] if complaints else "it was switched off"))


def _load(blob: Path, board: Board) -> str:
    """Argument that puts a recording into the board's memory; EmbridgeError when too long."""
    size = blob.stat().st_size
    if size > board.recording_bytes:
        raise EmbridgeError(
            f"{blob.name} has {size} bytes, {board.name} takes {board.recording_bytes}: play a "
            "shorter part"
        )
    escaped = str(blob).replace(",", ",,")
    return f"loader,file={escaped},addr={board.recording_address:#x},force-raw=on"

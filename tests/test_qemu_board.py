"""Emulated boards as processes: what starts, ends and is missing."""

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from embridge.firmware_bridge.boards import COMPILER, build_firmware
from embridge.firmware_bridge.errors import EmbridgeError, LinkLost
from embridge.firmware_bridge.qemu_board import EMULATOR, QemuBoard
from embridge.firmware_bridge.recording_blob import write_blob
from embridge.firmware_bridge.stream_info import StreamInfo

DEADLINE_S: Final = 30.0
missing = [tool for tool in (COMPILER, EMULATOR, "setpriv") if shutil.which(tool) is None]
pytestmark = pytest.mark.skipif(
    bool(missing),
    reason=f"no {', '.join(missing)}: apt install gcc-arm-none-eabi libnewlib-arm-none-eabi "
    "qemu-system-arm",
)


def test_a_board_that_is_off_says_so() -> None:
    board = QemuBoard("mps2-an386")
    with pytest.raises(LinkLost, match="mps2-an386 is off"):
        _ = board.port
    with board:
        assert board.port.exists()
    with pytest.raises(LinkLost, match="mps2-an386 is off"):
        _ = board.port


def test_an_emulator_that_gives_up_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "text.elf").write_text("no firmware")
    for elf, why in ((tmp_path / "no.elf", r"no\.elf"), (tmp_path / "text.elf", "Lockup")):
        with QemuBoard("mps2-an386", elf=elf) as board:
            assert board.wait(DEADLINE_S)
            with pytest.raises(LinkLost, match=f"mps2-an386 is off: .*{why}"):
                _ = board.port


def test_no_board_outlives_a_program_that_was_killed() -> None:
    script = (
        "import time; from embridge.firmware_bridge.qemu_board import QemuBoard\n"
        "board = QemuBoard('mps2-an386'); board.start()\n"
        "print(board._process.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        emulator = os.pidfd_open(int(program.stdout.readline()))
        program.send_signal(signal.SIGKILL)
    ended = select.poll()
    ended.register(emulator, select.POLLIN)
    assert ended.poll(1e3 * DEADLINE_S)
    os.close(emulator)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(EmbridgeError, match="use one of mps2-an386, "):
        QemuBoard("arduino")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbridgeError, match="apt install gcc-arm-none-eabi libnewlib-arm"):
        build_firmware("mps2-an386", tmp_path)
    with pytest.raises(EmbridgeError, match="apt install qemu-system-arm"):
        QemuBoard("mps2-an386").start()


def test_a_recording_that_cannot_be_is_refused(tmp_path: Path) -> None:
    info = StreamInfo(16, 2000.0, 20, "uV", 0.25, 77)
    for shape, kind in (((3, 4), np.int16), ((3, 16), np.int32), ((0, 16), np.int16)):
        with pytest.raises(ValueError, match="expected"):
            write_blob(tmp_path / "blob", np.zeros(shape, kind), info, loop=False)
    with (tmp_path / "large").open("wb") as large:
        large.truncate(2**24)
    with pytest.raises(EmbridgeError, match="play a shorter part"):
        QemuBoard("mps2-an386", tmp_path / "large").start()

"""The emulated boards that run the wrist's C firmware, and how it is built for them.

BOARDS              name -> Board
build_firmware      sources -> ELF, kept in the user's cache
builtin_table       the samples a board plays when no recording was loaded
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge.errors import EmbridgeError

FIRMWARE: Final = Path(__file__).resolve().parent / "firmware"
COMPILER: Final = "arm-none-eabi-gcc"
FLAGS: Final = (
    "-mthumb", "-std=c99", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion",
    "-ffunction-sections", "-fdata-sections", "-nostartfiles", "--specs=nano.specs",
    "--specs=nosys.specs", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments",
)  # fmt: skip

TABLE_RATE_HZ: Final = 2000
TABLE_SAMPLES: Final = 500  # a quarter of a second, played again and again
TABLE_CHANNELS: Final = 16


@dataclass(frozen=True, slots=True)
class Board:
    """One emulated board.

    machine: of qemu-system-arm
    recording_address, recording_bytes: where a recording is loaded, and how large it may be
    seed_address: of the number, u32, from which a board without a recording draws its boot_id
    """

    name: str
    machine: str
    cpu_flags: tuple[str, ...]
    recording_address: int
    recording_bytes: int = 0x00FF_FFFC

    @property
    def seed_address(self) -> int:
        """Right behind the longest recording."""
        return self.recording_address + self.recording_bytes

    @property
    def source_name(self) -> str:
        """Of its header and its linker script."""
        return self.name.replace("-", "_")


_HARD: Final = "-mfloat-abi=hard"
BOARDS: Final = {
    board.name: board
    for board in (
        Board(
            "mps2-an386",
            "mps2-an386",
            ("-mcpu=cortex-m4", "-mfpu=fpv4-sp-d16", _HARD),
            0x2100_0000,
        ),
        Board(
            "mps2-an505",
            "mps2-an505",
            ("-mcpu=cortex-m33", "-mfpu=fpv5-sp-d16", _HARD),
            0x8000_0000,
        ),
        Board("mps3-an547", "mps3-an547", ("-mcpu=cortex-m55", _HARD), 0x6000_0000),
    )
}


def find_board(name: str) -> Board:
    """The board of that name; EmbridgeError when there is none."""
    if name not in BOARDS:
        raise EmbridgeError(f"no emulated board {name!r}: use one of {', '.join(BOARDS)}")
    return BOARDS[name]


def builtin_table() -> NDArray[np.int16]:
    """(T, C) int16: noise of about 300 counts, low-passed as EMG is; the same on every machine."""
    state, level = 1, [0] * TABLE_CHANNELS
    rows = []
    for _ in range(TABLE_SAMPLES):
        for channel in range(TABLE_CHANNELS):
            state = (1_103_515_245 * state + 12_345) % 2**31
            level[channel] = level[channel] * 6 // 10 + (state >> 16) % 1001 - 500
        rows.append(tuple(level))
    return np.array(rows, np.int16)  # T C


def build_firmware(board: str, folder: Path | None = None, extra_flags: Sequence[str] = ()) -> Path:
    """The ELF for a board, built unless it is already there.

    folder: where to keep it, under a name that tells sources, flags and compiler apart; default
    the user's cache. EmbridgeError when the compiler is missing or refuses the sources.
    """
    target = find_board(board)
    compiler = shutil.which(COMPILER)
    if compiler is None:
        raise EmbridgeError(
            f"no {COMPILER} on this machine: `apt install gcc-arm-none-eabi "
            "libnewlib-arm-none-eabi` to build the firmware of the emulated boards"
        )
    flags = (*target.cpu_flags, *FLAGS, *extra_flags)
    elf = (folder or _cache()) / f"{board}-{_digest(compiler, flags)}.elf"
    if not elf.exists():
        elf.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=elf.parent) as scratch:
            _compile(compiler, target, flags, Path(scratch)).replace(elf)
    return elf


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "embridge" / "firmware"


def _digest(compiler: str, flags: Sequence[str]) -> str:
    """Of everything that the ELF depends on."""
    digest = hashlib.sha256(_run(compiler, "--version").encode())
    digest.update("\0".join(flags).encode())
    digest.update(_table_header().encode())
    for source in sorted(FIRMWARE.rglob("*.[chl]*")):
        digest.update(source.relative_to(FIRMWARE).as_posix().encode() + source.read_bytes())
    return digest.hexdigest()[:16]


def _compile(compiler: str, board: Board, flags: Sequence[str], scratch: Path) -> Path:
    (scratch / "builtin_table.h").write_text(_table_header())
    sources = sorted([*FIRMWARE.glob("*.c"), *(FIRMWARE / "boards").glob("*.c")])
    elf = scratch / "firmware.elf"
    _run(
        compiler,
        *flags,
        f'-DBOARD_HEADER="{board.source_name}.h"',
        *(f"-I{folder}" for folder in (FIRMWARE, FIRMWARE / "boards", scratch)),
        *(f"-L{FIRMWARE / 'boards'}", "-T", f"{board.source_name}.ld"),
        *map(str, sources),
        "-o",
        str(elf),
    )
    return elf


def _table_header() -> str:
    rows = ",\n".join("{" + ",".join(map(str, row)) + "}" for row in builtin_table().tolist())
    return (
        f"#define BUILTIN_CHANNELS {TABLE_CHANNELS}\n"
        f"#define BUILTIN_SAMPLES {TABLE_SAMPLES}\n"
        f"#define BUILTIN_RATE_HZ {TABLE_RATE_HZ}.0f\n"
        f"#define BUILTIN_PERIOD_Q20 {(1_000_000 << 20) // TABLE_RATE_HZ}ull\n"
        f"static const int16_t BUILTIN_TABLE[BUILTIN_SAMPLES][BUILTIN_CHANNELS] = {{\n{rows}}};\n"
    )


def _run(*command: str) -> str:
    """Its stdout; EmbridgeError with the first line of stderr when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        why = next(iter(done.stderr.splitlines()), "no message")
        raise EmbridgeError(f"{Path(command[0]).name} could not build the firmware: {why}")
    return done.stdout

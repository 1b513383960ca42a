"""A recording as the emulated boards read it from their memory (firmware/boards/player.c).

Little-endian: 128 bytes of header, then n_samples rows of n_ch int16.

    0 magic 8 bytes    8 version u32    12 n_ch u8    13 bits u8    14 envelope u8    15 loop u8
    16 scale f64    24 period u64, 2^-20 us    32 rate_hz f32    36 n_samples u32    40 boot_id u32
    44 CRC-32 of the rows    48 unit 8 bytes    56 samples_per_frame u8    57 seven zeros
    64 device 16 bytes    80 model_sha256 32 bytes    112 twelve zeros    124 CRC-32 of 0..123
"""

import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge.stream_info import StreamInfo

MAGIC: Final = b"EMBWREC\0"
VERSION: Final = 1
_HEADER: Final = struct.Struct("<8sI4BdQfIII8sB7x16s32s12x")
_CRC: Final = struct.Struct("<I")


def write_blob(path: Path, samples: NDArray[np.int16], info: StreamInfo, loop: bool) -> None:
    """samples: (T, C) int16, device counts -> a file to be loaded into a board's memory.

    The board declares what `info` says, but for firmware and encodings, which are its own.
    ValueError when samples and info disagree, or a frame could hold more than 8192 bytes.
    """
    if samples.dtype != np.int16 or samples.ndim != 2 or samples.shape[1] != info.n_ch:
        raise ValueError(f"expected (T, {info.n_ch}) int16, got {samples.shape} {samples.dtype}")
    if not len(samples):
        raise ValueError("expected samples, got none")
    rows = samples.astype("<i2").tobytes()
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        info.n_ch,
        info.bits,
        info.envelope,
        loop,
        info.scale,
        round(2**20 * 1e6 / info.rate_hz),
        info.rate_hz,
        len(samples),
        info.boot_id,
        zlib.crc32(rows),
        info.unit.encode(),
        info.samples_per_frame,
        info.device.encode(),
        info.model_sha256,
    )
    path.write_bytes(header + _CRC.pack(zlib.crc32(header)) + rows)

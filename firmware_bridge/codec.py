"""Samples <-> payload of a DATA frame, in the three encodings of PROTOCOL.md. Pure, numpy only.

INT16   2 bytes a sample, exact
INT8    1 byte a sample and a scale per channel and frame; lossy
RICE    adaptive Golomb-Rice code of differences (Rice, 1979), exact; about half of INT16 on EMG

Each frame stands alone, so that a lost one costs its own samples only.
"""

from enum import IntEnum, unique
from typing import Final

import numpy as np
from numpy.typing import NDArray

from embridge.firmware_bridge.rice import decode_rice, encode_rice

_INT16: Final = np.iinfo(np.int16)


@unique
class Encoding(IntEnum):
    """How a DATA payload holds its samples."""

    INT16 = 0
    INT8 = 1
    RICE = 2


def encode_samples(samples: NDArray[np.int16], encoding: Encoding) -> bytes:
    """samples: (T, C) int16 -> payload."""
    if encoding is Encoding.INT16:
        return samples.astype("<i2").tobytes()
    if encoding is Encoding.INT8:
        return _encode_int8(samples)
    return encode_rice(samples)


def decode_samples(payload: bytes, encoding: Encoding, n_samp: int, n_ch: int) -> NDArray[np.int16]:
    """Payload -> (T, C) int16; ValueError when it is no such payload."""
    if not (n_samp and n_ch):
        raise ValueError(f"{n_samp} samples of {n_ch} channels")
    if encoding is Encoding.RICE:
        return decode_rice(payload, n_samp, n_ch)
    expected = guaranteed_bytes(encoding, n_samp, n_ch)
    if len(payload) != expected:
        raise ValueError(
            f"{len(payload)} bytes for {n_samp} samples of {n_ch} channels, expected {expected}"
        )
    if encoding is Encoding.INT8:
        return _decode_int8(payload, n_samp, n_ch)
    samples: NDArray[np.int16] = np.frombuffer(payload, "<i2").reshape(n_samp, n_ch)  # T C
    return samples.astype(np.int16, copy=False)


def guaranteed_bytes(encoding: Encoding, n_samp: int, n_ch: int) -> int:
    """Payload bytes of INT16 and INT8; the same for RICE is unknown before, so ValueError."""
    if encoding is Encoding.INT16:
        return 2 * n_samp * n_ch
    if encoding is Encoding.INT8:
        return (2 + n_samp) * n_ch
    raise ValueError("the length of a RICE payload depends on its samples")


def _encode_int8(samples: NDArray[np.int16]) -> bytes:
    wide = samples.astype(np.int32)  # T C
    magnitude = np.abs(wide)
    scale = np.maximum(1, -(-magnitude.max(axis=0) // 127))  # C
    codes = np.sign(wide) * ((2 * magnitude + scale) // (2 * scale))  # halves away from zero
    return bytes(scale.astype("<u2").tobytes() + codes.astype(np.int8).tobytes())


def _decode_int8(payload: bytes, n_samp: int, n_ch: int) -> NDArray[np.int16]:
    scale = np.frombuffer(payload, "<u2", n_ch).astype(np.int32)  # C
    if not scale.all():
        raise ValueError("a scale of 0")
    codes = np.frombuffer(payload, np.int8, offset=2 * n_ch).reshape(n_samp, n_ch)  # T C
    return np.clip(codes * scale, _INT16.min, _INT16.max).astype(np.int16)

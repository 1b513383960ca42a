"""The delta-Rice code of one frame (PROTOCOL.md, encoding 2), without a loop over samples.

Its bit string holds all headers, then all quotients, then all remainders, so that numpy finds the
end of every code at once: the quotients' zeros say where each ends, and how long each remainder is.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

HEADER_BITS: Final = 6  # order 2, k 4
ESCAPE: Final = 15  # this quotient says that the remainder holds the whole value
ESCAPE_BITS: Final = 18  # a second-order residual of int16 needs no more
MAX_ORDER: Final = 2
_K: Final = np.arange(16)
_INT16: Final = np.iinfo(np.int16)


def encode_rice(samples: NDArray[np.int16]) -> bytes:
    """samples: (T, C) int16 -> bit string, padded with zeros to whole bytes."""
    values = _zigzag(samples)  # order T C
    order = values.sum(axis=1).argmin(axis=0)  # C
    u = values[order, :, np.arange(samples.shape[1])]  # C T
    k = _best_k(u)  # C
    quotient = np.minimum(u >> k[:, None], ESCAPE)  # C T
    width = np.where(quotient == ESCAPE, ESCAPE_BITS, k[:, None])
    remainder = np.where(quotient == ESCAPE, u, u & ((1 << k[:, None]) - 1))
    head = _bits(order * 16 + k, np.full(len(k), HEADER_BITS))
    unary = np.ones(int(quotient.sum()) + quotient.size, np.uint8)
    unary[np.cumsum(quotient.ravel() + 1) - 1] = 0
    tail = _bits(remainder.ravel(), width.ravel())
    return np.packbits(np.concatenate([head, unary, tail])).tobytes()


def decode_rice(payload: bytes, n_samp: int, n_ch: int) -> NDArray[np.int16]:
    """Bit string -> (T, C) int16; ValueError when it is none of that size."""
    packed = np.frombuffer(payload, np.uint8)
    bits = np.unpackbits(packed)
    count = n_samp * n_ch
    begin = HEADER_BITS * n_ch
    if len(bits) < begin + count:
        raise ValueError(f"{len(payload)} bytes of Rice code hold no {count} samples")
    order, k = np.divmod(_values(packed, np.arange(0, begin, HEADER_BITS), HEADER_BITS), 16)
    if order.max() > MAX_ORDER:
        raise ValueError(f"Rice code of order {order.max()}, expected 0..{MAX_ORDER}")
    ends = np.flatnonzero(bits[begin:] == 0)[:count]
    if len(ends) < count:
        raise ValueError(f"{len(payload)} bytes of Rice code end within the quotients")
    quotient = np.diff(ends, prepend=-1) - 1
    if quotient.max() > ESCAPE:
        raise ValueError(f"Rice quotient of {quotient.max()}, expected 0..{ESCAPE}")
    k_each = np.repeat(k, n_samp)
    escaped = quotient == ESCAPE
    width = np.where(escaped, ESCAPE_BITS, k_each)
    start = begin + ends[-1] + 1 + np.cumsum(width) - width
    used = int(start[-1] + width[-1])
    if -(-used // 8) != len(payload) or bits[used:].any():
        raise ValueError(f"Rice code of {used} bits in {len(payload)} bytes, padded with zeros")
    remainder = _values(packed, start, width)
    u = np.where(escaped, remainder, (quotient << k_each) + remainder).reshape(n_ch, n_samp)
    return _undo((u >> 1) ^ -(u & 1), order).T


def _zigzag(samples: NDArray[np.int16]) -> NDArray[np.int64]:
    """Residuals of order 0, 1 and 2 as numbers from 0 on: (order, T, C)."""
    x = samples.astype(np.int64)  # T C
    residuals = np.stack([x, x, x])
    residuals[1, 1:] -= x[:-1]
    residuals[2, 1:] = residuals[1, 1:]
    residuals[2, 2:] -= residuals[1, 1:-1]
    return (residuals << 1) ^ (residuals >> 63)


def _best_k(u: NDArray[np.int64]) -> NDArray[np.int64]:
    """u: (C, T) -> (C,), the k that makes the channel shortest."""
    quotient = np.minimum(u[:, :, None] >> _K, ESCAPE)  # C T k
    bits = quotient + np.where(quotient == ESCAPE, ESCAPE_BITS, _K)
    k: NDArray[np.int64] = bits.sum(axis=1).argmin(axis=1)
    return k


def _bits(values: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The low `widths` bits of each value, most significant first, in one row."""
    ends = np.cumsum(widths)
    place = np.repeat(ends, widths) - 1 - np.arange(ends[-1] if len(ends) else 0)
    return ((np.repeat(values, widths) >> place) & 1).astype(np.uint8)


def _values(
    payload: NDArray[np.uint8], starts: NDArray[np.int64], widths: NDArray[np.int64] | int
) -> NDArray[np.int64]:
    """The inverse of `_bits`, at any bit positions; what lies beyond the end reads as 0."""
    padded = np.concatenate([payload, np.zeros(4, np.uint8)]).astype(np.int64)
    words = padded[:-3] << 24 | padded[1:-2] << 16 | padded[2:-1] << 8 | padded[3:]  # 32 bits each
    word = words[np.minimum(starts >> 3, len(payload))]
    values: NDArray[np.int64] = word >> (32 - (starts & 7) - widths) & ((1 << widths) - 1)
    return values


def _undo(residuals: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.int16]:
    """residuals: (C, T) of these orders -> samples; ValueError when one leaves int16."""
    x = np.where((order == MAX_ORDER)[:, None], _integrate(residuals, 1), residuals)
    x = np.where((order >= 1)[:, None], np.cumsum(x, axis=1), x)
    if x.min() < _INT16.min or x.max() > _INT16.max:
        raise ValueError("Rice code of samples outside int16")
    return x.astype(np.int16)


def _integrate(residuals: NDArray[np.int64], first: int) -> NDArray[np.int64]:
    """Running sums from column `first` on: the first residual is a sample, not a difference."""
    out = residuals.copy()
    out[:, first:] = np.cumsum(residuals[:, first:], axis=1)
    return out

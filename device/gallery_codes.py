"""Smaller galleries: rows as 8-, 4- or 1-bit codes, or a few prototypes instead of many rows.

Cosine sees only the direction of a row, so every row has a scale of its own that need not be
stored. What comes out is a `Gallery` again, searched by the same `Voter`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.device.decision import Gallery
from embridge.device.errors import ConfigError

FLOAT_BITS = 32  # a row of float32, not coded
CODE_BITS = (8, 4, 1)
ROUNDS = 25  # of k-means; a class of some dozen rows settles in fewer


def row_codes(vectors: NDArray[np.floating[Any]], bits: int) -> NDArray[np.int8]:
    """(G, D) -> (G, D) int8 codes of 8, 4 or 1 bits; ConfigError for other numbers of bits.

    8 and 4 bits: -127..127 and -7..7, each row scaled to its own largest value; a row of zeros
    stays zeros. 1 bit: -1 and 1, the signs, where zero counts as positive. Computed in float32.
    """
    if bits not in CODE_BITS:
        raise ConfigError(
            f"{bits} bits per value: expected one of {', '.join(map(str, CODE_BITS))}"
        )
    rows = np.asarray(vectors, np.float32)  # G D
    if bits == 1:
        return np.where(rows < 0, -1, 1).astype(np.int8)
    largest = np.abs(rows).max(axis=1, keepdims=True)  # G 1
    largest[largest == 0] = 1
    return np.asarray(np.rint(rows / largest * (2 ** (bits - 1) - 1)), np.int8)


def coded(gallery: Gallery, bits: int) -> Gallery:
    """The same rows as codes of 8, 4 or 1 bits."""
    codes = row_codes(gallery.vectors, bits)
    return Gallery(codes.astype(np.float64), gallery.labels, gallery.names)


def compressed(gallery: Gallery, bits: int = FLOAT_BITS, per_gesture: int = 0) -> Gallery:
    """Prototypes, if `per_gesture` asks for them, then codes, if `bits` is not FLOAT_BITS."""
    fewer = prototypes(gallery, per_gesture) if per_gesture else gallery
    return fewer if bits == FLOAT_BITS else coded(fewer, bits)


def row_bytes(dim: int, bits: int) -> int:
    """Bytes of one packed row of `dim` values, without its label."""
    return (dim * bits + 7) // 8


def prototypes(gallery: Gallery, per_gesture: int = 1) -> Gallery:
    """At most `per_gesture` unit rows for each gesture instead of all its rows.

    One: the mean of the unit rows. More: spherical k-means within the gesture (Dhillon and Modha
    2001), begun at the row nearest to that mean and then, each time, at the row farthest from all
    chosen; no randomness. Search them with k = 1: a gesture has too few rows for a vote.
    """
    if per_gesture < 1:
        raise ConfigError(f"{per_gesture} prototypes per gesture: expected at least 1")
    rows = _unit(np.asarray(gallery.vectors, np.float64))  # G D
    present = np.unique(gallery.labels)
    centres = [_centres(rows[gallery.labels == label], per_gesture) for label in present]
    labels = np.repeat(present, [len(part) for part in centres])
    return Gallery(np.concatenate(centres), labels.astype(np.int64), gallery.names)


def _centres(rows: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """(n, D) unit rows of one gesture -> (at most count, D) unit centres."""
    mean = _unit(rows.mean(axis=0, keepdims=True))
    if count == 1:
        return mean
    chosen = [int(np.argmax(rows @ mean[0]))]
    while len(chosen) < min(count, len(rows)):
        chosen.append(int(np.argmin((rows @ rows[chosen].T).max(axis=1))))
    centres = rows[chosen]  # M D
    for _ in range(ROUNDS):
        nearest = np.argmax(rows @ centres.T, axis=1)
        kept = np.unique(nearest)  # equal rows leave a centre without any
        centres = _unit(np.stack([rows[nearest == m].mean(axis=0) for m in kept]))
    return centres


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))

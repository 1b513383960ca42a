"""Compressed galleries: codes stay in range, keep directions, and prototypes are unit means."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from embridge.device.decision import Gallery, Voter
from embridge.device.errors import ConfigError
from embridge.device.gallery_codes import (
    FLOAT_BITS,
    coded,
    compressed,
    prototypes,
    row_bytes,
    row_codes,
)
from embridge.device.package import read_package

seeds = st.integers(0, 2**32 - 1)
NAMES = ("rest", "fist", "pinch")


def unit_rows(seed: int, rows: int = 30, dim: int = 16) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).normal(size=(rows, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def gallery_of(vectors: NDArray[np.float32]) -> Gallery:
    labels = np.arange(len(vectors), dtype=np.int64) % len(NAMES)
    return Gallery(vectors.astype(np.float64), labels, NAMES)


def cosines(a: NDArray[np.generic], b: NDArray[np.generic]) -> NDArray[np.float64]:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_eight_bits_of_a_package_s_float_gallery_are_the_gallery_it_ships(made: Path) -> None:
    package = read_package(made / "raw.embridge")
    found = coded(package.gallery("float"), 8)
    np.testing.assert_array_equal(found.vectors, package.gallery("tflite-int8").vectors)


@given(seed=seeds, size=st.floats(1e-6, 1e6))
def test_four_bits_never_leave_their_range_and_reach_its_end_in_every_row(
    seed: int, size: float
) -> None:
    codes = row_codes(unit_rows(seed) * np.float32(size), 4)
    assert (np.abs(codes).max(axis=1) == 7).all()


@given(seed=seeds)
def test_one_bit_of_a_flipped_row_is_the_opposite(seed: int) -> None:
    vectors = unit_rows(seed)
    np.testing.assert_array_equal(row_codes(-vectors, 1), -row_codes(vectors, 1))
    assert set(np.unique(row_codes(vectors, 1))) == {-1, 1}


@given(seed=seeds, bits=st.sampled_from((8, 4, 1)), power=st.integers(-20, 20))
def test_only_the_direction_of_a_row_counts(seed: int, bits: int, power: int) -> None:
    vectors = unit_rows(seed)
    np.testing.assert_array_equal(
        row_codes(vectors * np.float32(2.0**power), bits), row_codes(vectors, bits)
    )


def test_fewer_bits_keep_the_direction_less_well() -> None:
    vectors = unit_rows(0, rows=200, dim=64)
    worst = {bits: float(cosines(row_codes(vectors, bits), vectors).min()) for bits in (8, 4, 1)}
    assert worst[8] > 0.9999
    assert worst[8] > worst[4] > 0.97
    assert worst[4] > worst[1] > 0.6


def test_a_row_of_zeros_has_codes_of_zero_or_signs() -> None:
    zeros = np.zeros((1, 4), np.float32)
    assert row_codes(zeros, 8).tolist() == row_codes(zeros, 4).tolist() == [[0, 0, 0, 0]]
    assert row_codes(zeros, 1).tolist() == [[1, 1, 1, 1]]


def test_codes_of_other_bits_are_refused() -> None:
    with pytest.raises(ConfigError, match="2 bits per value: expected one of 8, 4, 1"):
        row_codes(unit_rows(0), 2)


def test_packed_rows_are_whole_bytes() -> None:
    sizes = {bits: row_bytes(64, bits) for bits in (FLOAT_BITS, 8, 4, 1)}
    assert sizes == {32: 256, 8: 64, 4: 32, 1: 8}
    assert (row_bytes(9, 4), row_bytes(9, 1)) == (5, 2)


def test_a_prototype_is_the_unit_mean_of_its_gesture_s_unit_rows() -> None:
    vectors = unit_rows(1) * np.linspace(0.1, 9, 30, dtype=np.float32)[:, None]
    gallery = gallery_of(vectors)
    found = prototypes(gallery)
    assert found.labels.tolist() == [0, 1, 2]
    assert found.names == NAMES
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1)
    for label in range(3):
        rows = vectors[gallery.labels == label].astype(np.float64)
        mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(found.vectors[label], mean / np.linalg.norm(mean), atol=1e-6)


def test_two_prototypes_find_the_two_ways_a_gesture_is_made() -> None:
    ways = np.eye(4)[[0, 0, 0, 1, 1, 2, 2, 2, 2]]
    noise = np.random.default_rng(0).normal(0, 0.01, ways.shape)
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    found = prototypes(Gallery(ways + noise, labels, NAMES), 2)
    assert np.bincount(found.labels).tolist() == [2, 2]
    near = found.vectors[found.labels == 0] @ np.eye(4)[:2].T
    np.testing.assert_allclose(np.sort(near.max(axis=1)), 1, atol=1e-3)
    assert set(near.argmax(axis=1)) == {0, 1}


def test_a_gesture_with_few_or_equal_rows_gets_fewer_prototypes() -> None:
    rows = np.array([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    found = prototypes(Gallery(rows, np.array([0, 0, 0, 1]), NAMES), 3)
    assert found.labels.tolist() == [0, 1]
    assert np.isfinite(found.vectors).all()
    with pytest.raises(ConfigError, match="expected at least 1"):
        prototypes(gallery_of(unit_rows(0)), 0)


@given(seed=seeds)
def test_the_same_voter_searches_a_compressed_gallery(seed: int) -> None:
    gallery = prototypes(gallery_of(unit_rows(seed)))
    for bits in (FLOAT_BITS, 8, 4):
        voter = Voter(compressed(gallery_of(unit_rows(seed)), bits, 1), k=1)
        assert [voter.vote(row).label for row in gallery.vectors] == [0, 1, 2]


def test_compressing_nothing_is_the_gallery_itself() -> None:
    gallery = gallery_of(unit_rows(0))
    assert compressed(gallery) is gallery

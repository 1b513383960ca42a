"""A growing HDF5 table is whole at every moment, also inside a write that a kill cuts short."""

import errno
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge.device.errors import RecordingError
from embridge.device.growing_hdf5 import AHEAD_BYTES, GrowingDataset, _Layout

TABLE = "emg2pose/timeseries"


def row_type(width):
    return np.dtype([("time", "<f8"), ("emg", "<f4", (width,)), ("label", "<i2"), ("n", "<i8")])


def rows_of(first, last, width=16):
    rows = np.zeros(last - first, row_type(width))
    rows["n"] = np.arange(first, last)
    rows["emg"] = rows["n"][:, None] + np.arange(width) / 64
    return rows


def rows_in(path, width=16):
    """How many rows a plain reader finds; they must be the first ones, each whole."""
    with h5py.File(path) as file:
        table = file[TABLE]
        rows = table[:]
        assert table.maxshape[0] >= len(rows)
        assert file["emg2pose"].attrs["user"] == "u1"
        assert file["emg2pose"].attrs["end_sample"] <= len(rows)
    assert rows.tobytes() == rows_of(0, len(rows), width).tobytes()
    return len(rows)


class Watched:
    """Writes for real, and reads the file at every moment at which a kill could fall."""

    def __init__(self, path, cuts, width):
        self.path, self.cuts, self.width = path, cuts, width
        self.flushed = 0
        self.seen = []

    def __call__(self, file, data, at):
        prefixes = [0]
        if len(data) > 8:  # a number is written in one piece, rows are not
            prefixes += [max(1, int(cut * len(data))) for cut in self.cuts]
        for length in prefixes:
            os.pwrite(file, data[:length], at)
            self.look()
        written = os.pwrite(file, data, at)
        self.look()
        return written

    def look(self):
        rows = rows_in(self.path, self.width)
        assert rows >= self.flushed
        self.seen.append(rows)


def grow(path, parts, *, cuts=(), width=16, sync=False):
    watched = Watched(path, cuts, width)
    attributes = {"user": "u1", "end": 0.0, "end_sample": 0, "names": "x" * 500}
    total = parts[0]
    with GrowingDataset.create(
        path, TABLE, attributes, rows_of(0, total, width), sync=sync, pwrite=watched
    ) as growing:
        watched.flushed = total
        watched.look()
        for count in parts[1:]:
            growing.append(rows_of(total, total + count, width))
            total += count
            growing.flush(end=float(total), end_sample=total)
            watched.flushed = total
    assert rows_in(path, width) == total
    return watched.seen


@settings(max_examples=25, deadline=None)
@given(
    parts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    cuts=st.lists(st.floats(0, 1), max_size=4),
)
def test_a_kill_between_any_two_writes_or_inside_one_leaves_a_whole_file(
    tmp_path_factory, parts, cuts
):
    seen = grow(tmp_path_factory.mktemp("grow") / "a.h5", parts, cuts=cuts)
    assert set(seen) <= set(np.cumsum(parts).tolist())  # only rows of whole flushes


def test_every_prefix_of_a_written_tail_leaves_the_flushed_rows(tmp_path):
    size = row_type(2).itemsize
    cuts = [cut / (3 * size) for cut in range(1, 3 * size)]
    seen = grow(tmp_path / "a.h5", [2, 3], cuts=cuts, width=2)
    assert seen.count(2) > 3 * size


@pytest.mark.parametrize("sync", [False, True])
def test_a_file_that_outgrows_what_was_set_aside_is_whole_at_every_write(tmp_path, sync):
    width = 2**18  # a row is 1 MiB
    grow(tmp_path / "a.h5", [1, 6, 12], width=width, sync=sync, cuts=[0.5])


def test_a_closed_file_ends_with_its_last_row(tmp_path):
    path = tmp_path / "a.h5"
    grow(path, [3, 4])
    with h5py.File(path) as file:
        rows = file[TABLE]
        assert path.stat().st_size == rows.id.get_offset() + 7 * rows.dtype.itemsize
        assert file["emg2pose"].attrs["end"] == 7.0
        assert rows.maxshape == (7,)


def test_a_reader_that_opened_the_file_before_a_flush_reads_on(tmp_path):
    path = tmp_path / "a.h5"
    with GrowingDataset.create(path, TABLE, {"user": "u1"}, rows_of(0, 5)) as growing:
        with h5py.File(path) as file:
            growing.append(rows_of(5, 5000))
            growing.flush()
            assert np.array_equal(file[TABLE][:], rows_of(0, 5000))
        assert path.stat().st_size >= 2 * AHEAD_BYTES


def test_a_full_disk_costs_only_the_rows_that_did_not_fit(tmp_path):
    path = tmp_path / "a.h5"
    full = False

    def pwrite(file, data, at):
        if full and len(data) > 8:
            os.pwrite(file, data[:100], at)
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.pwrite(file, data, at)

    attributes = {"user": "u1", "end_sample": 0}
    growing = GrowingDataset.create(path, TABLE, attributes, rows_of(0, 5), pwrite=pwrite)
    growing.append(rows_of(5, 9))
    full = True
    with pytest.raises(OSError, match="No space"):
        growing.append(rows_of(9, 20))
    assert growing.rows == 9
    full = False
    growing.append(rows_of(9, 12))
    growing.close()
    growing.close()
    assert rows_in(path) == 12


def test_short_writes_are_completed(tmp_path):
    path = tmp_path / "a.h5"

    def pwrite(file, data, at):
        return os.pwrite(file, data[:100], at)

    attributes = {"user": "u1", "end_sample": 0}
    with GrowingDataset.create(path, TABLE, attributes, rows_of(0, 5), pwrite=pwrite) as growing:
        growing.append(rows_of(5, 90))
    assert rows_in(path) == 90


def test_an_existing_file_is_never_replaced(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("precious")
    with pytest.raises(RecordingError, match="choose another name"):
        GrowingDataset.create(path, TABLE, {}, rows_of(0, 5))
    assert path.read_text() == "precious"
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_rows_of_another_type_and_no_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        GrowingDataset.create(tmp_path / "a.h5", TABLE, {}, rows_of(0, 0))
    growing = GrowingDataset.create(tmp_path / "a.h5", TABLE, {}, rows_of(0, 5))
    with growing, pytest.raises(ValueError, match="expected rows of"):
        growing.append(rows_of(5, 6, width=3))


def test_another_layout_of_the_library_is_refused_before_anything_is_recorded(tmp_path: Path):
    path = tmp_path / "new.h5"
    with h5py.File(path, "w", libver="latest") as file:
        table = file.create_dataset(TABLE, shape=(0,), dtype=row_type(2))
        group_at = h5py.h5o.get_info(table.parent.id).addr
        table_at = h5py.h5o.get_info(table.id).addr
    with pytest.raises(RecordingError, match="install h5py"):
        _Layout(path.read_bytes(), group_at, table_at)


def test_without_hard_links_a_file_is_made_and_none_replaced(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")  # as FAT does

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "a.h5"
    grow(path, [3, 4])
    with pytest.raises(RecordingError, match="choose another name"):
        GrowingDataset.create(path, TABLE, {}, rows_of(0, 5))
    assert rows_in(path) == 7

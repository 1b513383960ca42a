"""Outlines: what a scan in blocks finds, and what a cache folder keeps of it."""

import dataclasses
import os

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge.device import emg2pose
from embridge.device.emg2pose import read_blocks, write_emg2pose
from embridge.device.errors import RecordingError
from embridge.device.outline import outline_of, read_outline
from embridge.device.recordings import ReadOptions, Recording, read_recording
from embridge.device.runs import Runs, joined, runs_of

ROWS = 300


def recording(seed=0, rows=ROWS, **changes):
    rng = np.random.default_rng(seed)
    gesture = np.sort(rng.integers(-1, 2, rows)).astype(np.int16)
    made = Recording(
        name="r", source="emg2pose", user="u", session="s", rate_hz=100.0,
        emg=rng.standard_normal((rows, 3)).astype(np.float32), emg_unit="uV", is_envelope=False,
        pose=rng.standard_normal((rows, 2)).astype(np.float32), pose_unit="raw glove",
        pose_valid=rng.random(rows) > 0.1, gestures=("rest", "fist"), gesture=gesture,
        trial=(gesture > 0).astype(np.int32), repetition=(gesture > 0).astype(np.int16),
        emg_unit_per_count=0.5, ring=3, sample_index=np.cumsum(rng.integers(1, 3, rows)),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def expanded(runs: Runs, column: str):
    return np.repeat(getattr(runs, column), np.diff(runs.stop, prepend=0))


def same(one: Runs, other: Runs) -> bool:
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in Runs.__slots__)


@given(seed=st.integers(0, 99), rows=st.integers(1, 60))
def test_runs_hold_every_label_of_every_row(seed, rows):
    made = recording(seed, rows)
    runs = runs_of(made)
    assert len(runs) == rows
    for column, labels in (
        ("gesture", made.gesture), ("trial", made.trial), ("repetition", made.repetition),
        ("valid", made.pose_valid),
    ):  # fmt: skip
        assert np.array_equal(expanded(runs, column), labels)
        assert getattr(runs, column).dtype == labels.dtype
    after_gap = runs.start[~runs.follows]
    assert np.array_equal(after_gap, np.flatnonzero(np.diff(made.sample_index, prepend=0) > 1)[
        np.flatnonzero(np.diff(made.sample_index, prepend=0) > 1) > 0])  # fmt: skip


@given(seed=st.integers(0, 20), cuts=st.lists(st.integers(-5, ROWS + 5), max_size=6))
def test_splitting_runs_changes_no_label_and_joining_undoes_it(seed, cuts):
    runs = runs_of(recording(seed))
    split = runs.split(np.array(cuts, np.int64))
    assert {*runs.stop, *(cut for cut in cuts if 0 < cut < ROWS)} == {*split.stop}
    for column in ("gesture", "trial", "repetition", "valid", "stretch"):
        assert np.array_equal(expanded(split, column), expanded(runs, column))
    assert same(joined([split]), runs)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 20), block=st.integers(1, 2 * ROWS))
def test_a_scan_in_any_blocks_finds_the_same_runs(tmp_path_factory, seed, block):
    path = tmp_path_factory.mktemp("scan") / "r.hdf5"
    write_emg2pose(path, recording(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read_blocks, "__defaults__", (block,))
        scanned = read_outline(path, path.parent / "cache")
    held = outline_of(read_recording(path))
    assert same(scanned.runs, held.runs)
    assert scanned.head.gestures == held.head.gestures
    assert np.array_equal(scanned.rows.emg(7, 150), held.rows.emg(7, 150))
    assert np.array_equal(scanned.rows.pose(7, 150), held.rows.pose(7, 150))


def test_what_was_scanned_once_is_taken_from_the_cache(tmp_path, monkeypatch):
    path, cache = tmp_path / "r.hdf5", tmp_path / "cache"
    write_emg2pose(path, recording(1))
    first = read_outline(path, cache)
    with monkeypatch.context() as patch:
        patch.setattr(emg2pose, "checked_table", None)  # whoever scans, stumbles
        again = read_outline(path, cache)
    assert same(first.runs, again.runs)
    for field in dataclasses.fields(Recording):
        one, other = getattr(first.head, field.name), getattr(again.head, field.name)
        if isinstance(one, np.ndarray):
            assert (one.shape, one.dtype) == (other.shape, other.dtype), field.name
        else:
            assert one == other, field.name
    write_emg2pose(path, recording(2))
    os.utime(path, ns=(1, 1))
    assert not same(read_outline(path, cache).runs, first.runs), "a changed file is scanned again"


def test_a_matlab_file_is_converted_once_and_read_in_pieces(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 0, 2], 50).astype(np.uint8)[:, None]
    path, cache = tmp_path / "S1_E1_A1.mat", tmp_path / "cache"
    glove = rng.uniform(10, 200, (200, 22))
    scipy.io.savemat(path, {
        "emg": rng.standard_normal((200, 12)), "glove": glove, "restimulus": labels,
        "rerepetition": (labels > 0).astype(np.uint8), "subject": 1, "exercise": 1,
    })  # fmt: skip
    whole = read_recording(path)
    for _ in range(2):
        outline = read_outline(path, cache)
        assert same(outline.runs, runs_of(whole))
        assert outline.head.ring == whole.ring
        assert np.array_equal(outline.rows.emg(60, 170), whole.emg[60:170])
        assert np.array_equal(outline.rows.pose(60, 170), whole.pose[60:170])
    assert sorted(file.suffix for file in cache.iterdir()) == [".hdf5", ".npz"]
    assert read_outline(path, cache, ReadOptions(glove_sensors=18)).require_pose() == 18
    next(cache.glob("*.hdf5")).unlink()
    assert np.array_equal(read_outline(path, cache).rows.emg(0, 9), whole.emg[:9])


@pytest.mark.parametrize("row", [3, 299])
def test_bad_rows_are_named_by_their_place_in_the_file(tmp_path, monkeypatch, row):
    monkeypatch.setattr(read_blocks, "__defaults__", (100,))
    path = tmp_path / "r.hdf5"
    write_emg2pose(path, recording())
    with h5py.File(path, "r+") as file:
        rows = file["emg2pose/timeseries"][:]
        rows["emg"][row, 1] = np.nan
        file["emg2pose/timeseries"][:] = rows
    with pytest.raises(RecordingError, match=f"column 1, first at row {row}:"):
        read_outline(path, tmp_path / "cache")
    rows["emg"][row, 1] = 0
    rows["time"][row] = rows["time"][row - 1] - 1
    with h5py.File(path, "r+") as file:
        file["emg2pose/timeseries"][:] = rows
    with pytest.raises(RecordingError, match=f"never decreases.* at row {row}:"):
        read_outline(path, tmp_path / "cache")


@pytest.mark.parametrize("row", [100, 200])
def test_time_that_runs_backwards_between_two_blocks_is_refused(tmp_path, monkeypatch, row):
    monkeypatch.setattr(read_blocks, "__defaults__", (100,))
    path = tmp_path / "r.hdf5"
    write_emg2pose(path, recording())
    with h5py.File(path, "r+") as file:
        rows = file["emg2pose/timeseries"][:]
        rows["time"][row:] -= 1e3
        file["emg2pose/timeseries"][:] = rows
    with pytest.raises(RecordingError, match=f"never decreases.* at row {row}:"):
        read_outline(path, tmp_path / "cache")


def test_an_outline_keeps_no_block_alive(tmp_path):
    """A view of a single row would keep all rows of its block in memory."""
    path = tmp_path / "r.hdf5"
    write_emg2pose(path, recording())
    for outline in (read_outline(path, tmp_path / "cache"), outline_of(recording())):
        held = [getattr(outline.head, field.name) for field in dataclasses.fields(Recording)]
        held += [getattr(outline.runs, name) for name in Runs.__slots__]
        arrays = [array for array in held if isinstance(array, np.ndarray)]
        assert len(arrays) > 10
        for array in arrays:
            base = array if array.base is None else array.base
            assert base.nbytes <= max(64, array.nbytes)


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "r.hdf5"
    write_emg2pose(path, recording())
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RecordingError, match=r"choose another folder with data\.cache"):
        read_outline(path, tmp_path / "cache")


def test_a_damaged_cache_entry_is_named(tmp_path):
    path, cache = tmp_path / "r.hdf5", tmp_path / "cache"
    write_emg2pose(path, recording())
    read_outline(path, cache)
    next(cache.glob("*.npz")).write_bytes(b"torn")
    with pytest.raises(RecordingError, match="damaged; delete it"):
        read_outline(path, cache)

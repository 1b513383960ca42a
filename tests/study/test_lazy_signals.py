"""A window read alone holds what the whole recording, filtered in one go, holds there."""

import dataclasses
import os
import pickle

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embridge.device import row_files
from embridge.device.emg2pose import write_emg2pose
from embridge.device.frontend import SETTLED
from embridge.device.outline import read_outline
from embridge.device.row_files import FileRows
from embridge.training import chunks, signals
from embridge.training.loader import batches
from embridge.training.study import apply_plan, make_study

SHARED = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def files(handmade, tmp_path_factory):
    """The recordings as files: angles in radians, so that a file holds them exactly."""
    folder = tmp_path_factory.mktemp("files")
    for seed, user in enumerate(handmade.USERS):
        recording = handmade.session(user, seed, repetitions=6)
        recording = dataclasses.replace(recording, pose_unit="rad", name=user)
        write_emg2pose(folder / f"{user}.hdf5", recording)
    return folder


@pytest.fixture(scope="module")
def outlines(handmade, files, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return [read_outline(files / f"{user}.hdf5", cache) for user in handmade.USERS]


@pytest.fixture(scope="module")
def lazy(handmade, outlines):
    """No compression: SETTLED bounds what the filters give."""
    return make_study(handmade.configured("front_end.compression=none"), outlines, "files")


def whole_file(handmade, study, seed):
    """(rows, filtered) of one recording, filtered in one go as its split demands."""
    signal = study.signals[seed]
    recording = handmade.session(handmade.USERS[seed], seed, repetitions=6)
    rows = np.ones(len(recording.emg), bool)
    if signal.split != "test":
        rows = (recording.gesture >= 0) & ~handmade.hidden(recording)
    return recording.emg, rows, study.plan.front_end.filtered(recording.emg[rows])


@SHARED
@given(seed=st.integers(0, 5), chunk=st.integers(16, 900), cut=st.integers(0, 10**9))
def test_a_row_read_alone_is_that_of_the_whole_file(handmade, lazy, seed, chunk, cut):
    """Whatever chunks it is read in, and whatever was cut out before it."""
    emg, rows, filtered = whole_file(handmade, lazy, seed)
    signal = dataclasses.replace(lazy.signals[seed], key=f"{seed} {chunk}")
    expected = np.full((len(emg), 3), np.nan, np.float32)
    expected[rows] = filtered
    limit = SETTLED * np.abs(emg).max() + 1e-5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "CHUNK_ROWS", chunk)
        begin, end = signal.allowed.begin, signal.allowed.end
        span = cut % len(begin)
        start = int(begin[span] + cut % (end[span] - begin[span]))
        stop = int(min(end[span], start + handmade.WINDOW))
        found = signal.emg(start, stop)
    assert np.abs(found - expected[start:stop]).max() <= limit
    alone = signal.emg(start, stop, alone=True)
    assert np.abs(alone - expected[start:stop]).max() <= limit
    assert signal.settle > 100, "these filters have a memory to forget"


def test_every_window_of_a_study_on_files_is_that_of_one_in_memory(handmade, lazy):
    held = [handmade.session(user, seed, 6) for seed, user in enumerate(handmade.USERS)]
    held = [dataclasses.replace(recording, pose_unit="rad") for recording in held]
    memory = apply_plan(lazy.plan, held)
    for cut in ("training_windows", "validation_windows", "test_windows"):
        one, other = getattr(lazy, cut)(), getattr(memory, cut)()
        for column in ("start", "label", "user", "trial", "signal"):
            assert np.array_equal(getattr(one, column), getattr(other, column))
        index = np.arange(0, len(one), 7)
        assert np.array_equal(one.emg(index), other.emg(index))
        if cut != "test_windows":
            assert np.array_equal(one.pose(index), other.pose(index))
    assert lazy.profiles == memory.profiles


@SHARED
@given(order=st.permutations(range(40)), limit=st.sampled_from([0, 3000, 10**9]))
def test_windows_do_not_depend_on_what_was_read_before(lazy, order, limit):
    windows = lazy.training_windows()
    index = np.arange(0, len(windows), len(windows) // 40)[:40]
    expected = windows.emg(index)
    small = [dataclasses.replace(signal, cache_bytes=limit) for signal in windows.signals]
    again = dataclasses.replace(windows, signals=small)
    assert np.array_equal(again.emg(index[list(order)]), expected[list(order)])


def test_the_cache_holds_no_more_than_its_limit():
    cache, limit = chunks.ChunkCache(), 1000
    made = []
    for number in [0, 1, 2, 3, 0, 1, 4, 0]:
        block = np.full(60, number, np.float32)  # 240 bytes
        found = cache.get(("a", "emg", number), limit, lambda b=block: made.append(b[0]) or b)
        assert found[0] == number
        assert cache.held_bytes <= limit
    assert made == [0, 1, 2, 3, 4], "what was asked for last is still there"


def test_windows_travel_to_another_process_without_samples_or_handles(lazy):
    windows = lazy.training_windows()
    index = np.array([0, 5, 9])
    expected = windows.emg(index), windows.pose(index)
    data = pickle.dumps(lazy.material().train)
    assert len(data) < 200_000
    assert lazy.signals[0].outline.rows.emg(0, 1000).nbytes * 6 > 70_000
    again = pickle.loads(data).windows
    assert np.array_equal(again.emg(index), expected[0])
    assert np.array_equal(again.pose(index), expected[1])


@pytest.mark.parametrize("workers", [1, 2])
def test_forked_workers_read_what_this_process_reads_at_the_same_time(lazy, workers):
    """From files that were open, and partly read, when they were forked."""
    train = lazy.material().train

    def draw(step):
        index = np.random.default_rng(step).integers(len(train), size=8)
        return train.inputs(index, index % 2 == 0), train.pose(index)

    chunks.chunk_cache.get(("nobody", "emg", 0), 0, lambda: np.zeros(0, np.float32))  # forget all
    draw(99)
    theirs = []
    for step, batch in enumerate(batches(draw, range(6), workers=workers, pin=False)):
        theirs.append((batch, draw(step)))
    for batch, ours in theirs:
        assert all(np.array_equal(a, b) for a, b in zip(batch, ours, strict=True))


def test_a_forked_process_opens_files_of_its_own(files, handmade):
    pool, path = row_files.OpenFiles(), files / f"{handmade.USERS[0]}.hdf5"
    ours = pool.table(path)
    child = os.fork()
    if not child:  # no assert here: pytest would go on in two processes
        os._exit(int(pool.table(path) is ours or not ours))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.table(path) is ours


def test_the_cache_is_as_large_as_configured(handmade, outlines):
    study = make_study(handmade.configured("data.cache_mb=3"), outlines, "files")
    assert {signal.cache_bytes for signal in study.signals} == {3 << 20}
    assert {s.cache_bytes for s in study.training_windows().signals} == {3 << 20}


def test_no_more_files_are_open_than_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "OPEN_FILES", 3)
    pool = row_files.OpenFiles()
    dtype = np.dtype([("emg", "<f4", (1,))])
    paths = [tmp_path / f"{number}.h5" for number in range(5)]
    for number, path in enumerate(paths):
        with h5py.File(path, "w") as file:
            file["emg2pose/timeseries"] = np.full(4, number, dtype)
    tables = [pool.table(path) for path in paths]
    assert [bool(table) for table in tables] == [False, False, True, True, True]
    assert pool.table(paths[0])[0]["emg"] == 0, "opened again"


def test_a_file_that_vanished_is_named(tmp_path):
    with pytest.raises(Exception, match=r"gone\.hdf5: cannot be read"):
        FileRows(tmp_path / "gone.hdf5").emg(0, 1)

"""What was recorded comes back to the bit: counts, frames, numbers, clocks and gaps."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge.device.emg2pose import read_emg2pose, write_emg2pose
from embridge.device.errors import RecordingError
from embridge.device.recorder import record
from embridge.device.replay import ReplaySource
from embridge.device.tape import PIECE_ROWS
from embridge.firmware_bridge import (
    Block,
    EmbridgeError,
    Encoding,
    EndOfStream,
    Gap,
    LinkStats,
    Status,
    StreamInfo,
    to_counts,
)


class ListSource:
    """A `Source` that yields what it is given."""

    how = ""

    def __init__(self, items, **info):
        known = {"n_ch": 4, "rate_hz": 2000.0, "samples_per_frame": 20, "unit": "uV", "scale": 0.37}
        self.info = StreamInfo(**known | {"boot_id": 4_000_000_000} | info)
        self.stats = LinkStats()
        self.items = items

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def stop(self):
        pass

    def blocks(self):
        yield from self.items


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self):
        self.now_s = 50.0
        self.sleeps = []

    def __call__(self):
        return self.now_s

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now_s += seconds


def stream(sizes, gaps, *, first=0, seq=0, device_us=None, channels=4):
    """Blocks of these sizes, each after a gap of so many frames of 20 samples (0: none)."""
    items = []
    for size, missing in zip(sizes, gaps, strict=True):
        if missing:
            items.append(Gap(first, 20 * missing))
            first, seq = first + 20 * missing, seq + missing
        counts = np.random.default_rng(first).integers(-32768, 32768, (size, channels), np.int16)
        stamp = None if device_us is None else device_us + 500 * first + first % 7
        arrived_s = 10 + (first + size) / 2000
        items.append(Block(first, counts, arrived_s, seq, stamp))
        first, seq = first + size, seq + 1
    return items


def played(path, **options):
    with ReplaySource(path, **{"speed": 0} | options) as source:
        return list(source.blocks()), source


def assert_same(got, want):
    assert isinstance(got[-1], EndOfStream)
    assert len(got) - 1 == len(want)
    for one, other in zip(got[:-1], want, strict=True):
        if isinstance(other, Gap):
            assert one == other
            continue
        assert one.samples.dtype == np.int16
        assert one.samples.tobytes() == other.samples.tobytes()
        assert one.samples.shape == other.samples.shape
        numbers = (one.first_sample, one.seq, one.device_us)
        assert numbers == (other.first_sample, other.seq, other.device_us)


@settings(max_examples=30, deadline=None)
@given(
    frames=st.lists(
        st.tuples(st.integers(1, 20), st.sampled_from([0, 0, 0, 1, 3, 70_000])),
        min_size=1,
        max_size=30,
    ),
    first=st.sampled_from([0, 17, 2**32 + 5]),
    device_us=st.sampled_from([None, 0, 2**32 - 3000, 2**45 + 1]),
    scale=st.sampled_from([0.5, 1 / 3, 6.1e-8]),
    compress=st.booleans(),
)
def test_recorded_and_replayed_streams_are_the_same(
    tmp_path_factory, frames, first, device_us, scale, compress
):
    sizes, gaps = zip(*frames, strict=True)
    items = stream(sizes, gaps, first=first, seq=70_000, device_us=device_us)
    path = tmp_path_factory.mktemp("replay") / "a.h5"
    record(ListSource(items, scale=scale), path, compress=compress)
    got, source = played(path)
    assert_same(got, items)
    assert source.info == ListSource([], scale=scale).info
    lost = [item for item in items if isinstance(item, Gap)]
    stats = source.stats
    assert stats.frames_lost == sum(gap.samples for gap in lost) // 20
    assert stats.samples_lost == sum(gap.samples for gap in lost)
    assert (stats.gaps, stats.frames_received) == (len(lost), len(items) - len(lost))
    assert got[-1].status == Status(stats.frames_received + stats.frames_lost, 0)


def test_a_recording_longer_than_what_is_read_at_once_has_no_seams(tmp_path):
    count = 2 * PIECE_ROWS // 17 + 5
    items = stream([17] * count, [0] * count, device_us=0)
    record(ListSource(items), tmp_path / "a.h5")
    got, _ = played(tmp_path / "a.h5")
    assert_same(got, items)


def test_a_gap_at_the_end_comes_back(tmp_path):
    items = [*stream([20, 20], [0, 0]), Gap(40, 30)]
    record(ListSource(items), tmp_path / "a.h5")
    got, source = played(tmp_path / "a.h5")
    assert_same(got, items)
    assert source.stats.frames_lost == 2


def test_the_declaration_comes_back(tmp_path):
    declared = {
        "bits": 12, "firmware": "1.2.3", "device": "wrist-é", "model_sha256": bytes(range(32)),
        "encoding": Encoding.RICE, "unit": "V", "envelope": True,
    }  # fmt: skip
    source = ListSource(stream([20], [0]), **declared)
    record(source, tmp_path / "a.h5")
    _, replayed = played(tmp_path / "a.h5")
    assert replayed.info == source.info


@pytest.mark.parametrize("speed", [1.0, 4.0])
def test_frames_come_when_their_last_sample_was_taken_and_gaps_are_pauses(tmp_path, speed):
    items = stream([20, 10, 20, 20], [0, 0, 100, 0])
    record(ListSource(items), tmp_path / "a.h5")
    clock = Clock()
    got, _ = played(tmp_path / "a.h5", speed=speed, clock=clock, sleep=clock.sleep)
    arrived_s = [item.arrived_s - 50 for item in got if isinstance(item, Block)]
    assert arrived_s == pytest.approx(np.array([0.01, 0.015, 1.025, 1.035]) / speed, abs=1e-5)


def test_a_stopped_replay_ends_without_end_of_stream(tmp_path):
    items = stream([20] * 3, [0, 0, 1_000_000])
    record(ListSource(items), tmp_path / "a.h5")
    with ReplaySource(tmp_path / "a.h5", speed=1e3) as source:
        got = []
        for item in source.blocks():
            got.append(item)
            if len(got) == 2:
                source.stop()  # in front of a pause of 10 s
    assert len(got) == 2


def test_a_file_that_is_still_growing_can_be_played(tmp_path):
    path, heard = tmp_path / "a.h5", []

    class Watched(ListSource):
        def blocks(self):
            for number, item in enumerate(self.items):
                if number == 10:
                    heard.extend(played(path)[0])
                yield item

    items = stream([20] * 20, [0] * 20)
    record(Watched(items), path, flush_s=0.0)
    assert_same(heard, items[:10])


def emg2pose_file(path, counts, **attributes):
    rows = np.zeros(
        len(counts), [("time", "<f8"), ("joint_angles", "<f8", (20,)), ("emg", "<f4", (16,))]
    )
    rows["time"] = 1.67e9 + np.arange(len(counts)) / 2000
    rows["emg"] = counts * np.float32(0.01)
    with h5py.File(path, "w") as file:
        file["emg2pose/timeseries"] = rows
        known = {"session": "s", "stage": "Shaka", "user": "u7", "side": "left"}
        file["emg2pose"].attrs.update(
            known | {"num_channels": 16, "sample_rate": 2000.0} | attributes
        )


def test_files_of_the_data_set_play_as_a_wrist_would_send_them(tmp_path):
    path = tmp_path / "a.hdf5"
    counts = np.random.default_rng(0).integers(-3000, 3000, (PIECE_ROWS + 50, 16))
    emg2pose_file(path, counts)
    got, source = played(path)
    recording = read_emg2pose(path)
    want, scale = to_counts(recording.emg, None)
    samples = np.concatenate([item.samples for item in got[:-1]])
    assert np.array_equal(samples, want)
    assert source.info.scale == scale
    assert source.info.device == "u7"
    assert [item.seq for item in got[:-1]] == list(range(len(got) - 1))
    assert {len(item.samples) for item in got[:-2]} == {20}
    assert source.stats.samples_lost == 0


def test_a_recording_written_again_with_its_gaps_replays_them(tmp_path):
    items = stream([20] * 6, [0, 0, 3, 0, 0, 1])
    record(ListSource(items), tmp_path / "a.h5")
    write_emg2pose(tmp_path / "b.h5", read_emg2pose(tmp_path / "a.h5"))
    got, source = played(tmp_path / "b.h5")
    gaps = [item for item in items if isinstance(item, Gap)]
    assert [item for item in got if isinstance(item, Gap)] == gaps
    assert source.stats.frames_lost == 4


def test_ninapro_files_play(tmp_path):
    emg = np.random.default_rng(0).normal(0, 1e-5, (5000, 12))
    labels = np.zeros((5000, 1), np.int16)
    path = tmp_path / "S1_E1_A1.mat"
    scipy.io.savemat(
        path, {"emg": emg, "restimulus": labels, "rerepetition": labels, "subject": [[1]],
               "exercise": [[1]]},
    )  # fmt: skip
    got, source = played(path)
    samples = np.concatenate([item.samples for item in got[:-1]])
    assert np.abs(samples * source.info.scale - emg).max() <= source.info.scale
    assert (source.info.n_ch, source.info.rate_hz, source.info.unit) == (12, 2000.0, "V")


def test_real_recordings_play(shared_data: Path):
    path = shared_data / "emg2pose_fixture" / "test_data.hdf5"
    got, source = played(path)
    recording = read_emg2pose(path)
    samples = np.concatenate([item.samples for item in got[:-1]])
    want, _ = to_counts(recording.emg, recording.emg_unit_per_count)
    assert np.array_equal(samples, want)
    assert source.stats.samples_received == len(recording.emg)


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"no recording"])
def test_a_file_that_is_no_recording_is_refused(tmp_path, content):
    path = tmp_path / "a.h5"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match="cannot be read"), ReplaySource(path):
        pass


def test_nonsense_in_the_attributes_and_emg_that_is_no_number_are_refused(tmp_path):
    counts = np.ones((50, 16))
    emg2pose_file(tmp_path / "a.h5", counts, bits=99)
    with pytest.raises(RecordingError, match="bits is 99"):
        played(tmp_path / "a.h5")
    counts[7, 3] = np.nan
    emg2pose_file(tmp_path / "b.h5", counts)
    with pytest.raises(EmbridgeError, match="NaN"):
        played(tmp_path / "b.h5")

"""Recording a source with labels: layout, labels, gaps, restarts, kills."""

import json
import os
import pty
import resource
import select
import subprocess
import sys
import termios
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest

from embridge.device.emg2pose import read_emg2pose
from embridge.device.errors import ConfigError, RecordingError
from embridge.device.prompts import KeyLabeller, ScriptLabeller, keyboard, read_script, timeline
from embridge.device.recorder import record
from embridge.device.stream_file import Session, compress_recording
from embridge.firmware_bridge import (
    Block,
    EndOfStream,
    Gap,
    LinkStats,
    Restarted,
    Status,
    StreamInfo,
)

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "fist, 1, 2, 0.5   # gesture, seconds, repetitions, rest\n\npoint, 0.5\n"


class ListSource:
    """A `Source` that yields what it is given."""

    how = ""

    def __init__(self, items, **info):
        known = {"n_ch": 4, "rate_hz": 1000.0, "samples_per_frame": 10, "unit": "uV", "scale": 0.5}
        self.info = StreamInfo(**known | {"boot_id": 77} | info)
        self.stats = LinkStats()
        self.items, self.stopped = items, False

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def stop(self):
        self.stopped = True

    def blocks(self):
        for item in self.items:
            if self.stopped:
                return
            yield item


def block(number, *, samples=10, first=None, device_us=None, channels=4):
    first = 10 * number if first is None else first
    counts = np.random.default_rng(first).integers(-32768, 32768, (samples, channels), np.int16)
    return Block(
        first_sample=first, samples=counts, arrived_s=100.0 + (first + samples) / 1000, seq=number,
        device_us=device_us,
    )  # fmt: skip


def blocks(first, last):
    return [block(number) for number in range(first, last)]


def recorded(path, items, **options):
    options = {"clock": lambda: 100.0, "wall_clock": lambda: 1.7e9} | options
    return record(ListSource(items), path, **options)


def rows_of(path):
    with h5py.File(path) as file:
        return file["emg2pose/timeseries"][:], dict(file["emg2pose"].attrs)


@pytest.mark.parametrize("compress", [False, True])
def test_a_recording_is_laid_out_as_emg2pose_has_it(tmp_path, compress):
    path = tmp_path / "a.h5"
    items = [block(number, device_us=10_000 * number + 7) for number in range(50)]
    session = Session(user="u3", session="morning", side="right")
    recorded(path, [*items, EndOfStream(Status(50, 0))], session=session, compress=compress)
    rows, attributes = rows_of(path)
    assert rows.dtype.names == (
        "time", "joint_angles", "emg", "gesture", "trial", "repetition", "sample_index", "seq",
        "device_time", "arrived",
    )  # fmt: skip
    kinds = [rows.dtype[name].base.str for name in ("time", "joint_angles", "emg")]
    assert kinds == ["<f8", "<f8", "<f4"]
    assert rows["joint_angles"].shape == (500, 20)
    assert not rows["joint_angles"].any()
    assert np.array_equal(rows["emg"], 0.5 * np.concatenate([item.samples for item in items]))
    assert np.array_equal(rows["sample_index"], np.arange(500))
    assert np.array_equal(rows["seq"], np.arange(500) // 10)
    assert rows["time"] == pytest.approx(1.7e9 + np.arange(500) / 1000, abs=1e-6)
    assert rows["device_time"] == pytest.approx(7e-6 + np.arange(500) / 1000, abs=1e-9)
    assert rows["arrived"] == pytest.approx(1.7e9 + (np.arange(500) // 10 + 1) / 100, abs=1e-6)
    wanted = {
        "filename": "a", "session": "morning", "stage": "unconstrained", "user": "u3",
        "side": "right", "num_channels": 4, "sample_rate": 1000.0, "emg_unit": "uV",
        "emg_unit_per_count": 0.5, "has_pose": False, "boot_id": 77, "first_sample": 0,
        "end_sample": 500, "encoding": "int16", "samples_per_frame": 10,
    }  # fmt: skip
    assert {key: attributes[key] for key in wanted} == wanted
    assert attributes["start"] == pytest.approx(1.7e9, abs=1e-6)
    assert attributes["end"] == pytest.approx(1.7e9 + 0.5, abs=1e-6)


def test_read_back_it_has_no_pose_and_knows_its_gaps(tmp_path):
    path = tmp_path / "a.h5"
    items = [*blocks(0, 5), Gap(50, 20), *blocks(7, 9)]
    summary = recorded(path, items)
    recording = read_emg2pose(path)
    assert recording.pose is None
    assert not recording.pose_valid.any()
    index = recording.sample_index
    assert np.flatnonzero(np.diff(index) != 1).tolist() == [49]
    assert index[50] - index[49] == 21
    assert (recording.gesture == -1).all()
    assert (summary.gaps, summary.samples_lost, summary.samples) == (1, 20, 70)


def test_gaps_at_both_ends_are_kept(tmp_path):
    path = tmp_path / "a.h5"
    items = [Gap(100, 30), Gap(130, 20), *blocks(15, 17), Gap(170, 5)]
    recorded(path, items)
    rows, attributes = rows_of(path)
    assert (attributes["first_sample"], attributes["end_sample"]) == (100, 175)
    assert attributes["end"] - attributes["start"] == pytest.approx(0.075, abs=1e-6)
    assert rows["time"][0] - attributes["start"] == pytest.approx(0.05, abs=1e-6)


def test_time_never_decreases_and_an_unknown_device_clock_is_nan(tmp_path):
    recorded(tmp_path / "a.h5", [*blocks(0, 30), Gap(300, 10), *blocks(31, 40)])
    rows, _ = rows_of(tmp_path / "a.h5")
    assert (np.diff(rows["time"]) > 0).all()
    assert np.isnan(rows["device_time"]).all()


def test_drift_and_rate_are_measured_against_the_hosts_clock(tmp_path):
    items = [block(number, device_us=int(number * 10_001)) for number in range(1000)]
    summary = recorded(tmp_path / "a.h5", items)
    assert summary.drift_ppm == pytest.approx(100, abs=1)
    assert summary.measured_rate_hz == pytest.approx(1000, rel=1e-6)


def test_a_script_labels_the_samples_that_arrive_after_each_prompt(tmp_path):
    path, script = tmp_path / "a.h5", tmp_path / "script.txt"
    script.write_text(SCRIPT)
    said = []
    labeller = ScriptLabeller(read_script(script), said.append)
    source = ListSource(blocks(0, 1000))
    texts = []
    summary = record(
        source, path, labeller=labeller, clock=lambda: 100.0, wall_clock=lambda: 1.7e9,
        progress=lambda done, total, text: texts.append((done, total, text)),
    )  # fmt: skip
    rows, attributes = rows_of(path)
    assert json.loads(attributes["gestures"]) == ["rest", "fist", "point"]
    edges = np.flatnonzero(np.diff(rows["trial"])) + 1
    # rest 0.5, fist 1, rest 0.5, fist 1, rest 2, point 0.5; 10 samples a frame, 1 ms a sample
    assert edges.tolist() == [500, 1500, 2000, 3000, 5000]
    assert rows["gesture"][edges].tolist() == [1, 0, 1, 0, 2]
    assert rows["repetition"][edges].tolist() == [1, 0, 2, 0, 1]
    assert rows["trial"][edges].tolist() == [1, 0, 2, 0, 3]
    assert len(rows) == 5500
    assert source.stopped
    assert summary.gesture_seconds == {"rest": 3.0, "fist": 2.0, "point": 0.5}
    assert said == [
        "REST for 0.5 s, then fist", "FIST (1) for 1.0 s, then rest", "REST for 0.5 s, then fist",
        "FIST (2) for 1.0 s, then rest", "REST for 2.0 s, then point",
        "POINT (1) for 0.5 s, then the end",
    ]  # fmt: skip
    assert texts[60] == (0, 6, "record FIST (1) for 0.9 s, then rest")


def test_toml_and_lines_say_the_same(tmp_path):
    (tmp_path / "a.toml").write_text(
        '[[step]]\ngesture = "fist"\nseconds = 1\nrepetitions = 2\nrest = 0.5\n'
        '[[step]]\ngesture = "point"\nseconds = 0.5\n'
    )
    (tmp_path / "a.txt").write_text(SCRIPT)
    steps = read_script(tmp_path / "a.txt")
    assert read_script(tmp_path / "a.toml") == steps
    assert [prompt.begin_s for prompt in timeline(steps)] == [0, 0.5, 1.5, 2, 3, 5]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "fist, 0", "seconds"),
        ("a.txt", "fist", "seconds"),
        ("a.txt", "fist, 1, 2, 3, 4", "expected gesture, seconds, repetitions, rest"),
        ("a.txt", "# nothing", r"\[\[step\]\]"),
        ("a.toml", "[[step]]\ngesture = 'x'\nseconds = 1\nhold = 2", "hold"),
        ("a.toml", "fist, 1", "not a script"),
        ("a.toml", "step = 3", r"\[\[step\]\]"),
    ],
)
def test_a_bad_script_is_refused_in_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_script(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_keys_begin_and_end_gestures(tmp_path):
    typed = iter(["", "", "1", "", "x9", "1", "2", "1", " ", "0", "2"])
    said = []
    labeller = KeyLabeller(["fist", "point"], lambda: next(typed), said.append)
    recorded(tmp_path / "a.h5", blocks(0, 11), labeller=labeller)
    rows, attributes = rows_of(tmp_path / "a.h5")
    assert rows["gesture"][::10].tolist() == [0, 0, 1, 1, 1, 0, 2, 1, 0, 0, 2]
    assert rows["trial"][::10].tolist() == [0, 0, 1, 1, 1, 0, 2, 3, 0, 0, 4]
    assert rows["repetition"][::10].tolist() == [0, 0, 1, 1, 1, 0, 1, 2, 0, 0, 2]
    assert json.loads(attributes["gestures"]) == ["rest", "fist", "point"]
    assert said[:3] == ["fist (1)", "rest", "point (1)"]


@pytest.mark.parametrize("names", [[], ["a", "a"], ["rest"], [str(n) for n in range(10)]])
def test_lists_that_keys_cannot_tell_apart_are_refused(names):
    with pytest.raises(ConfigError, match="1 to 9 different"):
        KeyLabeller(names, str)


def test_the_keyboard_is_read_without_enter_and_restored_after_an_error():
    master, slave = pty.openpty()

    def type_and_fail():
        with keyboard(slave) as keys:
            assert keys.pressed() == ""
            assert not termios.tcgetattr(slave)[3] & termios.ICANON
            os.write(master, b"12")
            assert select.select([slave], [], [], 10)[0]
            assert keys.pressed() == "12"
            raise RuntimeError("oops")

    try:
        before = termios.tcgetattr(slave)
        with pytest.raises(RuntimeError, match="oops"):
            type_and_fail()
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)


def test_keys_without_a_terminal_are_refused(tmp_path):
    with (
        (tmp_path / "file").open("w") as file,
        pytest.raises(ConfigError, match="script of prompts"),
        keyboard(file.fileno()),
    ):
        pass


def test_a_wrist_that_boots_begins_a_file_of_its_own(tmp_path):
    (tmp_path / "a-2.h5").write_text("older")
    again = [*blocks(0, 7)]
    summary = recorded(tmp_path / "a.h5", [*blocks(0, 5), Restarted(boot_id=78), *again])
    assert [path.name for path in summary.paths] == ["a.h5", "a-3.h5"]
    assert (tmp_path / "a-2.h5").read_text() == "older"
    first, second = (rows_of(path) for path in summary.paths)
    assert (first[1]["boot_id"], second[1]["boot_id"]) == (77, 78)
    assert np.array_equal(second[0]["sample_index"], np.arange(70))
    assert len(first[0]) == 50
    assert summary.samples == 120


def test_an_existing_file_is_refused_before_a_sample_is_taken(tmp_path):
    (tmp_path / "a.h5").write_text("precious")
    with pytest.raises(RecordingError, match="choose another name"):
        recorded(tmp_path / "a.h5", blocks(0, 3))
    assert (tmp_path / "a.h5").read_text() == "precious"


def test_a_stream_without_samples_leaves_no_file(tmp_path):
    with pytest.raises(RecordingError, match="ended before the first"):
        recorded(tmp_path / "a.h5", [Gap(0, 10), EndOfStream(Status(0, 0))])
    assert not list(tmp_path.iterdir())


def test_what_came_before_a_lost_link_is_whole(tmp_path):
    class Breaking(ListSource):
        def blocks(self):
            yield from super().blocks()
            raise ConnectionError("the cable")

    with pytest.raises(ConnectionError):
        record(Breaking(blocks(0, 33)), tmp_path / "a.h5", clock=lambda: 100.0)
    assert len(rows_of(tmp_path / "a.h5")[0]) == 330


def test_a_disk_that_takes_no_more_ends_the_recording_whole(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (17 * 2**20, before[1]))
    try:
        with pytest.raises(RecordingError, match="make room"):
            recorded(tmp_path / "a.h5", (block(n, samples=200, first=200 * n) for n in range(2000)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    rows, _ = rows_of(tmp_path / "a.h5")
    assert len(rows) > 10_000
    assert np.array_equal(rows["sample_index"], np.arange(len(rows)))


def test_seconds_and_a_signal_end_a_recording(tmp_path):
    assert recorded(tmp_path / "a.h5", blocks(0, 100), seconds=0.25).samples == 250
    stopper = ListSource(blocks(0, 100))
    texts = []

    def progress(done, total, text):
        texts.append(text)
        if len(texts) == 20:
            stopper.stop()

    summary = record(stopper, tmp_path / "b.h5", seconds=9, progress=progress)
    assert summary.samples == 200
    assert not summary.ended


def test_rows_count_once_flush_s_of_the_stream_has_passed(tmp_path):
    path, seen = tmp_path / "a.h5", []

    class Watched(ListSource):
        def blocks(self):
            for item in super().blocks():
                seen.append(len(rows_of(path)[0]) if path.exists() else 0)
                yield item

    record(Watched(blocks(0, 30)), path, flush_s=0.08, clock=lambda: 100.0)
    assert seen[:2] == [0, 10]
    written = 10 * np.arange(30)
    assert (written - np.array(seen) <= 90).all()
    assert len(set(seen)) < 8


def test_compressing_changes_no_byte_of_rows_or_attributes(tmp_path):
    path, calls = tmp_path / "a.h5", []
    items = [block(n, samples=250, first=250 * n, device_us=n) for n in range(300)]
    recorded(path, items, compress=False)
    rows, attributes = rows_of(path)
    size = path.stat().st_size
    compress_recording(path, lambda done, total, text: calls.append((done, total, text)))
    again, attributes_again = rows_of(path)
    assert again.tobytes() == rows.tobytes()
    assert again.dtype == rows.dtype
    assert attributes_again == attributes
    assert path.stat().st_size < size / 2
    assert calls == [(65536, 75000, "compress a.h5"), (75000, 75000, "compress a.h5")]


def killed(kills, folder, seed):
    result = subprocess.run(
        [sys.executable, ROOT / "tests" / "kill_recorder.py", str(kills), folder, str(seed)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_twenty_kills_leave_whole_recordings(tmp_path):
    found = killed(20, tmp_path, seed=3)
    assert found["kills"] == 20
    assert found["most_frames_lost"] < found["flush_frames"]


@pytest.mark.slow
def test_a_thousand_kills_leave_whole_recordings(tmp_path):
    found = killed(1000, tmp_path, seed=4)
    assert found["kills"] == 1000
    assert found["growing"] > 100
    assert found["most_frames_lost"] < found["flush_frames"]


def test_a_reader_in_another_thread_sees_whole_recordings_all_the_time(tmp_path):
    path, done, failures, reads = tmp_path / "a.h5", threading.Event(), [], []

    def read():
        while not done.is_set():
            if path.exists():
                try:
                    reads.append(len(rows_of(path)[0]))
                except Exception as error:
                    failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        recorded(path, blocks(0, 3000), flush_s=0.0, compress=False)
    finally:
        done.set()
        reader.join()
    assert not failures
    assert reads == sorted(reads)

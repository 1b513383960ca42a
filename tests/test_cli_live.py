"""The verbs that talk to a wrist, from the command line, on wrists without hardware."""

import json
import os
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest


def test_what_was_recorded_is_replayed_to_the_bit(cli, tmp_path):
    path = tmp_path / "r.h5"
    code, out, err = cli(
        "record", "virtual://?seed=2&speed=4", "--seconds", 2, "-o", path, "--user", "ada", "--json"
    )
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["samples"], summary["gaps"], summary["paths"]) == (4000, 0, [str(path)])
    with h5py.File(path) as file:
        assert file["emg2pose"].attrs["user"] == "ada"
        assert file["emg2pose/timeseries"].dtype.names[:3] == ("time", "joint_angles", "emg")
        assert np.array_equal(file["emg2pose/timeseries"]["sample_index"], np.arange(4000))
    code, out, err = cli("bench", "link", "--source", f"replay://{path}?speed=4", "--json")
    assert code == 0, err
    assert json.loads(out)["frames_sent"] == 200


def test_a_script_of_prompts_labels_what_is_recorded(cli, tmp_path):
    script = tmp_path / "prompts.txt"
    script.write_text("fist, 0.4, 2, 0.2\npoint, 0.4, 1, 0.2\n")
    path = tmp_path / "r.h5"
    code, out, err = cli("record", "virtual://", "--script", script, "-o", path, "--json")
    assert code == 0, err
    seconds = json.loads(out)["gesture_seconds"]
    assert set(seconds) == {"rest", "fist", "point"}
    assert seconds["fist"] == pytest.approx(0.8, abs=0.1)
    assert "FIST (2) for 0.4 s, then rest" in err


def test_a_recorder_that_is_interrupted_ends_its_file_properly(tmp_path):
    path = tmp_path / "r.h5"
    command = [sys.executable, "-m", "embridge", "record", "virtual://", "-o", str(path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while not path.exists():
            assert process.poll() is None
        os.kill(process.pid, signal.SIGINT)
        summary = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 0
    with h5py.File(path) as file:
        assert len(file["emg2pose/timeseries"]) == summary["samples"]


def test_a_signal_that_is_fit_passes_the_check_and_a_flat_one_does_not(cli, tmp_path):
    assert cli("check", "virtual://?seed=1", "--seconds", 1)[0] == 0
    limits = tmp_path / "limits.toml"
    limits.write_text("rms_low_uv = 1e6\n")
    code, out, _ = cli("check", "virtual://", "--seconds", 1, "--limits", limits, "--json")
    assert code == 1
    assert not json.loads(out)["fit"]


def test_a_link_that_loses_nothing_holds(cli):
    code, out, err = cli("bench", "link", "--source", "virtual://", "--seconds", 1, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert (result["frames_lost"], result["frames_corrupt"]) == (0, 0)
    assert {"frames_sent", "bytes_per_s", "latency_ms", "jitter_ms", "cpu_share"} <= result.keys()


def test_gestures_go_to_several_sinks(cli, made, tmp_path):
    lines = tmp_path / "events.jsonl"
    code, out, err = cli(
        "run", made / "raw.embridge", "--source", "virtual://?speed=4", "--seconds", 4,
        "--sink", f"jsonl:{lines}", "--sink", "udp://127.0.0.1:9", "--json",
    )  # fmt: skip
    assert code == 0, err
    summary = json.loads(out)["summary"]
    assert summary["frames_lost"] == 0
    assert len(lines.read_text().splitlines()) == summary["events"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("record", "virtual://", "-o", "{taken}"), "a file of this name exists"),
        (("record", "virtual://", "-o", "/no/such/x.h5"), "there is no folder /no/such"),
        (("record", "virtual://", "-o", "{new}", "--gestures", "a,b"), "needs? a terminal"),
        (("record", "virtual://", "-o", "{new}", "--script", "{none}"), "no such script"),
        (("record", "virtual://", "-o", "{new}", "--script", "x", "--gestures", "a"), "from one"),
        (("check", "usb://1"), "begins with one of ble://"),
        (("check", "virtual://", "--limits", "{none}"), "no such"),
        (("bench", "link", "--source", "serial:///dev/none"), "no port /dev/none"),
        (("bench", "link", "--source", "replay:///x.h5", "--search"), "its own"),
        (("bench", "faults", "--frames", "0"), "frames"),
    ],
)
def test_bad_input_gets_one_line_and_a_status(cli, tmp_path, arguments, complaint, monkeypatch):
    read_end, write_end = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(read_end))
    os.close(write_end)
    taken = tmp_path / "taken.h5"
    taken.write_text("precious")
    places = {"taken": taken, "new": tmp_path / "new.h5", "none": tmp_path / "none.txt"}
    code, _, err = cli(*(argument.format(**places) for argument in arguments))
    assert code in (1, 2)
    *_, last = err.strip().splitlines()
    assert last.startswith("embridge: ")
    import re

    assert re.search(complaint, last), last
    assert taken.read_text() == "precious"
    sys.stdin.close()

"""What leaves the kit, read by what other people use to read it."""

import json
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest

from embridge.device.decision import Decision
from embridge.device.errors import ConfigError
from embridge.device.sinks import open_sink
from embridge.firmware_bridge import Block, LinkLost, StreamInfo

INFO = StreamInfo(4, 200.0, 2, "uV", 0.5, boot_id=7, device="band")
EVENT = {"v": 1, "t": 1.5, "gesture": "fist", "state": "on", "sample": 300, "latency_ms": 4.2}
LABELS = ("rest", "fist", "open")
OPTIONS = {"info": INFO, "labels": LABELS, "null_gesture": "rest"}


@pytest.fixture
def ear() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(10)
        yield ear


def url(scheme: str, ear: socket.socket) -> str:
    host, port = ear.getsockname()
    return f"{scheme}://{host}:{port}"


def decision(gesture: str | None) -> dict[str, object]:
    return asdict(Decision(0, gesture, 0.9, 0.8)) | {"latency_ms": 4.2}


def test_json_lines_go_to_stdout(capsys):
    with open_sink("jsonl", **OPTIONS) as sink:
        sink.events(EVENT)
        sink.events(EVENT)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [EVENT, EVENT]


def test_json_lines_are_in_the_file_at_once_and_kept(tmp_path):
    file = tmp_path / "events.jsonl"
    for expected in (1, 2):
        with open_sink(f"jsonl:{file}", **OPTIONS) as sink:
            sink.events(EVENT)
            assert len(file.read_text().splitlines()) == expected
    assert [json.loads(line) for line in file.read_text().splitlines()] == [EVENT, EVENT]


def test_udp_carries_one_json_line_a_datagram(ear):
    with open_sink(url("udp", ear), **OPTIONS) as sink:
        sink.events(EVENT)
        data = ear.recv(65_536)
    assert data.endswith(b"\n")
    assert json.loads(data) == EVENT


def test_libemg_gets_a_class_and_a_velocity_per_decision_and_a_last_stop(ear):
    with open_sink(url("libemg", ear), **OPTIONS) as sink:
        assert sink.events is None
        for gesture in ("open", "rest", None):
            sink.decisions(decision(gesture))
    # As ClassifierController of LibEMG 2.0.3 does: recvfrom(1024), split(' '), float.
    messages = [ear.recvfrom(1024)[0].decode("utf-8") for _ in range(4)]
    parsed = [tuple(float(part) for part in text.split(" ")) for text in messages]
    assert parsed == [(2, 1), (0, 0), (-1, 0), (-1, 0)]


def test_libemg_is_told_to_stop_when_the_run_fails(ear):
    def run() -> None:
        with open_sink(url("libemg", ear), **OPTIONS) as sink:
            sink.decisions(decision("fist"))
            raise LinkLost("unplugged")

    with pytest.raises(LinkLost):
        run()
    assert [ear.recv(1024), ear.recv(1024)] == [b"1 1\n", b"-1 0\n"]


def test_lsl_streams_the_emg_with_units_and_the_events_as_markers():
    pylsl = pytest.importorskip("pylsl", reason="no pylsl: pip install 'embridge[lsl]'")
    values = np.arange(40, dtype=np.float32).reshape(10, 4)
    name = f"embridge-test-{np.random.default_rng().integers(2**32)}"
    with open_sink(f"lsl://{name}", **OPTIONS) as sink:
        found = pylsl.resolve_byprop("name", name, timeout=20)
        markers = pylsl.resolve_byprop("name", f"{name}-events", timeout=20)
        if not found or not markers:
            pytest.skip("LSL streams cannot be resolved here: multicast is blocked")
        emg, events = pylsl.StreamInlet(found[0]), pylsl.StreamInlet(markers[0])
        emg.open_stream(20)
        events.open_stream(20)
        before_s = pylsl.local_clock()
        arrived_s = time.monotonic() - 1.0
        sink.samples.push(Block(0, np.zeros((10, 4), np.int16), arrived_s), values)
        sink.events(EVENT)
        got, stamps = emg.pull_chunk(timeout=20, max_samples=10)
        marker, _ = events.pull_sample(timeout=20)
        declared = emg.info(20)
        assert marker == [json.dumps(EVENT)]
        assert np.array_equal(got, values)
        assert before_s - 1.001 <= stamps[-1] <= pylsl.local_clock() - 0.999
        assert np.allclose(np.diff(stamps), 1 / 200)
        assert (declared.type(), declared.nominal_srate()) == ("EMG", 200)
        assert declared.channel_format() == pylsl.cf_float32
        assert declared.get_channel_units() == ["microvolts"] * 4
        assert declared.get_channel_labels() == ["EMG1", "EMG2", "EMG3", "EMG4"]
        assert events.info(20).nominal_srate() == pylsl.IRREGULAR_RATE


@pytest.mark.parametrize(
    "spec", ["osc://127.0.0.1:1", "udp://nowhere", "udp://", "libemg://127.0.0.1:99999", "json"]
)
def test_wrong_sinks_are_one_line(spec):
    with pytest.raises(ConfigError, match="expected") as refused, open_sink(spec, **OPTIONS):
        pass
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    with (
        pytest.raises(ConfigError, match="name another file"),
        open_sink(f"jsonl:{tmp_path}/no/events.jsonl", **OPTIONS),
    ):
        pass


def test_without_pylsl_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(ConfigError, match=r"embridge\[lsl\]"), open_sink("lsl", **OPTIONS):
        pass

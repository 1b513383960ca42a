"""URLs become sources, and a bad one says what is wrong with it in one line."""

import numpy as np
import pytest

from embridge.device.emg2pose import write_emg2pose
from embridge.device.errors import ConfigError
from embridge.device.recordings import Recording
from embridge.device.sources import open_source, stream_of
from embridge.firmware_bridge import Block, Encoding, EndOfStream, PortNotFound
from embridge.firmware_bridge.errors import EmbridgeError


@pytest.fixture
def recorded(tmp_path):
    """A file of 0.5 s of counts, and the counts."""
    counts = np.random.default_rng(0).integers(-3000, 3000, (1000, 4)).astype(np.int16)
    rows = len(counts)
    recording = Recording(
        name="r", source="emg2pose", user="u", session="s", rate_hz=2000.0,
        emg=(counts * np.float64(0.25)).astype(np.float32), emg_unit="uV", is_envelope=False,
        pose=None, pose_unit="", pose_valid=np.zeros(rows, np.bool_), gestures=("fist",),
        gesture=np.zeros(rows, np.int16), trial=np.ones(rows, np.int32),
        repetition=np.ones(rows, np.int16), emg_unit_per_count=0.25,
    )  # fmt: skip
    path = tmp_path / "r.hdf5"
    write_emg2pose(path, recording)
    return path, counts


@pytest.mark.parametrize("encoding", ["int16", "rice"])
def test_a_virtual_wrist_plays_a_recording_exactly(recorded, encoding):
    path, counts = recorded
    with open_source(f"virtual://?recording={path}&encoding={encoding}&speed=20") as source:
        *blocks, end = source.blocks()
    assert np.array_equal(np.concatenate([block.samples for block in blocks]), counts)
    assert isinstance(end, EndOfStream)
    assert source.info.encoding is Encoding[encoding.upper()]
    assert source.how.startswith(encoding)
    assert source.stats.frames_lost == 0


def test_the_seed_decides_the_synthetic_signal():
    def first(url: str):
        with open_source(url) as source:
            return next(item.samples for item in source.blocks() if isinstance(item, Block))

    assert np.array_equal(first("virtual://?seed=3"), first("virtual://?seed=3"))
    assert not np.array_equal(first("virtual://?seed=3"), first("virtual://?seed=4"))


def test_a_recording_declares_what_it_holds(recorded):
    from embridge.device.recordings import read_recording

    counts, info = stream_of(read_recording(recorded[0]))
    assert np.array_equal(counts, recorded[1])
    assert (info.n_ch, info.rate_hz, info.unit, info.scale) == (4, 2000.0, "uV", 0.25)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("usb://1", "begins with one of ble://, brainflow://, cyton://, myo://, qemu://"),
        ("virtual://?sed=1", "unknown option 'sed'; expected buffer_ms, loop, recording, seed"),
        ("virtual://?seed=x", "seed='x': expected a whole number"),
        ("virtual://?speed=0", "speed='0': expected a number above 0"),
        ("virtual://?loop=yes", "loop='yes': expected 0 or 1"),
        ("virtual://?encoding=mp3", "encoding='mp3': expected one of int16, int8, rice"),
        ("virtual://?recording=/no/such.hdf5", "does not exist|cannot be read|No such"),
        ("replay:///no/such.hdf5?speed=fast", "speed='fast': expected a number above 0"),
        ("serial:///dev/x?bauds=1", "expected serial:///dev/ttyACM0"),
        ("qemu://no-such-board", "mps2-an386"),
    ],
)
def test_a_bad_url_says_why_in_one_line(url, complaint):
    with pytest.raises((EmbridgeError, OSError), match=complaint) as caught, open_source(url):
        pass
    assert "\n" not in str(caught.value)


def test_errors_of_urls_are_the_users(recorded):
    with pytest.raises(PortNotFound):
        open_source("serial://")
    with pytest.raises(ConfigError):
        open_source("")

"""The emulated boards stream a recording to the device runtime: nothing lost, nothing altered."""

import shutil

import numpy as np
import pytest

from embridge.device.emg2pose import write_emg2pose
from embridge.device.recordings import Recording
from embridge.device.sources import open_source
from embridge.firmware_bridge import Block, EndOfStream
from embridge.firmware_bridge.boards import BOARDS
from embridge.firmware_bridge.synthetic_signal import synthetic_counts

SECONDS = 10.0


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A recording of 16 channels at 2 kHz, and its counts."""
    for tool, package in (
        ("qemu-system-arm", "qemu-system-arm"),
        ("arm-none-eabi-gcc", "gcc-arm-none-eabi"),
    ):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is missing (Debian: {package}): no emulated boards")
    counts = synthetic_counts(SECONDS, seed=5)
    rows = len(counts)
    recording = Recording(
        name="r", source="emg2pose", user="u", session="s", rate_hz=2000.0,
        emg=(counts * np.float64(0.25)).astype(np.float32), emg_unit="uV", is_envelope=False,
        pose=None, pose_unit="", pose_valid=np.zeros(rows, np.bool_), gestures=("fist",),
        gesture=np.zeros(rows, np.int16), trial=np.ones(rows, np.int32),
        repetition=np.ones(rows, np.int16), emg_unit_per_count=0.25,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("played") / "r.hdf5"
    write_emg2pose(path, recording)
    return path, counts


@pytest.mark.slow
@pytest.mark.parametrize("board", sorted(BOARDS))
def test_ten_seconds_arrive_exactly(played, board):
    path, counts = played
    with open_source(f"qemu://{board}?recording={path}") as source:
        *blocks, end = source.blocks()
    assert all(isinstance(block, Block) for block in blocks)
    assert np.array_equal(np.concatenate([block.samples for block in blocks]), counts)
    assert isinstance(end, EndOfStream)
    assert (end.status.frames_sent, end.status.frames_dropped) == (1000, 0)
    stats = source.stats
    assert (stats.frames_received, stats.frames_lost, stats.frames_corrupt) == (1000, 0, 0)
    assert source.info.firmware.startswith("emb-c")
    device_s = 1e-6 * (blocks[-1].device_us - blocks[0].device_us)
    assert device_s == pytest.approx(SECONDS - 0.01, abs=0.001)  # real time, on the board's clock


def test_a_board_streams_compressed_samples_exactly(played):
    path, counts = played
    with open_source(f"qemu://mps2-an386?recording={path}&encoding=rice&speed=2") as source:
        items = source.blocks()
        blocks = [item for item, _ in zip(items, range(200), strict=False)]
    first = blocks[0].first_sample
    received = np.concatenate([block.samples for block in blocks])
    assert np.array_equal(received, counts[first : first + len(received)])
    assert source.stats.frames_lost == 0
    assert source.info.rate_hz == 4000.0

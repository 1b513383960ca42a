"""BrainFlow's synthetic board, and recordings that it plays as if a board sent them."""

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.foreign.brainflow_board import BrainFlowSource
from embridge.firmware_bridge import Block, Gap, Item, LinkLost, PortNotFound

pytest.importorskip("brainflow", reason="no brainflow: pip install 'embridge[brainflow]'")

RATE_HZ = 250


def until(source: BrainFlowSource, sample: int) -> list[Item]:
    items: list[Item] = []
    for item in source.blocks():
        items.append(item)
        if isinstance(item, Block) and item.first_sample + len(item.samples) >= sample:
            return items
    raise AssertionError("the stream ended")


def write_recording(path: Path, rows: int, dropped: set[int], samples: int) -> NDArray[np.float64]:
    """What a board with that many rows would have sent; returns all of it, (rows, samples)."""
    from brainflow.data_filter import DataFilter

    data = np.random.default_rng(0).uniform(-3e4, 3e4, (rows, samples)).round(3)
    data[0] = np.arange(samples) % 256
    data[-2] = 1.7e9 + np.arange(samples) / RATE_HZ  # timestamps
    kept = [at for at in range(samples) if at not in dropped]
    DataFilter.write_file(np.ascontiguousarray(data[:, kept]), str(path), "w")
    return data


def test_the_synthetic_board_streams_without_a_hole():
    with BrainFlowSource("brainflow://synthetic?uv_per_count=0.5") as source:
        assert (source.info.n_ch, source.info.rate_hz, source.info.unit) == (16, 250, "uV")
        assert (source.info.scale, source.info.device) == (0.5, "Synthetic")
        items = until(source, 600)
        assert source.stats.samples_lost == 0
        assert source.clipped == 0
    assert all(isinstance(item, Block) for item in items)
    assert np.concatenate([item.samples for item in items]).std(axis=0).min() > 0


def test_missing_packages_leave_holes_of_their_exact_size(tmp_path):
    file, dropped = tmp_path / "board.csv", {100, 101, 300}
    data = write_recording(file, 32, dropped, 400)
    url = f"brainflow://PLAYBACK_FILE?file={file}&master_board=-1&uv_per_count=1.5"
    with BrainFlowSource(url) as source:
        items = until(source, 400)
        assert source.stats.samples_lost == len(dropped)
    assert [item for item in items if isinstance(item, Gap)] == [Gap(100, 2), Gap(300, 1)]
    played = np.rint(data[1:17].T / 1.5)
    for block in (item for item in items if isinstance(item, Block)):
        at = block.first_sample
        assert np.array_equal(block.samples, played[at : at + len(block.samples)])


def test_what_may_not_count_samples_is_told_and_locates_nothing(tmp_path):
    file, told = tmp_path / "ganglion.csv", []
    write_recording(file, 15, {50}, 100)
    url = f"brainflow://PLAYBACK_FILE?file={file}&master_board=1"
    with BrainFlowSource(url, log=told.append, silence_s=1.0) as source:
        items = until(source, 99)
        with pytest.raises(LinkLost, match="no sample for 1 s"):
            until(source, 200)
    assert not any(isinstance(item, Gap) for item in items)
    assert len(told) == 1
    assert "losses are not located" in told[0]
    with BrainFlowSource(f"{url}&counter=256", log=told.append) as source:
        assert Gap(50, 1) in until(source, 99)
    assert len(told) == 1


def test_values_beyond_int16_are_counted_and_told_once():
    told: list[str] = []
    with BrainFlowSource("brainflow://-1?uv_per_count=0.0001", log=told.append) as source:
        until(source, 100)
        assert source.clipped > 0
    assert len(told) == 1
    assert "clipped" in told[0]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("brainflow://TOASTER", "knows no board 'TOASTER'"),
        ("brainflow://CYTON?port=3", "unknown option 'port'"),
        ("brainflow://CYTON?ip_port=many", "ip_port='many': expected a number"),
        ("brainflow://CYTON?uv_per_count=-1", "uv_per_count='-1'"),
    ],
)
def test_wrong_urls_are_one_line(url, said):
    with pytest.raises(ConfigError, match=said) as refused:
        BrainFlowSource(url)
    assert "\n" not in str(refused.value)


def test_a_board_that_is_not_there_is_one_line(tmp_path):
    url = f"brainflow://CYTON?serial_port={tmp_path}/none"
    with (
        pytest.raises(PortNotFound, match="BrainFlow cannot open the board") as refused,
        BrainFlowSource(url),
    ):
        pass
    assert "\n" not in str(refused.value)


def test_without_brainflow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "brainflow", None)
    with pytest.raises(ConfigError, match=r"embridge\[brainflow\]"):
        BrainFlowSource("brainflow://synthetic")

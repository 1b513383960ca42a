"""`embridge bench data`: what it compares, and that memory does not grow with the data."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from embridge.benchmarks.data_bench import bench_data, link_copies, text
from embridge.benchmarks.data_readers import CONTESTANTS, plain_reader
from embridge.device.errors import ConfigError
from embridge.training.config import PRESETS, load_config
from embridge.training.study import make_study, read_all
from embridge.training.synth import synthesize
from embridge.training.synth_poses import STAGES

USERS = 4


def test_both_folders_are_measured_and_longer_ones_hold_more_windows_of_the_same_kind() -> None:
    seen: set[str] = set()
    result = bench_data(
        (0.02, 0.04),
        rounds=1,
        users=USERS,
        fill_batches=3,
        progress=lambda _done, _total, what: seen.add(what.split()[0]),
    )
    short, long = result["folders"]
    assert (short["files"], long["files"]) == (USERS * len(STAGES), 2 * USERS * len(STAGES))
    assert (short["hours"], long["hours"]) == (0.02, 0.04)
    assert long["windows"] == 2 * short["windows"] > 0
    assert {*short["windows_per_s"]} == {"random", "sequential"}
    for row in result["folders"]:
        assert row["peak_bytes"] > 0
        for order, rates in row["windows_per_s"].items():
            assert {*rates} == {*CONTESTANTS}
            assert row["ratio_to_plain"][order]["plain_h5py"] == 1
            assert min(rates.values()) > 0
    assert {"synthesize", "read", "measure", "fill", "time"} <= seen
    assert f"{short['peak_bytes'] / 2**20:.0f} MiB" in text(result)
    assert json.loads(json.dumps(result)) == result


def test_the_plain_loop_reads_the_same_rows(tmp_path: Path) -> None:
    link_copies(synthesize(tmp_path / "one", users=3, seconds_per_stage=2), tmp_path / "two", 2)
    config = load_config(PRESETS / "raw.toml", [f"data.cache={str(tmp_path / 'cache')!r}"])
    outlines = read_all(tmp_path / "two", None, config.data)
    windows = make_study(config, outlines, "two").training_windows()
    index = np.array([0, 7, len(windows) - 1])
    emg, pose = plain_reader(windows, lambda _step: index)(0)
    assert (emg.shape, pose.shape) == ((3, 1000, 16), (3, 1000, 20))
    for row, i in enumerate(index):
        rows = windows.signals[windows.signal[i]].outline.rows
        start, stop = int(windows.start[i]), int(windows.start[i]) + windows.window
        assert np.array_equal(emg[row], rows.emg(start, stop))
        assert np.array_equal(pose[row], rows.pose(start, stop))
    filtered, _ = plain_reader(windows, lambda _step: index, filtered=True)(0)
    assert np.allclose(filtered, windows.emg(index), atol=1e-2)
    assert np.abs(filtered).max() > 10, "uV"


@pytest.mark.slow
def test_peak_memory_is_the_same_for_twenty_times_the_data() -> None:
    """With a cache that both fill."""
    result = bench_data((0.1, 2), rounds=1, cache_mb=16)
    assert result["cache_mb"] == 16
    assert result["peak_ratio"] <= 1.1


def test_too_few_hours_are_refused_in_one_line(
    cli: Callable[..., tuple[int, str, str]],
) -> None:
    with pytest.raises(ConfigError, match=r"at least 0\.018 hours, got 0\.01"):
        bench_data((0.01, 1))
    for hours, message in (("0.01", "at least 0.018 hours"), ("1,x", "--hours 1,x: expected")):
        code, out, err = cli("bench", "data", "--hours", hours)
        assert (code, out) == (1, "")
        assert message in err
        assert err.count("\n") == 1

"""Sizes of the watch encoder: what they change, and the table of what they cost."""

import json

import pytest

from embridge.benchmarks.sizes import STREAMS, SizeRow, bench_sizes, text
from embridge.device.errors import ConfigError
from embridge.training.config import PRESETS, load_config
from embridge.training.watch import Stage, sized

TINY = """
name = "tiny"
[data]
window_ms = 400
hop_ms = 100
train_hop_ms = 100
[base]
patch_ms = 50
dim = 16
[watch]
stem = [8, 5, 2]
blocks = [[16, 5, 2]]
[optim]
pose_mae_steps = 1
emg_mae_steps = 1
align_steps = 1
watch_steps = 1
"""


@pytest.fixture
def tiny(tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.mark.parametrize("preset", STREAMS)
def test_size_m_is_what_a_preset_says_and_the_default(preset):
    config = load_config(PRESETS / f"{preset}.toml")
    assert config.watch.size == "m"
    shape = config.watch.shape(8, 4000, 16)
    assert [[s.width, s.kernel, s.stride] for s in shape.stages] == [
        list(stage) for stage in (config.watch.stem, *config.watch.blocks)
    ]


@pytest.mark.parametrize("preset", STREAMS)
@pytest.mark.parametrize(("size", "times"), [("s", 0.5), ("l", 2)])
def test_other_sizes_change_widths_only_and_in_steps_of_8(preset, size, times):
    path = PRESETS / f"{preset}.toml"
    usual = load_config(path).watch.shape(8, 4000, 16)
    other = load_config(path, [f"watch.size={size}"]).watch.shape(8, 4000, 16)
    assert (other.window, other.embedding, other.stride) == (4000, 16, usual.stride)
    for a, b in zip(usual.stages, other.stages, strict=True):
        assert (a.kernel, a.stride) == (b.kernel, b.stride)
        assert b.width == times * a.width
        assert b.width % 8 == 0


def test_a_narrow_stage_keeps_at_least_8_channels():
    assert [sized(Stage(w, 3, 1), "s").width for w in (1, 8, 20, 24)] == [8, 8, 8, 16]


def test_an_unknown_size_is_refused():
    with pytest.raises(ConfigError, match=r"watch\.size: .*'xl'"):
        load_config(PRESETS / "raw.toml", ["watch.size=xl"])


def test_the_table_has_a_row_for_each_size_and_the_file_holds_its_weights(tiny, cli):
    code, out, err = cli(
        "bench", "sizes", "--config", tiny, "--channels", 4, "--rate", 200, "--json"
    )
    assert code == 0, err
    rows = json.loads(out.splitlines()[-1])
    assert [row["size"] for row in rows] == ["s", "m", "l"]
    assert [row["widths"] for row in rows] == [[8, 8], [8, 16], [16, 32]]
    for row in rows:
        assert (row["config"], row["channels"], row["rate_hz"]) == ("tiny", 4, 200.0)
        assert row["stream_hop_ms"] == 100.0
        assert 0 < row["macs_per_hop"] < row["macs_per_window"]
        assert row["weight_bytes"] < row["tflite_bytes"]
        assert 0 < row["stream_state_bytes"] < row["stream_peak_bytes"]
    for figure in ("parameters", "macs_per_window", "macs_per_hop", "tflite_bytes"):
        values = [row[figure] for row in rows]
        assert values == sorted(values), figure


def test_the_table_for_people_has_the_same_figures():
    rows = [
        SizeRow("tiny", size, 2, 200.0, (8, 8), 100 * n, 1000 * n, 500 * n, 100.0, 90, 1000, 70, 80)
        for n, size in ((1, "s"), (20, "m"), (3000, "l"))
    ]
    lines = text(rows).splitlines()
    assert len({len(line) for line in lines[:4]}) == 1
    for row, line in zip(rows, lines[1:], strict=False):
        assert f"{row.parameters:,}" in line
        assert f"{row.macs_per_hop:,}" in line
    assert lines[-1] == "tiny: 2 channels at 200 Hz"


@pytest.mark.parametrize(
    ("config", "channels", "rate_hz", "words"),
    [
        ("raw", 0, None, "channels"), ("raw", None, -1.0, "rate"),
        ("raw", None, 100.0, "receptive field"), ("absent", None, None, "no such configuration"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_refused_in_one_line(config, channels, rate_hz, words):
    with pytest.raises(ConfigError, match=words) as error:
        bench_sizes(config, channels, rate_hz)
    assert "\n" not in str(error.value)

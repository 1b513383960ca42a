"""Configurations: presets load, overrides are typed, and every mistake is named in one line."""

import tomllib
from pathlib import Path

import pytest

from embridge.device.errors import ConfigError
from embridge.training.config import PRESETS, Config, load_config, preset_path

RAW = PRESETS / "raw.toml"
ALL_PRESETS = sorted(PRESETS.glob("*.toml"))


def refused(path: Path, overrides: list[str], match: str) -> None:
    with pytest.raises(ConfigError, match=match) as error:
        load_config(path, overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ALL_PRESETS, ids=lambda path: path.stem)
def test_every_preset_loads_under_its_own_name(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_there_is_a_preset_for_every_kind_of_recording() -> None:
    assert {path.stem for path in ALL_PRESETS} == {"envelope", "paper", "raw", "raw_slow"}
    assert preset_path(2000, False).stem == "raw"
    assert preset_path(200, False).stem == "raw_slow"
    assert preset_path(100, True).stem == "envelope"
    assert preset_path(2000, True).stem == "envelope"


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("optim.seed=3", "optim", "seed", 3),
        ("optim.learning_rate=1e-4", "optim", "learning_rate", 1e-4),
        ("optim.learning_rate=1", "optim", "learning_rate", 1.0),
        ("optim.device=cpu", "optim", "device", "cpu"),
        ("optim.device = 'cpu'", "optim", "device", "cpu"),
        ("data.path=/some/where else", "data", "path", "/some/where else"),
        ('data.path="a=b"', "data", "path", "a=b"),
        ("data.path=a=b", "data", "path", "a=b"),
        ("data.path=", "data", "path", ""),
        ('data.unseen_gestures=["fist", "pinch"]', "data", "unseen_gestures", ("fist", "pinch")),
        ("data.unseen_gestures=[]", "data", "unseen_gestures", ()),
        ("front_end.notch_hz=[50, 60.5]", "front_end", "notch_hz", (50.0, 60.5)),
        ("front_end.highpass_hz=0", "front_end", "highpass_hz", 0.0),
        ("watch.stem=[8, 5, 2]", "watch", "stem", (8, 5, 2)),
        ("watch.blocks=[[8, 5, 2]]", "watch", "blocks", ((8, 5, 2),)),
    ],
)
def test_overrides_are_typed(override: str, section: str, key: str, value: object) -> None:
    found = getattr(getattr(load_config(RAW, [override]), section), key)
    assert found == value
    assert type(found) is type(value)


def test_an_override_changes_nothing_else_and_the_last_one_wins() -> None:
    before = load_config(RAW).model_dump()
    after = load_config(RAW, ["optim.seed=1", "optim.seed=2", "name=mine"]).model_dump()
    assert (after.pop("name"), before.pop("name")) == ("mine", "raw")
    assert (after["optim"].pop("seed"), before["optim"].pop("seed")) == (2, 0)
    assert after == before


def test_a_section_that_the_file_leaves_out_can_be_overridden() -> None:
    assert "gallery" not in tomllib.loads(RAW.read_text())
    assert load_config(RAW, ["gallery.k=5"]).gallery.k == 5


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("optim.sead=3", r"optim\.sead: extra inputs are not permitted"),
        ("optin.seed=3", r"optin: extra"),
        ("optim.seed=three", r"optim\.seed: .*valid integer.*'three'"),
        ("optim.seed=0.5", r"optim\.seed"),
        ("optim.seed=[1]", r"optim\.seed"),
        ("optim.seed=", r"optim\.seed"),
        ("optim.device=tpu", r"optim\.device: .*'auto', 'cpu' or 'cuda'"),
        ("data.window_ms=long", r"data\.window_ms"),
        ("data.unseen_gestures=fist", r"data\.unseen_gestures"),
        ("data.unseen_count=1", r"data\.unseen_count"),
        ("name=3", r"name: .*valid string"),
        ("optim=3", r"optim"),
        ("watch.blocks=[]", r"watch\.blocks"),
        ("watch.stem=[8, 5]", r"watch\.stem\.2"),
        ("front_end.compression=mu", r"front_end\.compression"),
        ("optim.seed", r"override 'optim\.seed': expected section\.key=value"),
        ("", r"override '': expected section\.key=value"),
        ("optim.batch.x=3", r"override 'optim\.batch\.x=3': batch is a value"),
        ("=3", r"override '=3'"),
        ("optim..seed=3", r"override 'optim\.\.seed=3'"),
    ],
)
def test_a_wrong_override_is_named(override: str, match: str) -> None:
    refused(RAW, [override], match)


@pytest.mark.parametrize(
    "override",
    [
        "data.window_ms=0",
        "data.hop_ms=-100",
        "data.train_hop_ms=nan",
        "data.window_ms=inf",
        "base.patch_ms=0",
        "base.heads=3",
        "base.decoder_dim=30",
        "base.mask_ratio=0",
        "base.mask_ratio=1",
        "base.queries=0",
        "watch.stem=[8, 0, 1]",
        "watch.blocks=[[8, 5, 0]]",
        "front_end.highpass_hz=-20",
        "front_end.order=0",
        "front_end.notch_hz=[0]",
        "loss.tau=0",
        "loss.tau_soft=0",
        "loss.clusters=0",
        "loss.top_clusters=0",
        "optim.batch=1",
        "optim.seed=-1",
        "optim.threads=0",
        "optim.validate_every=0",
        "optim.checkpoint_every=0",
        "optim.align_steps=-1",
        "optim.population_share=1.5",
        "optim.learning_rate=0",
        "gallery.per_gesture=0",
        "gallery.k=0",
        "gallery.reject_quantile=2",
    ],
)
def test_a_number_that_cannot_work_is_named(override: str) -> None:
    section, key = override.split("=")[0].split(".")
    refused(RAW, [override], rf"raw\.toml: {section}.*{key}")


def test_a_missing_file_names_the_presets(tmp_path: Path) -> None:
    refused(tmp_path / "none.toml", [], "no such configuration; presets are envelope, paper, raw")
    refused(tmp_path, [], "no such configuration")


@pytest.mark.parametrize("text", [b"name = ", b"[data]\nwindow_ms = 1\n[data]\n", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text)
    refused(path, [], r"bad\.toml: not valid TOML")


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "short.toml"
    path.write_text(RAW.read_text().replace("window_ms", "# window_ms"))
    refused(path, [], r"short\.toml: data\.window_ms: field required")


def test_a_name_in_any_script_is_read_whatever_the_locale(tmp_path: Path) -> None:
    path = tmp_path / "other.toml"
    path.write_bytes(RAW.read_text().replace('name = "raw"', 'name = "Füße"').encode())
    assert load_config(path).name == "Füße"

"""metadata.csv and split files of a synthetic set say of every recording what it is for."""

import csv

import pytest
import yaml

from embridge.device.recordings import REST, read_recording
from embridge.training.config import PRESETS, load_config
from embridge.training.study import make_study, read_all
from embridge.training.synth import synthesize
from embridge.training.synth_poses import STAGES
from embridge.training.synth_split import COLUMNS, METADATA


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Eight users, the files and the rows of metadata.csv."""
    out = tmp_path_factory.mktemp("synth") / "set"
    files = synthesize(out, users=8, seconds_per_stage=1.0, with_metadata=True)
    with open(out / METADATA, newline="") as file:
        rows = list(csv.DictReader(file))
    return out, files, rows


def test_every_recording_has_one_row_with_the_columns_of_the_real_set(made):
    _, files, rows = made
    assert tuple(rows[0]) == COLUMNS
    assert [row["filename"] for row in rows] == [file.stem for file in files]
    for row, file in list(zip(rows, files, strict=True))[::7]:
        recording = read_recording(file)
        assert (row["user"], row["session"], row["stage"]) == (
            recording.user, recording.session, recording.gestures[0],
        )  # fmt: skip


def test_held_out_users_and_stages_are_never_for_training(made):
    _, _, rows = made
    held_users = {row["user"] for row in rows if row["held_out_user"] == "True"}
    held_stages = {row["stage"] for row in rows if row["held_out_stage"] == "True"}
    assert held_users == {"synth06", "synth07"}
    assert len(held_stages) == 4
    assert REST not in held_stages
    for row in rows:
        new = (row["user"] in held_users, row["stage"] in held_stages)
        name = {(0, 0): "none", (1, 0): "user", (0, 1): "stage", (1, 1): "user_stage"}[new]
        assert row["generalization"] == name
        assert (row["split"] == "train") == (name == "none")
    kinds = {(row["split"], row["generalization"]) for row in rows}
    assert kinds == {
        ("train", "none"), ("test", "stage"), ("val", "user"), ("test", "user"),
        ("val", "user_stage"), ("test", "user_stage"),
    }  # fmt: skip


def test_the_split_file_lists_every_recording_once_under_its_split(made):
    out, files, rows = made
    splits = yaml.safe_load((out / "mini_split.yaml").read_text())
    assert list(splits) == ["train", "val", "test"]
    assert sum(map(len, splits.values())) == len(files) == 8 * len(STAGES)
    for split, names in splits.items():
        assert names == [row["filename"] for row in rows if row["split"] == split]
    assert "metadata_file: ${data_location}/metadata.csv" in (out / "full_split.yaml").read_text()


@pytest.mark.parametrize("split", ["official", "mini_split.yaml", "full_split.yaml"])
def test_a_study_reads_the_splits(made, tmp_path, split):
    out, _, rows = made
    config = load_config(
        PRESETS / "raw.toml",
        [f"data.path={out}", f"data.cache={tmp_path}",
         f"data.split={split if split == 'official' else out / split}"],
    )  # fmt: skip
    study = make_study(config, read_all(out, data=config.data), out.name)
    for name, users in (
        ("train", study.plan.train_users), ("val", study.plan.val_users),
        ("test", study.plan.test_users),
    ):  # fmt: skip
        assert set(users) == {row["user"] for row in rows if row["split"] == name}


def test_a_finished_set_gets_its_metadata_later_and_one_user_is_all_test(tmp_path):
    synthesize(tmp_path / "a", users=1, seconds_per_stage=1.0)
    assert not (tmp_path / "a" / METADATA).exists()
    synthesize(tmp_path / "a", users=1, seconds_per_stage=1.0, with_metadata=True)
    assert "\ntrain:\n" not in (text := (tmp_path / "a" / "mini_split.yaml").read_text())
    assert text.startswith("train: []\nval: []\ntest:\n  - ")

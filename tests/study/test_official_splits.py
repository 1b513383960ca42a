"""emg2pose's own splits: by file, with what is new about each test file."""

import csv
import dataclasses
import logging

import numpy as np
import pytest

from embridge.device.emg2pose import write_emg2pose
from embridge.device.errors import ConfigError, RecordingError
from embridge.training.splits import METADATA
from embridge.training.study import apply_plan, make_study, read_all

STAGES = ("fist", "pinch", "point", "thumb", "horns", "spread")
USERS = ("ann", "bob", "cem", "dan", "eve")
ROLE = {"ann": "train", "bob": "train", "cem": "train", "dan": "val", "eve": "test"}


def entry(user, stage, handmade):
    new_user, new_stage = ROLE[user] != "train", stage in handmade.UNSEEN
    new = "_".join(["user"] * new_user + ["stage"] * new_stage) or "none"
    split = ROLE[user] if new_user else "test" if new_stage else "train"
    return {
        "filename": f"{user}-{stage}", "user": user, "session": "1", "stage": f"{stage}_both",
        "side": "left", "moving_hand": "both", "held_out_user": new_user,
        "held_out_stage": new_stage, "split": split, "generalization": new, "start": 0.0,
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(handmade, tmp_path_factory):
    """One file per user and stage; a third of one file's poses failed, as inverse kinematics do."""
    path = tmp_path_factory.mktemp("official")
    rows = []
    for seed, user in enumerate(USERS):
        session = dataclasses.replace(handmade.session("file's own", seed), pose_unit="rad")
        for stage in STAGES:
            recording = handmade.one_stage(session, stage)
            if (user, stage) == ("ann", "fist"):
                recording.pose_valid[20:50] = False
            write_emg2pose(path / f"{user}-{stage}.hdf5", recording)
            rows.append(entry(user, stage, handmade))
    write_metadata(path / METADATA, rows)
    names = {split: [r["filename"] for r in rows if r["split"] == split] for split in ROLE.values()}
    lines = [f"{s}:\n" + "".join(f"  - {n}\n" for n in names[s][:6]) for s in names]
    (path / "mini_split.yaml").write_text("".join(lines))
    (path / "full_split.yaml").write_text(
        "_target_: emg2pose.utils.load_splits\n"
        "metadata_file: ${data_location}/metadata.csv\nsubsample: 1\n"
    )
    return path


def write_metadata(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def config(handmade, folder):
    def make(split, *more):
        return handmade.configured(
            f"data.path={str(folder)!r}",
            f"data.split={split}",
            "data.unseen_gestures=[]",
            "data.window_ms=100",
            *more,
        )

    return make


def study_on(folder, config):
    return make_study(config, read_all(folder, None, config.data), "official")


@pytest.mark.parametrize("split", ["official", "yaml"])
def test_files_go_where_metadata_says(folder, config, handmade, split):
    split = split if split == "official" else str(folder / "full_split.yaml")
    study = study_on(folder, config(split))
    plan = study.plan
    assert (plan.train_users, plan.val_users) == (("ann", "bob", "cem"), ("dan",))
    assert plan.test_users == ("ann", "bob", "cem", "eve")
    assert {*plan.unseen} == {*handmade.UNSEEN}, "the held-out stages"
    test = study.test_windows()
    found = {
        (test.users[user], plan.labels[label], str(group))
        for user, label, group in zip(test.user, test.label, study.test_groups(test), strict=True)
    }
    assert found == {
        (user, stage, row["generalization"])
        for user in USERS
        for stage in STAGES
        if (row := entry(user, stage, handmade))["split"] == "test"
    }
    for windows, users in (
        (study.training_windows(), plan.train_users),
        (study.validation_windows(), plan.val_users),
    ):
        assert {windows.users[user] for user in windows.user} == {*users}
        assert not {plan.labels[label] for label in windows.label} & {*handmade.UNSEEN}


def test_unseen_stages_of_training_users_are_filtered_for_the_test_alone(folder, config):
    study = study_on(folder, config("official"))
    by_name = {signal.outline.name: signal for signal in study.signals}
    assert len(by_name["ann-pinch"].allowed) == 100
    assert by_name["dan-pinch"].split == "val"
    with pytest.raises(ValueError, match="withheld"):
        by_name["dan-pinch"].emg(0, 10)


def test_a_window_with_failed_tracking_is_never_a_paired_one(folder, config):
    study = study_on(folder, config("official"))
    signal = next(s for s in study.signals if s.outline.name == "ann-fist")
    number = study.signals.index(signal)
    windows = study.training_windows()
    starts = windows.start[windows.signal == number]
    assert {*starts.tolist()} == {0, 50, 60, 70, 80}, "of 100 rows, 20 to 49 have no pose"
    everything = study.windows(("ann",), ("fist",), 1, need_pose=True)
    for start in everything.start[everything.signal == number]:
        assert start + 20 <= 20 or start >= 50


def test_a_literal_split_lists_files_and_leaves_the_others_alone(folder, config, tmp_path):
    files = {"train": ["ann-fist", "bob-fist.hdf5", "ann-thumb", "bob-thumb"], "val": ["dan-fist"],
             "test": ["eve-pinch", "eve-fist", "ann-horns", "eve-horns"]}  # fmt: skip
    path = tmp_path / "some.yaml"
    path.write_text(str(files))
    chosen = config(str(path), 'data.unseen_gestures=["pinch", "horns"]')
    outlines = read_all(folder, None, chosen.data)
    assert len(outlines) == 9
    plan = make_study(chosen, outlines, "mini").plan
    assert plan.files["bob-fist"].split == "train"
    assert {*plan.unseen} == {"pinch", "horns"}
    assert plan.train_users == plan.test_users == ("file's own",), "as the files say"


def test_a_plan_keeps_the_split_and_a_folder_without_metadata_follows_it(folder, config):
    study = study_on(folder, config("official"))
    plan = type(study.plan).model_validate_json(study.plan.model_dump_json())
    assert plan == study.plan
    again = apply_plan(plan, read_all(folder, None, config("official").data))
    assert np.array_equal(again.test_windows().start, study.test_windows().start)
    assert again.profiles == study.profiles


def test_missing_files_are_counted_and_the_first_is_named(folder, config, tmp_path, caplog):
    with (folder / METADATA).open(newline="") as file:
        rows = [*csv.DictReader(file)]
    gone = [rows[0] | {"filename": f"gone-{number}"} for number in range(3)]
    for name in ("ann-fist", "bob-fist"):
        (tmp_path / f"{name}.hdf5").symlink_to(folder / f"{name}.hdf5")
    write_metadata(tmp_path / METADATA, [*rows[:1], *gone])
    data = config("official").data
    with pytest.raises(RecordingError, match=r"3 of the 4 files .* missing, first gone-0") as error:
        read_all(tmp_path, None, data)
    assert "\n" not in str(error.value)
    with caplog.at_level(logging.WARNING):
        found = read_all(tmp_path, None, data.model_copy(update={"allow_missing": True}))
    assert [outline.name for outline in found] == ["ann-fist"], "bob-fist is in no split"
    assert "3 of the 4 files" in caplog.text
    write_metadata(tmp_path / METADATA, gone)
    with pytest.raises(RecordingError, match="another data set"):
        read_all(tmp_path, None, data.model_copy(update={"allow_missing": True}))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.csv", "filename,user\na,b\n", "missing stage, split"),
        ("metadata.csv", "filename,user,stage,split\na,b,c,trian\n", "line 2: split 'trian'"),
        ("metadata.csv", "filename,user,stage,split\n", "one row per file"),
        ("metadata.csv", None, "not found"),
        ("s.yaml", "train: [a\n", "cannot be read as YAML"),
        ("s.yaml", "[1, 2]", "expected a mapping"),
        ("s.yaml", "train: 3", "expected a list of file names"),
        ("s.yaml", "tarin: [a]", "split 'tarin'"),
        ("s.yaml", "train: [a]\ntest: [a]", "stands under train and test"),
        ("s.yaml", "train: []", "got none"),
        ("s.yaml", "_target_: os.system\nmetadata_file: a", "expected _target_"),
        ("s.yaml", "_target_: u.load_splits\nmetadata_file: m\nsubsample: 0.1", "subsample 0.1"),
        ("s.txt", "", "expected users, official or a split file"),
    ],
)
def test_a_split_that_cannot_be_used_is_refused_in_one_line(
    folder, config, tmp_path, name, text, message
):
    (tmp_path / "ann-fist.hdf5").symlink_to(folder / "ann-fist.hdf5")
    if text is not None:
        (tmp_path / name).write_text(text)
    split = "official" if name == METADATA else str(tmp_path / name)
    with pytest.raises(ConfigError, match=message) as error:
        read_all(tmp_path, None, config(split).data)
    assert "\n" not in str(error.value)

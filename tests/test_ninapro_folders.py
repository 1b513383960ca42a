"""Generated DB1, DB2, DB5 and DB7 folders: read correctly, or refused in one line."""

import numpy as np
import pytest
import scipy.io

from embridge.device.data_check import check, describe
from embridge.device.errors import RecordingError
from embridge.device.ninapro import EXERCISE_B, EXERCISE_C, GLOVE_SENSORS, LEFT_OUT
from embridge.device.ninapro_subjects import AMPUTEE, MIRRORED, NOT_MIRRORED, mirror_ring
from embridge.device.recordings import (
    ReadOptions,
    open_recordings,
    read_recording,
    require_pose,
)
from embridge.training.config import PRESETS, load_config
from embridge.training.study import make_study, read_all
from embridge.training.synth_ninapro import LAYOUTS, Protocol, write_ninapro
from embridge.training.synth_ninapro_defects import DEFECTS

BRIEF = Protocol(movements=2, repetitions=2, hold_s=0.4, rest_s=0.4)
AS_RECORDED = ReadOptions(mirror_left_arms=False)
REFUSED = {
    "half-labels": "'(stimulus|repetition)'",
    "missing-emg": "'emg'",
    "text-emg": "'emg'",
    "nan-labels": "'restimulus'",
    "two-label-columns": "'restimulus'",
    "nan-emg": "EMG",
    "truncated": "truncated file",
}
READ = [("db2", e, d) for d in DEFECTS if d not in REFUSED and d != "glove-18" for e in (1, 3)]
READ.append(("db7", 1, "glove-18"))  # only DB7 has such gloves


def one_file(tmp_path, defect="", data_set="db2", subject=1, exercise=1):
    planted = {(subject, exercise): defect} if defect else {}
    files = write_ninapro(tmp_path / "set", data_set, (subject,), 0, planted, BRIEF)
    return files[exercise - 1]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Folder of each set, by name, of subjects 1 and 2 and without defects."""
    folders = {name: tmp_path_factory.mktemp("sound") / name for name in LAYOUTS}
    for name, folder in folders.items():
        write_ninapro(folder, name, (1, 2), protocol=BRIEF)
    return folders


@pytest.mark.parametrize(
    ("data_set", "names", "shape", "rate_hz", "last"),
    [
        ("db1", ["S1_A1_E1.mat", "S2_A1_E3.mat"], (10, 22), 100, [2, 14, 31]),
        ("db2", ["DB2_s1/S1_E1_A1.mat", "DB2_s2/S2_E3_A1.mat"], (12, 22), 2000, [2, 19, 42]),
        ("db5", ["s1/S1_E1_A1.mat", "s2/S2_E3_A1.mat"], (16, 22), 200, [2, 14, 31]),
        ("db7", ["Subject_1/S1_E1_A1.mat", "Subject_2/S2_E2_A1.mat"], (12, 22), 2000, [2, 19]),
    ],
)
def test_a_folder_is_read_as_the_set_whose_layout_it_has(
    sound, data_set, names, shape, rate_hz, last
):
    folder = sound[data_set]
    assert all((folder / name).is_file() for name in names)
    recordings = list(open_recordings(folder))
    assert len(recordings) == 2 * len(last)
    for number, recording in enumerate(recordings):
        assert recording.source == f"ninapro-{data_set}"
        assert recording.rate_hz == rate_hz
        assert recording.user == f"s{1 + number // len(last)}"
        assert (recording.emg.shape[1], recording.pose.shape[1]) == shape
        assert recording.gesture.max() == last[number % len(last)]
        assert recording.trial.max() == 4
        assert set(recording.repetition) == {0, 1, 2}
        assert recording.synthetic


@pytest.mark.parametrize("defect", REFUSED)
def test_a_file_that_cannot_be_trusted_is_refused_naming_file_and_key(tmp_path, defect):
    path = one_file(tmp_path, defect)
    with pytest.raises(RecordingError, match=rf"^S1_E1_A1\.mat: .*{REFUSED[defect]}") as error:
        read_recording(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("data_set", "exercise", "defect"), READ)
def test_a_file_with_a_lesser_defect_is_read(tmp_path, data_set, exercise, defect):
    recording = read_recording(one_file(tmp_path, defect, data_set, exercise=exercise))
    (tmp_path / "sound").mkdir()
    sound = read_recording(one_file(tmp_path / "sound", "", data_set, exercise=exercise))
    rows = len(recording.emg)
    lost = {"emg-row-longer": 1, "emg-row-shorter": 1}.get(defect, 0)
    assert rows == len(sound.emg) - lost
    assert np.allclose(recording.emg, sound.emg[:rows], rtol=1e-6)
    assert np.array_equal(recording.gesture, sound.gesture[:rows])
    assert len(recording.pose_valid) == len(recording.trial) == rows
    if recording.pose is not None:
        assert len(recording.pose) == rows
        assert np.isfinite(recording.pose).all()


def test_rows_where_the_glove_is_not_a_number_are_without_valid_pose(tmp_path):
    recording = read_recording(one_file(tmp_path, "nan-glove"))
    rows = len(recording.emg)
    bad = np.zeros(rows, bool)
    bad[rows // 3 : rows // 2] = True
    assert np.array_equal(recording.pose_valid, ~bad)


def test_labels_that_run_on_and_labels_that_restart_name_the_same_movement(sound):
    one_arm = {
        data_set: [r for r in open_recordings(sound[data_set]) if r.user == "s1"][1]
        for data_set in ("db1", "db2", "db5", "db7")
    }
    assert one_arm["db1"].gesture.max() == one_arm["db5"].gesture.max() == 14  # 12 before it
    assert one_arm["db2"].gesture.max() == one_arm["db7"].gesture.max() == 19  # 17 before it
    named = {k: r.gestures[r.gesture.max()] for k, r in one_arm.items()}
    assert named["db1"] == named["db5"] == EXERCISE_B[1]
    assert named["db2"] == named["db7"] == EXERCISE_C[1]


def test_the_ring_of_a_left_handed_subject_is_reversed_from_the_second_electrode_on(tmp_path):
    path = one_file(tmp_path, subject=4)
    mirrored = read_recording(path)
    recorded = read_recording(path, options=AS_RECORDED)
    order = [0, 7, 6, 5, 4, 3, 2, 1, 8, 9, 10, 11]
    assert np.array_equal(mirrored.emg, recorded.emg[:, order])
    assert np.array_equal(mirror_ring(mirrored.emg, 8), recorded.emg)
    assert (mirrored.remarks, recorded.remarks) == ((MIRRORED,), (NOT_MIRRORED,))


def test_arms_of_both_sides_lie_alike_after_mirroring(tmp_path):
    """Subjects 4 (left) and 5 of DB2: a movement drives the same electrodes of the ring."""
    brief = Protocol(movements=12, repetitions=1, hold_s=0.5, rest_s=0.3)
    files = write_ninapro(tmp_path / "a", "db2", (4, 5), protocol=brief)

    def activity(subject, options):
        r = read_recording(files[3 * (subject - 4)], options=options)
        level = np.stack([np.log(r.emg[r.gesture == g, :8].std(axis=0)) for g in range(1, 13)])
        return (level - level.mean(axis=0)).ravel()

    right = activity(5, AS_RECORDED)
    mirrored, recorded = (
        np.corrcoef(activity(4, options), right)[0, 1] for options in (ReadOptions(), AS_RECORDED)
    )
    assert mirrored > recorded + 0.2


@pytest.mark.parametrize(
    ("data_set", "left"), [("db1", []), ("db2", [4, 13]), ("db5", []), ("db7", [1, 4])]
)
def test_only_the_subjects_known_to_be_left_handed_are_mirrored(tmp_path, data_set, left):
    files = write_ninapro(tmp_path / "a", data_set, (1, 4, 13), protocol=BRIEF)
    mirrored = {r.user for f in files if MIRRORED in (r := read_recording(f)).remarks}
    assert mirrored == {f"s{subject}" for subject in left}


def test_a_file_called_as_in_db3_is_not_taken_for_a_left_handed_subject_of_db2(tmp_path):
    path = one_file(tmp_path, subject=4)
    renamed = path.rename(path.with_name("S4_A1_E1.mat"))
    assert read_recording(renamed).remarks == ()


def test_amputees_are_marked(tmp_path):
    files = write_ninapro(tmp_path / "a", "db7", (20, 21, 22), protocol=BRIEF)
    marked = {r.user for f in files if AMPUTEE in (r := read_recording(f)).remarks}
    assert marked == {"s21", "s22"}


def test_info_says_who_was_mirrored_and_who_is_an_amputee(tmp_path):
    write_ninapro(tmp_path / "a", "db7", (1, 2, 4, 21), protocol=BRIEF)
    summary = describe(tmp_path / "a")
    assert summary.remarks == (f"s1, s4: {MIRRORED}", f"s21: {AMPUTEE}")
    assert summary.synthetic


def test_gloves_of_18_and_22_sensors_are_read_as_18_when_asked_for(tmp_path):
    files = write_ninapro(tmp_path / "a", "db7", (2,), 0, {(2, 2): "glove-18"}, BRIEF)
    assert [require_pose(read_recording(f)).shape[1] for f in files] == [22, 18]
    common = ReadOptions(glove_sensors=18)
    long, short = (read_recording(f, options=common) for f in files)
    assert long.pose.shape[1] == short.pose.shape[1] == 18
    kept = [i for i, name in enumerate(GLOVE_SENSORS) if "DIP" not in name]
    assert np.array_equal(long.pose, read_recording(files[0]).pose[:, kept])
    assert np.array_equal(short.pose, read_recording(files[1]).pose)


def study_of_gloves(folder, *overrides):
    config = load_config(
        PRESETS / "raw.toml",
        [f"data.path={folder}", f"data.cache={folder.parent / 'cache'}", "data.window_ms=300",
         "data.unseen_count=2", *overrides],
    )  # fmt: skip
    return make_study(config, read_all(folder, data=config.data), folder.name)


def test_a_study_of_mixed_gloves_is_refused_or_made_of_their_common_sensors(tmp_path, caplog):
    brief = Protocol(movements=4, repetitions=2, hold_s=0.5, rest_s=0.3)
    folder = tmp_path / "a"
    write_ninapro(folder, "db7", (2, 3, 4), 0, {(3, 2): "glove-18"}, brief)
    with pytest.raises(RecordingError, match=r"'glove'.* 22 in S4_E2_A1 and 18 in S3_E2_A1") as e:
        study_of_gloves(folder)
    assert "\n" not in str(e.value)
    caplog.clear()
    study = study_of_gloves(folder, "data.glove_sensors=18")
    assert study.plan.joints == 18
    assert study.training_windows().pose(np.arange(4)).shape[:2] == (4, 18)
    assert [record.getMessage() for record in caplog.records] == [
        f"s2, s3, s4: {LEFT_OUT}", f"s4: {MIRRORED}",
    ]  # fmt: skip


def test_check_names_the_file_with_the_other_glove(tmp_path):
    write_ninapro(tmp_path / "a", "db7", (2, 3), 0, {(3, 2): "glove-18"}, BRIEF)
    odd = [f for f in check(tmp_path / "a") if "pose of" in f.text]
    assert [(f.severity, f.file) for f in odd] == [("warning", "S3_E2_A1.mat")]
    assert "18 values, but most files here have 22" in odd[0].text
    assert "data.glove_sensors=18" in odd[0].action


def test_a_glove_of_another_width_is_refused(tmp_path):
    path = one_file(tmp_path)
    values = {k: v for k, v in scipy.io.loadmat(path).items() if not k.startswith("__")}
    scipy.io.savemat(path, values | {"glove": values["glove"][:, :20]})
    with pytest.raises(RecordingError, match=r"^S1_E1_A1\.mat: .*'glove', got 20"):
        read_recording(path)


def test_a_folder_with_one_bad_file_still_shows_all_that_is_wrong(tmp_path):
    planted = {(1, 1): "truncated", (1, 2): "missing-glove", (2, 1): "missing-emg"}
    write_ninapro(tmp_path / "a", "db2", (1, 2), 0, planted, BRIEF)
    errors = {f.file: f.text for f in check(tmp_path / "a") if f.severity == "error"}
    assert "truncated" in errors["S1_E1_A1.mat"]
    assert errors["S1_E2_A1.mat"] == "no hand pose"
    assert "'emg'" in errors["S2_E1_A1.mat"]

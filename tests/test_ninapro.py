"""NinaPro files of every supported set, generated in their layout; real DB1 where it is present."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from embridge.device.errors import RecordingError
from embridge.device.ninapro import EXERCISE_A, EXERCISE_B, EXERCISE_C
from embridge.device.recordings import REST, find_recordings, read_recording, require_pose

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "ninapro_db1_e1"


def protocol(labels, repetitions, run=20, pause=10):
    """Label and repetition columns, (T, 1) u1: pause, movement, pause, ..."""
    stimulus, repetition = [np.zeros(pause)], [np.zeros(pause)]
    for label in labels:
        for number in range(1, repetitions + 1):
            stimulus += [np.full(run, label), np.zeros(pause)]
            repetition += [np.full(run + pause, number)]  # runs on in rest, as in the real files
    columns = (np.concatenate(stimulus), np.concatenate(repetition))
    return tuple(column[:, None].astype(np.uint8) for column in columns)


def mat(path, channels, labels, *, glove=22, exercise=1, subject=3, repetitions=6, **extra):
    """Write a .mat file of the layout; `extra` adds variables, None removes one."""
    stimulus, repetition = protocol(labels, repetitions)
    rows = len(stimulus)
    random = np.random.default_rng(0)
    values = {
        "emg": random.normal(size=(rows, channels)),
        "stimulus": np.roll(stimulus, -3, axis=0), "restimulus": stimulus,
        "repetition": np.roll(repetition, -3, axis=0), "rerepetition": repetition,
        "subject": np.uint8([[subject]]), "exercise": np.uint8([[exercise]]),
        "glove": random.uniform(20, 200, (rows, glove)) if glove else None,
    }  # fmt: skip
    values |= extra
    scipy.io.savemat(path, {k: v for k, v in values.items() if v is not None}, do_compression=True)
    return path


def names_used(recording):
    return {recording.gestures[number] for number in np.unique(recording.gesture)}


def test_db1_is_an_envelope_at_100_hz_with_finger_movements(tmp_path):
    recording = read_recording(mat(tmp_path / "S3_A1_E1.mat", 10, range(1, 13), repetitions=10))
    assert (recording.source, recording.rate_hz, recording.is_envelope) == (
        "ninapro-db1", 100.0, True,
    )  # fmt: skip
    assert (recording.user, recording.name) == ("s3", "S3_A1_E1")
    assert recording.pose.shape[1] == 22
    assert recording.pose_unit == "raw glove"
    assert names_used(recording) == {REST, *EXERCISE_A}
    assert recording.trial.max() == 120


@pytest.mark.parametrize(("exercise", "names"), [(1, EXERCISE_A), (2, EXERCISE_B), (3, EXERCISE_C)])
@pytest.mark.parametrize("channels", [10, 16])
def test_labels_that_restart_are_told_apart_by_exercise(tmp_path, channels, exercise, names):
    path = mat(tmp_path / "f.mat", channels, range(1, len(names) + 1), exercise=exercise)
    recording = read_recording(path)
    assert names_used(recording) == {REST, *names}
    assert len(recording.gestures) == 1 + 12 + 17 + 23


def test_db5_is_raw_myo_counts_at_200_hz(tmp_path):
    recording = read_recording(mat(tmp_path / "S1_E1_A1.mat", 16, [1, 2]))
    assert (recording.source, recording.rate_hz, recording.is_envelope) == (
        "ninapro-db5", 200.0, False,
    )  # fmt: skip
    assert recording.emg_unit_per_count == 1.0


def test_db2_labels_run_on_over_exercises_and_rows_are_cut_to_the_shortest(tmp_path):
    stimulus, repetition = protocol(range(18, 41), 6)
    path = mat(
        tmp_path / "S3_E2_A1.mat", 12, range(18, 41), exercise=2, acc=np.zeros((9, 36)),
        inclin=np.zeros((9, 2)), restimulus=stimulus[:-1], rerepetition=repetition[:-1],
    )  # fmt: skip
    recording = read_recording(path)
    assert (recording.source, recording.rate_hz) == ("ninapro-db2", 2000.0)
    assert len(recording.emg) == len(stimulus) - 1 == len(recording.pose) == len(recording.trial)
    assert names_used(recording) == {REST, *EXERCISE_C}
    assert len(recording.gestures) == 50
    assert np.array_equal(recording.gesture, stimulus[:-1, 0])


@pytest.mark.parametrize("glove", [18, 22])
def test_db7_is_known_by_its_inertial_sensors(tmp_path, glove):
    inertial = {name: np.zeros((9, 36)) for name in ("acc", "gyro", "mag")}
    recording = read_recording(mat(tmp_path / "f.mat", 12, range(1, 18), glove=glove, **inertial))
    assert recording.source == "ninapro-db7"
    assert require_pose(recording).shape[1] == glove
    assert len(recording.gestures) == 41


def test_db7_is_known_by_a_glove_of_18_columns_alone(tmp_path):
    assert read_recording(mat(tmp_path / "f.mat", 12, [1], glove=18)).source == "ninapro-db7"


def test_a_folder_name_never_decides_which_set_a_file_is_of(tmp_path):
    (tmp_path / "DB7").mkdir()
    assert read_recording(mat(tmp_path / "DB7" / "f.mat", 12, [1])).source == "ninapro-db2"


def test_a_file_without_glove_is_read_but_not_fit_for_training(tmp_path):
    recording = read_recording(mat(tmp_path / "S3_A1_E1.mat", 10, [1, 2], glove=None))
    assert recording.pose is None
    assert not recording.pose_valid.any()
    with pytest.raises(RecordingError, match=r"S3_A1_E1: has no hand pose \(no 'glove' variable\)"):
        require_pose(recording)


def test_the_glove_of_the_force_exercise_is_not_valid(tmp_path):
    path = mat(tmp_path / "S3_E3_A1.mat", 12, range(41, 50), exercise=3, force=np.zeros((9, 6)))
    recording = read_recording(path)
    assert not recording.pose_valid.any()
    assert "movement_49" in names_used(recording)


def test_every_trial_is_one_stretch_of_one_gesture_and_rest_is_none(tmp_path):
    recording = read_recording(mat(tmp_path / "f.mat", 12, [1, 2, 3]))
    assert np.array_equal(recording.trial > 0, recording.gesture > 0)
    assert np.array_equal(recording.repetition > 0, recording.gesture > 0)
    for number in range(1, recording.trial.max() + 1):
        rows = np.flatnonzero(recording.trial == number)
        assert np.array_equal(rows, np.arange(rows[0], rows[-1] + 1))
        assert len(np.unique(recording.gesture[rows])) == 1
        assert len(np.unique(recording.repetition[rows])) == 1


def test_repetitions_without_rest_between_them_are_two_trials(tmp_path):
    column = np.ones((40, 1), np.uint8)
    number = np.repeat([1, 2], 20)[:, None].astype(np.uint8)
    path = mat(
        tmp_path / "f.mat", 10, [1], emg=np.ones((40, 10)), glove=None, restimulus=column,
        rerepetition=number,
    )  # fmt: skip
    assert read_recording(path).trial.tolist() == [1] * 20 + [2] * 20


def test_plain_labels_stand_in_where_there_are_no_relabelled_ones(tmp_path):
    path = mat(tmp_path / "f.mat", 10, [1], restimulus=None, rerepetition=None)
    stimulus = scipy.io.loadmat(path)["stimulus"].ravel()
    assert np.array_equal(read_recording(path).gesture, stimulus)


def test_the_file_name_gives_user_and_exercise_where_the_variables_are_absent(tmp_path):
    path = tmp_path / "S12_A1_E2.mat"
    bare = {"emg": np.ones((9, 10)), "stimulus": np.ones((9, 1)), "repetition": np.ones((9, 1))}
    scipy.io.savemat(path, bare)
    recording = read_recording(path)
    assert recording.user == "s12"
    assert names_used(recording) == {EXERCISE_B[0]}
    scipy.io.savemat(tmp_path / "renamed.mat", bare)
    with pytest.raises(RecordingError, match=r"S1_A1_E1\.mat"):
        read_recording(tmp_path / "renamed.mat")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_truncated_file_is_refused_in_one_line(tmp_path, share, compressed):
    path = mat(tmp_path / "S1_A1_E1.mat", 10, range(1, 13))
    if not compressed:
        values = scipy.io.loadmat(path)
        kept = {k: v for k, v in values.items() if not k.startswith("__")}
        scipy.io.savemat(path, kept, do_compression=False)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RecordingError, match=r"^S1_A1_E1\.mat: ") as e:
        read_recording(path)
    assert "\n" not in str(e.value)


def test_text_under_the_suffix_mat_is_refused(tmp_path):
    (tmp_path / "a.mat").write_text("not a MATLAB file " * 40)
    with pytest.raises(RecordingError, match=r"^a\.mat: cannot be read as MATLAB"):
        read_recording(tmp_path / "a.mat")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"emg": None}, "variable 'emg'"),
        ({"emg": np.ones((50, 8))}, "got 8"),
        ({"emg": np.array(["text"] * 50)}, "numeric matrix"),
        ({"restimulus": None, "stimulus": None}, "'restimulus' or 'stimulus'"),
        ({"restimulus": np.full((99, 1), 13, np.uint8)}, "labels 0..12"),
        ({"exercise": np.uint8([[4]])}, "exercise 1..3"),
    ],
)
def test_a_file_that_is_not_of_a_known_set_is_refused(tmp_path, change, words):
    stimulus, repetition = protocol([1], 6)
    values = {
        "emg": np.ones((len(stimulus), 10)), "stimulus": stimulus, "restimulus": stimulus,
        "repetition": repetition, "rerepetition": repetition, "subject": 1, "exercise": 1,
    }  # fmt: skip
    values |= change
    scipy.io.savemat(tmp_path / "a.mat", {k: v for k, v in values.items() if v is not None})
    with pytest.raises(RecordingError, match=words):
        read_recording(tmp_path / "a.mat")


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is absent")
def test_every_real_db1_file_holds_12_gestures_times_10_repetitions():
    files = find_recordings(REAL)
    numbers = [int(path.name[1:].split("_")[0]) for path in files]
    assert numbers == sorted(numbers)
    for path, number in zip(files, numbers, strict=True):
        recording = read_recording(path)
        assert recording.user == f"s{number}"
        assert require_pose(recording).shape == (len(recording.emg), 22)
        moving = recording.trial > 0
        trials = np.unique(
            np.stack([recording.gesture, recording.repetition, recording.trial])[:, moving], axis=1
        )
        assert trials.shape[1] == recording.trial.max() == 120
        pairs = {(int(gesture), int(repetition)) for gesture, repetition, _ in trials.T}
        assert pairs == {(g, r) for g in range(1, 13) for r in range(1, 11)}

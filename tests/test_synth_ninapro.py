"""Generated NinaPro folders: names, shapes and labels of the real ones, reproducible."""

import numpy as np
import pytest
import scipy.io

from embridge.device.errors import ConfigError
from embridge.device.ninapro import EXERCISE_A, EXERCISE_B, EXERCISE_C
from embridge.device.recordings import REST, open_recordings
from embridge.training.synth_ninapro import LAYOUTS, Protocol, write_ninapro

BRIEF = Protocol(movements=2, repetitions=2, hold_s=0.4, rest_s=0.4)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Folder of each set, by name, of subjects 1 and 2 and without defects."""
    folders = {name: tmp_path_factory.mktemp("sound") / name for name in LAYOUTS}
    for name, folder in folders.items():
        write_ninapro(folder, name, (1, 2), protocol=BRIEF)
    return folders


@pytest.mark.parametrize("data_set", LAYOUTS)
def test_labels_emg_and_glove_of_a_generated_file_belong_together(sound, data_set):
    recording = next(iter(open_recordings(sound[data_set])))
    moving = recording.gesture > 0
    strength = np.abs(recording.emg[:, :8]).mean(axis=1)
    assert strength[moving].mean() > 1.5 * strength[~moving].mean()
    mean = {g: recording.pose[recording.gesture == g].mean(axis=0) for g in range(3)}
    spread = recording.pose[recording.gesture == 1].std(axis=0).mean()
    assert np.abs(mean[1] - mean[2]).max() > 3 * spread
    assert np.abs(mean[1] - mean[0]).max() > 3 * spread


def test_the_whole_protocol_has_every_label_of_its_exercise(tmp_path):
    brief = Protocol(repetitions=1, hold_s=0.2, rest_s=0.2)
    write_ninapro(tmp_path / "db1", "db1", (3,), protocol=brief)
    used = [
        {r.gestures[g] for g in np.unique(r.gesture)} for r in open_recordings(tmp_path / "db1")
    ]
    assert used == [{REST, *names} for names in (EXERCISE_A, EXERCISE_B, EXERCISE_C)]


def test_variables_have_the_names_and_shapes_of_the_real_files(sound):
    wanted = {
        "db1/S1_A1_E1.mat": {"emg": 10, "glove": 22},
        "db2/DB2_s1/S1_E1_A1.mat": {"emg": 12, "acc": 36, "inclin": 2, "glove": 22},
        "db2/DB2_s1/S1_E3_A1.mat": {"emg": 12, "acc": 36, "inclin": 2, "glove": 22, "force": 6},
        "db5/s1/S1_E1_A1.mat": {"emg": 16, "acc": 3, "glove": 22},
        "db7/Subject_1/S1_E1_A1.mat": {"emg": 12, "acc": 36, "gyro": 36, "mag": 36, "glove": 22},
    }
    labels = ("stimulus", "restimulus", "repetition", "rerepetition")
    for name, columns in wanted.items():
        data_set, _, path = name.partition("/")
        values = scipy.io.loadmat(sound[data_set] / path)
        rows = len(values["emg"])
        for key, count in (columns | dict.fromkeys(labels, 1)).items():
            assert values[key].shape == (rows, count), (name, key)
        assert all(values[key].dtype == np.uint8 for key in (*labels, "subject", "exercise"))
        assert values["emg"].dtype == values["glove"].dtype == np.float64
        assert ("forcecal" in values) == ("force" in columns)


def test_the_same_seed_gives_the_same_bytes_and_a_missing_file_is_made_again(tmp_path):
    files = write_ninapro(tmp_path / "a", "db5", (1,), 3, protocol=BRIEF)
    again = write_ninapro(tmp_path / "b", "db5", (1,), 3, protocol=BRIEF)
    other = write_ninapro(tmp_path / "c", "db5", (1,), 4, protocol=BRIEF)
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in again] == before
    assert other[0].read_bytes() != before[0]
    files[1].unlink()
    assert write_ninapro(tmp_path / "a", "db5", (1,), 3, protocol=BRIEF) == files
    assert [file.read_bytes() for file in files] == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_set": "db6"}, "db1, db2, db5, db7"),
        ({"subjects": ()}, "at least one"),
        ({"subjects": (0,)}, "1 to 255"),
        ({"defects": {(1, 1): "rust"}}, "got rust"),
        ({"defects": {(9, 1): "glove-18"}}, "subject 9"),
        ({"defects": {(1, 4): "glove-18"}}, "exercise 4"),
        ({"protocol": Protocol(repetitions=0)}, "counts from 1"),
        ({"protocol": Protocol(hold_s=0.0)}, "0.2 s"),
    ],
)
def test_unusable_arguments_of_the_generator_are_refused(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words) as error:
        write_ninapro(tmp_path / "out", **({"data_set": "db2"} | change))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layout", "db6"], "expected a layout out of db1, db2, db5, db7, got 'db6'"),
        (["--layout", "db2", "--metadata"], "only emg2pose has it"),
    ],
)
def test_the_command_line_refuses_what_a_layout_does_not_have(cli, tmp_path, arguments, words):
    code, _, err = cli("data", "synth", tmp_path / "out", *arguments)
    assert code != 0
    assert [line for line in err.splitlines() if words in line]
    assert not (tmp_path / "out").exists()

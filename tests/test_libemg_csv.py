"""libemg's CSV files of a Myo: EMG without pose; the real ones where they are present."""

import numpy as np
import pytest

from embridge.device.data_check import check, describe
from embridge.device.errors import RecordingError
from embridge.device.recordings import find_recordings, read_recording, require_pose


def write(path, rows=300, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    counts = np.random.default_rng(seed).normal(0, 20, (rows, 8)).round().clip(-128, 127)
    np.savetxt(path, counts, fmt="%d", delimiter=",")
    return path, counts


def test_a_file_is_one_trial_of_its_class_without_pose(tmp_path):
    path, counts = write(tmp_path / "anna" / "R_2_C_4_EMG.csv")
    recording = read_recording(path)
    assert np.array_equal(recording.emg, counts)
    assert (recording.source, recording.rate_hz, recording.emg_unit_per_count) == (
        "libemg-myo", 200.0, 1.0,
    )  # fmt: skip
    assert (recording.user, recording.session) == ("anna", "1")
    assert recording.gestures == ("class_4",)
    assert set(recording.gesture) == {0}
    assert set(recording.trial) == {1}
    assert set(recording.repetition) == {3}
    assert recording.pose is None
    with pytest.raises(RecordingError, match="no hand pose"):
        require_pose(recording)


def test_the_sessions_of_one_person_are_not_taken_for_people(tmp_path):
    for folder in ("anna/trial_1", "anna/trial_2", "ben/Session3"):
        write(tmp_path / folder / "R_0_C_0.csv")
    recordings = [read_recording(path) for path in find_recordings(tmp_path)]
    assert [(r.user, r.session) for r in recordings] == [
        ("anna", "trial_1"), ("anna", "trial_2"), ("ben", "Session3"),
    ]  # fmt: skip


def test_other_csv_files_are_not_recordings(tmp_path):
    write(tmp_path / "R_0_C_0_EMG.csv")
    (tmp_path / "metadata.csv").write_text("filename,user\na,b\n")
    assert [path.name for path in find_recordings(tmp_path)] == ["R_0_C_0_EMG.csv"]
    with pytest.raises(RecordingError, match=r"got 'metadata\.csv'"):
        find_recordings(tmp_path / "metadata.csv")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"\(0,\)"),
        ("1,2,3,4,5,6,7,8\n1,2,3", "truncated file"),
        ("1,2,3,4,5,6,7\n" * 9, r"\(9, 7\)"),
        ("a,b,c,d,e,f,g,h\n1,2,3,4,5,6,7,8\n", "comma-separated numbers"),
        ("1,2,3,4,5,6,7,128\n", "-128..127"),
        ("1,2,3,4,5,6,7,0.5\n", "whole Myo counts"),
        ("1,2,3,4,5,6,7,nan\n", "whole Myo counts"),
    ],
)
def test_what_is_not_of_a_myo_is_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "R_0_C_1_EMG.csv"
    path.write_text(text)
    with pytest.raises(RecordingError, match=rf"^R_0_C_1_EMG\.csv: .*{words}") as error:
        read_recording(path)
    assert "\n" not in str(error.value)


def test_a_set_without_pose_is_fit_for_probing_and_check_says_so(tmp_path):
    for repetition in range(2):
        for label in range(3):
            write(tmp_path / f"R_{repetition}_C_{label}.csv", seed=9 * repetition + label)
    findings = check(tmp_path)
    assert {(f.severity, f.text) for f in findings} == {("warning", "no hand pose")}
    assert all("linear probe" in f.action for f in findings)


def test_the_real_myo_set_has_five_classes_of_four_repetitions(shared_data):
    folder = shared_data / "libemg_myo"
    summary = describe(folder)
    assert (summary.files, summary.sources, summary.users) == (20, ("libemg-myo",), ("libemg_myo",))
    assert (summary.channels, summary.rates_hz, summary.pose_joints) == ((8,), (200.0,), (0,))
    assert set(summary.gesture_seconds) == {f"class_{label}" for label in range(5)}
    assert all(11.5 < seconds < 12.5 for seconds in summary.gesture_seconds.values())
    repetitions = {int(read_recording(p).repetition[0]) for p in find_recordings(folder)}
    assert repetitions == {1, 2, 3, 4}
    assert not [f for f in check(folder) if f.severity == "error"]

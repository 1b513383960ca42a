"""Finding, reading and writing recordings; emg2pose's own test file where it is present."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge.device.emg2pose import JOINT_NAMES, read_emg2pose, write_emg2pose
from embridge.device.errors import RecordingError
from embridge.device.recordings import (
    UNLABELLED,
    Recording,
    find_recordings,
    open_recordings,
    read_recording,
    require_pose,
)

FIXTURE = (
    Path(__file__).resolve().parents[2] / "shared" / "data" / "emg2pose_fixture" / "test_data.hdf5"
)


def make_recording(samples=400, channels=16, joints=20, seed=0):
    random = np.random.default_rng(seed)
    gesture = np.repeat([0, 1, UNLABELLED, 1], samples // 4).astype(np.int16)
    return Recording(
        name="rec",
        source="serial",
        user="u1",
        session="s1",
        rate_hz=2000.0,
        emg=random.normal(0, 40, (samples, channels)).astype(np.float32),
        emg_unit="uV",
        is_envelope=False,
        pose=random.normal(0.5, 0.2, (samples, joints)).astype(np.float32),
        pose_unit="rad",
        pose_valid=np.ones(samples, bool),
        gestures=("rest", "fist"),
        gesture=gesture,
        trial=np.where(gesture == 1, 2, 0).astype(np.int32),
        repetition=np.where(gesture == 1, 1, 0).astype(np.int16),
        emg_unit_per_count=0.25,
        synthetic=True,
        measured_rate_hz=2000.0,
    )


def plain_file(path, samples=200, stage="ShakaVulcanPeace_both", columns=None, **attributes):
    """A file with exactly the layout of the data set."""
    layout = columns or [
        ("time", "<f8"),
        ("joint_angles", "<f8", (20,)),
        ("emg", "<f4", (16,)),
    ]
    rows = np.zeros(samples, np.dtype(layout))
    if "time" in rows.dtype.names:
        rows["time"] = 1.67e9 + np.arange(samples) / 2000
    if "joint_angles" in rows.dtype.names:
        rows["joint_angles"] = 0.4
        rows["joint_angles"][: samples // 4] = 0.0
    rows["emg"] = np.random.default_rng(0).normal(0, 30, rows["emg"].shape)
    known = {
        "filename": path.stem, "session": "sess", "stage": stage, "user": "u7", "side": "left",
        "start": 1.67e9, "end": 1.67e9 + samples / 2000, "num_channels": 16, "sample_rate": 2000.0,
    }  # fmt: skip
    known |= attributes
    with h5py.File(path, "w") as file:
        group = file.create_group("emg2pose")
        group["timeseries"] = rows
        group.attrs.update({key: value for key, value in known.items() if value is not None})
    return path


def assert_same(got, want):
    for field in dataclasses.fields(Recording):
        a, b = getattr(got, field.name), getattr(want, field.name)
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype, field.name
            assert np.array_equal(a, b), field.name
        elif field.name == "measured_rate_hz":
            assert a == pytest.approx(b, rel=1e-6)
        else:
            assert a == b, field.name


@settings(max_examples=15, deadline=None)
@given(
    channels=st.integers(1, 20),
    joints=st.sampled_from([None, 1, 20, 22]),
    samples=st.sampled_from([4, 400, 5000]),
)
def test_what_was_written_is_read_back_bit_for_bit(tmp_path_factory, channels, joints, samples):
    recording = make_recording(samples, channels, joints or 20)
    if joints is None:
        recording = dataclasses.replace(recording, pose=None, pose_valid=np.zeros(samples, bool))
    path = tmp_path_factory.mktemp("rec") / "rec.hdf5"
    write_emg2pose(path, recording)
    assert_same(read_recording(path), recording)


def test_rows_without_valid_pose_stay_invalid_through_a_file(tmp_path):
    recording = make_recording()
    recording.pose_valid[10:60] = False
    write_emg2pose(tmp_path / "rec.hdf5", recording)
    got = read_recording(tmp_path / "rec.hdf5")
    assert np.array_equal(got.pose_valid, recording.pose_valid)
    assert not got.pose[10:60].any()


def test_a_written_file_has_the_columns_and_attributes_of_the_data_set(tmp_path):
    write_emg2pose(tmp_path / "a.hdf5", make_recording(), side="right", start_s=5.0)
    with h5py.File(tmp_path / "a.hdf5") as file:
        group = file["emg2pose"]
        kinds = {name: group["timeseries"].dtype[name].str for name in ("time",)}
        assert kinds == {"time": "<f8"}
        assert group["timeseries"].dtype["joint_angles"].subdtype == (np.dtype("<f8"), (20,))
        assert group["timeseries"].dtype["emg"].subdtype == (np.dtype("<f4"), (16,))
        attributes = dict(group.attrs)
    assert attributes["filename"] == "a"
    assert attributes["side"] == "right"
    assert attributes["end"] - attributes["start"] == pytest.approx(0.2)
    assert isinstance(attributes["num_channels"], np.int64)
    assert isinstance(attributes["sample_rate"], np.float64)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "rec.hdf5"
    write_emg2pose(path, make_recording())
    before = path.read_bytes()
    broken = dataclasses.replace(make_recording(), user={"not": "storable"})
    with pytest.raises(TypeError):
        write_emg2pose(path, broken)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_plain_file_is_one_trial_of_its_stage_in_uv_and_rad(tmp_path):
    recording = read_recording(plain_file(tmp_path / "a.hdf5"))
    assert recording.gestures == ("ShakaVulcanPeace",)
    assert set(recording.gesture) == {0}
    assert set(recording.trial) == set(recording.repetition) == {1}
    assert (recording.emg_unit, recording.pose_unit) == ("uV", "rad")
    assert (recording.user, recording.session, recording.source) == ("u7", "sess", "emg2pose")
    assert not recording.synthetic
    assert recording.rate_hz == pytest.approx(recording.measured_rate_hz, rel=1e-4)


def test_rows_of_zero_angles_are_failed_tracking(tmp_path):
    recording = read_recording(plain_file(tmp_path / "a.hdf5", samples=200))
    assert not recording.pose_valid[:50].any()
    assert recording.pose_valid[50:].all()


@pytest.mark.skipif(not FIXTURE.exists(), reason=f"{FIXTURE.parent} is absent")
def test_emg2poses_own_test_file_is_read():
    recording = read_recording(FIXTURE)
    assert recording.emg.shape == (100, 16)
    assert recording.pose.shape == (100, len(JOINT_NAMES))
    assert recording.gestures == ("IndividualFingerPointingSnap",)
    assert recording.user == "d387095792"
    with h5py.File(FIXTURE) as file:
        rows = file["emg2pose/timeseries"][:]
    assert np.array_equal(recording.emg, rows["emg"])
    assert np.array_equal(recording.pose, rows["joint_angles"].astype(np.float32))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98])
def test_a_truncated_file_is_refused_in_one_line(tmp_path, share):
    write_emg2pose(tmp_path / "x.hdf5", make_recording(4000))
    whole = (tmp_path / "x.hdf5").read_bytes()
    (tmp_path / "x.hdf5").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(RecordingError, match=r"^x\.hdf5: cannot be read as HDF5.*expected") as e:
        read_recording(tmp_path / "x.hdf5")
    assert "\n" not in str(e.value)


FAULTS = {
    "channels": ({"num_channels": 12}, "num_channels = 12"),
    "rate": ({"sample_rate": None}, "sample_rate"),
    "rate 0": ({"sample_rate": 0.0}, "above 0 Hz"),
    "no user": ({"user": None}, "user"),
    "no emg": ({"samples": 0}, r"\(0,\) rows"),
    "joints": (
        {"columns": [("time", "<f8"), ("joint_angles", "<f8", (19,)), ("emg", "<f4", (16,))]},
        "20 joint angles",
    ),
    "time": ({"columns": [("joint_angles", "<f8", (20,)), ("emg", "<f4", (16,))]}, "time"),
    "scalar emg": (
        {"columns": [("time", "<f8"), ("joint_angles", "<f8", (20,)), ("emg", "<f4")]},
        "columns of emg",
    ),
    "gestures": (
        {"columns": [("time", "<f8"), ("emg", "<f4", (16,)), ("gesture", "<i2")], "gestures": "["},
        "JSON",
    ),
    "numbers": (
        {"columns": [("time", "<f8"), ("emg", "<f4", (16,)), ("gesture", "<i2")], "gestures": "[]"},
        "gesture numbers",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_with_a_broken_layout_is_refused_in_one_line(tmp_path, fault):
    change, words = FAULTS[fault]
    path = plain_file(tmp_path / "a.hdf5", **change)
    with pytest.raises(RecordingError, match=rf"^a\.hdf5: expected .*{words}") as e:
        read_recording(path)
    assert "\n" not in str(e.value)


def test_another_kind_of_hdf5_is_refused_by_what_it_holds(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["weights"] = [1.0]
    with pytest.raises(RecordingError, match="weights"):
        read_recording(tmp_path / "a.h5")


def test_time_that_runs_backwards_is_refused_with_its_row(tmp_path):
    path = plain_file(tmp_path / "a.hdf5")
    with h5py.File(path, "r+") as file:
        rows = file["emg2pose/timeseries"][:]
        rows["time"][120] -= 1.0
        file["emg2pose/timeseries"][:] = rows
    with pytest.raises(RecordingError, match="at row 120"):
        read_emg2pose(path)


def test_nan_in_emg_is_refused_unless_asked_for(tmp_path):
    recording = make_recording()
    recording.emg[37, 5] = np.nan
    write_emg2pose(tmp_path / "a.hdf5", recording)
    with pytest.raises(RecordingError, match="column 5, first at row 37"):
        read_recording(tmp_path / "a.hdf5")
    got = read_recording(tmp_path / "a.hdf5", allow_nonfinite=True)
    assert np.isnan(got.emg[37, 5])


def test_nan_in_pose_is_failed_tracking(tmp_path):
    recording = make_recording()
    recording.pose[3, 2] = np.nan
    write_emg2pose(tmp_path / "a.hdf5", recording)
    got = read_recording(tmp_path / "a.hdf5")
    assert not got.pose_valid[3]
    assert got.pose_valid.sum() == len(got.emg) - 1
    assert np.isfinite(got.pose).all()


def test_recordings_are_found_below_a_folder_in_natural_order(tmp_path):
    for name in ("b/S10.hdf5", "b/S2.h5", "b/S1.MAT", "a.hdf5", ".S3.hdf5.partial", ".S4.hdf5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "notes.txt").touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_recordings(tmp_path)]
    assert found == ["a.hdf5", "b/S1.MAT", "b/S2.h5", "b/S10.hdf5"]


def test_a_single_file_is_found_as_itself(tmp_path):
    path = plain_file(tmp_path / "a.hdf5")
    assert find_recordings(path) == [path]
    assert [recording.name for recording in open_recordings(path)] == ["a"]


@pytest.mark.parametrize("name", ["absent", "empty", "notes.txt"])
def test_a_path_without_recordings_is_refused_at_once(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RecordingError, match="emg2pose HDF5"):
        open_recordings(tmp_path / name)


def test_both_kinds_of_files_are_read_from_one_folder(tmp_path):
    plain_file(tmp_path / "a.hdf5")
    samples = np.ones((50, 1), np.uint8)
    scipy.io.savemat(
        tmp_path / "S1_A1_E1.mat",
        {"emg": np.ones((50, 10)), "restimulus": samples, "rerepetition": samples,
         "subject": 1, "exercise": 1},
    )  # fmt: skip
    sources = {recording.source for recording in open_recordings(tmp_path)}
    assert sources == {"emg2pose", "ninapro-db1"}


def test_a_recording_without_usable_pose_is_refused_for_training(tmp_path):
    recording = make_recording()
    assert require_pose(recording) is recording.pose
    without = dataclasses.replace(recording, pose=None)
    with pytest.raises(RecordingError, match=r"no 'joint_angles' column.*hand tracking"):
        require_pose(without)
    with pytest.raises(RecordingError, match=r"no 'glove' variable.*CyberGlove"):
        require_pose(dataclasses.replace(without, source="ninapro-db2"))
    failed = dataclasses.replace(recording, pose_valid=np.zeros(len(recording.emg), bool))
    with pytest.raises(RecordingError, match="no valid hand pose"):
        require_pose(failed)

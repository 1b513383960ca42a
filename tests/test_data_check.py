"""`check` finds each planted fault and nothing in a sound folder; `describe` adds up."""

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from embridge.device.data_check import Finding, check, check_recording, describe
from embridge.device.emg2pose import write_emg2pose
from embridge.device.errors import RecordingError
from embridge.device.recordings import Recording

REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "ninapro_db1_e1"


@pytest.fixture
def sound():
    """Two seconds of one trial of a fist, 16-bit counts as a wrist sends them."""
    random = np.random.default_rng(1)
    emg = np.round(random.normal(0, 40, (4000, 8)) / 0.25) * 0.25
    return Recording(
        name="a", source="serial", user="u1", session="s1", rate_hz=2000.0,
        emg=emg.astype(np.float32), emg_unit="uV", is_envelope=False,
        pose=random.normal(0.5, 0.1, (4000, 20)).astype(np.float32), pose_unit="rad",
        pose_valid=np.ones(4000, bool), gestures=("fist",), gesture=np.zeros(4000, np.int16),
        trial=np.ones(4000, np.int32), repetition=np.ones(4000, np.int16),
        measured_rate_hz=2000.0,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path, sound):
    """Two users with a trial each."""
    for user in ("u1", "u2"):
        write_emg2pose(tmp_path / f"{user}.hdf5", dataclasses.replace(sound, user=user))
    return tmp_path


def texts(findings, severity=None):
    return [finding.text for finding in findings if severity in (None, finding.severity)]


def test_a_sound_recording_has_no_findings(sound):
    assert check_recording(sound, "a") == []


def test_a_sound_folder_has_no_findings(folder):
    assert check(folder) == []


def with_emg(recording, change):
    emg = recording.emg.copy()
    change(emg)
    return dataclasses.replace(recording, emg=emg)


def test_missing_pose_is_an_error(sound):
    without = dataclasses.replace(sound, pose=None, pose_valid=np.zeros(4000, bool))
    (finding,) = check_recording(without, "a.hdf5")
    assert finding == Finding("error", "a.hdf5", "no hand pose", finding.action)


@pytest.mark.parametrize(("bad", "severity"), [(0.5, None), (0.6, "warning"), (1.0, "error")])
def test_failed_tracking_counts_from_half_of_the_samples(sound, bad, severity):
    sound.pose_valid[: int(bad * 4000)] = False
    found = check_recording(sound, "a")
    assert [finding.severity for finding in found] == ([severity] if severity else [])


def test_nan_is_an_error_that_names_its_channel(sound):
    def plant(emg):
        emg[7, 3] = np.nan

    (text,) = texts(check_recording(with_emg(sound, plant), "a"), "error")
    assert text.startswith("NaN or infinity in channel 3, 1 value")


def test_a_flat_channel_is_an_error(sound):
    def plant(emg):
        emg[:, [2, 5]] = 1.0

    assert texts(check_recording(with_emg(sound, plant), "a"), "error") == [
        "channels 2, 5 never changes"
    ]


@pytest.mark.parametrize("side", [1, -1])
def test_a_clipped_channel_is_a_warning_on_either_rail(sound, side):
    def plant(emg):
        emg[:, 4] = side * np.minimum(side * emg[:, 4], 60.0)

    (text,) = texts(check_recording(with_emg(sound, plant), "a"), "warning")
    assert text.startswith("channel 4 clipped in 6")


def test_few_levels_are_not_taken_for_clipping(sound):
    def plant(emg):
        emg[:] = np.round(emg / 40.0)

    assert check_recording(with_emg(sound, plant), "a") == []


def test_the_resting_level_of_an_envelope_is_not_taken_for_clipping(sound):
    envelope = with_emg(sound, lambda emg: np.maximum(emg, 10.0, out=emg))
    envelope = dataclasses.replace(envelope, is_envelope=True)
    assert check_recording(envelope, "a") == []


@pytest.mark.parametrize("mains_hz", [50, 60])
def test_hum_is_a_warning_that_names_frequency_and_channel(sound, mains_hz):
    def plant(emg):
        emg[:, 6] += 120 * np.sin(2 * np.pi * mains_hz * np.arange(4000) / 2000)

    (text,) = texts(check_recording(with_emg(sound, plant), "a"), "warning")
    # 120^2 / 2 of hum against the 43 % of 40^2 of noise that lie from 20 to 450 Hz
    assert text.startswith(f"{mains_hz} Hz hum holds 9")
    assert text.endswith("channel 6")


@pytest.mark.parametrize(("measured", "count"), [(2019.0, 0), (1981.0, 0), (2030.0, 1), (1.0, 1)])
def test_time_stamps_that_disagree_with_the_rate_are_a_warning(sound, measured, count):
    found = check_recording(dataclasses.replace(sound, measured_rate_hz=measured), "a")
    assert len(texts(found, "warning")) == count


def test_an_unreadable_file_does_not_stop_the_others_from_being_checked(folder, sound):
    (folder / "broken.hdf5").write_bytes((folder / "u1.hdf5").read_bytes()[:500])
    sound.pose_valid[:] = False
    write_emg2pose(folder / "z.hdf5", sound)
    errors = {f.file: f.text for f in check(folder) if f.severity == "error"}
    assert set(errors) == {"broken.hdf5", "z.hdf5"}
    assert "cannot be read as HDF5" in errors["broken.hdf5"]


def test_the_file_of_another_kind_is_named(folder, sound):
    odd = dataclasses.replace(sound, emg=sound.emg[:, :6], rate_hz=1000.0)
    write_emg2pose(folder / "0.hdf5", odd)
    (finding,) = check(folder)
    assert (finding.severity, finding.file) == ("error", "0.hdf5")
    assert "6 channels at 1000 Hz, but most files here have 8 at 2000 Hz" in finding.text


def test_a_gesture_with_one_trial_is_a_warning_and_rest_is_none(folder, sound):
    for name in ("horns", "rest"):
        write_emg2pose(folder / f"{name}.hdf5", dataclasses.replace(sound, gestures=(name,)))
    (finding,) = check(folder)
    assert (finding.severity, finding.file) == ("warning", "")
    assert finding.text.startswith("gesture 'horns' has 1 trial")


def test_time_stamps_of_a_real_layout_are_compared_to_its_rate(folder):
    with h5py.File(folder / "u1.hdf5", "r+") as file:
        file["emg2pose"].attrs["sample_rate"] = 2100.0
    assert any("time stamps say 2000 Hz" in text for text in texts(check(folder), "warning"))


def test_the_summary_adds_up(folder, sound):
    column = np.repeat([0, 3, 0, 3], 50)[:, None].astype(np.uint8)
    scipy.io.savemat(
        folder / "S12_A1_E1.mat",
        {"emg": np.random.default_rng(0).uniform(size=(200, 10)), "restimulus": column,
         "rerepetition": column, "subject": 12, "exercise": 1},
    )  # fmt: skip
    summary = describe(folder)
    assert summary.files == 3
    assert summary.sources == ("ninapro-db1", "serial")
    assert summary.users == ("s12", "u1", "u2")
    assert summary.gesture_seconds == {"fist": 4.0, "rest": 1.0, "middle_flexion": 1.0}
    assert summary.channels == (8, 10)
    assert summary.rates_hz == (100.0, 2000.0)
    assert summary.pose_joints == (0, 20)
    assert summary.hours == pytest.approx(6 / 3600)
    assert summary.pose_valid_share == pytest.approx(8000 / 8200)
    assert not summary.synthetic


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(RecordingError):
        check(tmp_path)
    with pytest.raises(RecordingError):
        describe(tmp_path)


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is absent")
def test_real_recordings_have_no_findings():
    assert check(REAL / "S1_A1_E1.mat") == []
    assert sum(describe(REAL / "S1_A1_E1.mat").gesture_seconds.values()) == pytest.approx(1010.14)

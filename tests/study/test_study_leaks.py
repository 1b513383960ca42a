"""No EMG of an unseen gesture reaches anything but the test; poses of none scale the joints."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embridge.device.frontend import fit_front_end, fit_profile
from embridge.device.recordings import UNLABELLED
from embridge.training.study import make_study


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1), power=st.integers(-3, 4))
def test_unseen_emg_changes_nothing_that_is_trained_fitted_or_taught(
    handmade, study, recordings, seed, power
):
    """Filters have a memory: what follows an unseen gesture must not carry its ringing either."""
    rng = np.random.default_rng(seed)
    changed = []
    for recording in recordings:
        emg, hidden = recording.emg.copy(), handmade.hidden(recording)
        emg[hidden] = rng.normal(5, 10.0**power, emg[hidden].shape)
        changed.append(dataclasses.replace(recording, emg=emg))
    again = make_study(handmade.configured(), changed, "handmade")
    assert again.plan == study.plan
    assert again.profiles == study.profiles
    for windows, others in (
        (study.training_windows(), again.training_windows()),
        (study.validation_windows(), again.validation_windows()),
    ):
        assert np.array_equal(handmade.inputs(study, windows), handmade.inputs(again, others))
        assert np.array_equal(windows.label, others.label)
    assert not np.array_equal(
        handmade.inputs(study, study.test_windows()), handmade.inputs(again, again.test_windows())
    )


def test_unseen_emg_of_a_training_user_is_not_given_out(handmade, study):
    windows = study.windows(
        study.plan.train_users, handmade.UNSEEN, handmade.TRAIN_HOP, need_pose=True
    )
    assert windows.pose(np.arange(3)).shape == (3, 4, handmade.WINDOW)
    with pytest.raises(ValueError, match="withheld"):
        windows.emg(np.arange(1))


def test_the_front_end_is_measured_on_seen_gestures_and_rest_of_the_training_users(
    handmade, study, recordings
):
    training = [
        [recording.emg[~handmade.hidden(recording) & (recording.gesture != UNLABELLED)]]
        for recording in recordings
        if recording.user in study.plan.train_users
    ]
    fitted = fit_front_end(handmade.configured().front_end, handmade.RATE_HZ, training)
    assert fitted == study.plan.front_end


def test_profiles_are_measured_on_the_calibration_rows(handmade, study, recordings):
    """Of everybody, behind filters that saw no unseen gesture."""
    front_end = study.plan.front_end
    for recording in recordings:
        hidden = handmade.hidden(recording)
        rows = ~hidden & (recording.gesture != UNLABELLED)
        filtered = np.zeros_like(recording.emg)
        filtered[rows] = front_end.filtered(recording.emg[rows])
        measured = ~hidden & (recording.repetition == 1) & (recording.gesture > 0)
        expected = fit_profile(front_end, recording.user, [filtered[measured]])
        profile = study.profiles[recording.user]
        assert profile.seconds == pytest.approx(4 * 95 / handmade.RATE_HZ)
        assert profile.offset == pytest.approx(expected.offset, abs=1e-6)
        assert profile.scale == pytest.approx(expected.scale, rel=1e-6)


@pytest.mark.parametrize("scaling", ["global", "user"])
def test_unseen_poses_do_not_scale_the_joints(handmade, recordings, scaling):
    config = handmade.configured(f"data.pose_scaling={scaling}")
    study = make_study(config, recordings, "handmade")
    changed = []
    for recording in recordings:
        pose = recording.pose.copy()
        pose[handmade.hidden(recording)] *= 9
        changed.append(dataclasses.replace(recording, pose=pose))
    again = make_study(config, changed, "handmade")
    index = np.arange(50)
    assert again.plan == study.plan
    poses = (made.training_windows().pose(index) for made in (again, study))
    assert np.array_equal(*poses)


@pytest.mark.parametrize("scaling", ["global", "user"])
def test_scaled_joints_are_standard_over_the_seen_rows(handmade, recordings, scaling):
    """In float64: a float32 sum over so many rows is off by more than the joints move."""
    far = [
        dataclasses.replace(
            recording,
            **{
                name: np.tile(getattr(recording, name), (60, 1) if name in ("emg", "pose") else 60)
                for name in ("emg", "pose", "pose_valid", "gesture", "trial", "repetition")
            },
        )
        for recording in recordings[:3]
    ]
    for recording in far:
        recording.pose[:] += 3000
    study = make_study(handmade.configured(f"data.pose_scaling={scaling}"), far, "long")
    number = next(i for i, r in enumerate(far) if r.user == study.plan.train_users[0])
    signal, recording = study.signals[number], far[number]
    pose = signal.pose(0, len(signal))
    assert pose.dtype == np.float32
    rows = recording.pose_valid & np.isin(recording.gesture, [0, 1, 3, 4, 6])
    assert pose[rows].mean(axis=0, dtype=np.float64) == pytest.approx([0] * 4, abs=2e-3)
    assert pose[rows].std(axis=0, dtype=np.float64) == pytest.approx([1] * 4, abs=2e-3)


@pytest.mark.parametrize(("unit", "scaling"), [("rad", "global"), ("deg", "user")])
def test_joints_are_scaled_per_user_unless_they_are_angles_everybody_shares(
    handmade, recordings, unit, scaling
):
    files = [dataclasses.replace(recording, pose_unit=unit) for recording in recordings]
    study = make_study(handmade.configured("data.pose_scaling=auto"), files, "auto")
    assert study.plan.pose_scaling == scaling

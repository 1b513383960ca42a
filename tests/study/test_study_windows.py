"""Which windows there are, and what they hold."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge.device.outline import outline_of
from embridge.device.recordings import REST, UNLABELLED, Recording
from embridge.device.runs import runs_of
from embridge.training.signals import calibrated
from embridge.training.study import make_study


def calibration_rows(handmade, recording):
    runs, chosen = calibrated(outline_of(recording), {*handmade.UNSEEN})
    return np.repeat(chosen, runs.stop - runs.start)


def expected_windows(handmade, recordings, users, *, test):
    """(user, start, gesture) of all windows, found by looking at each one."""
    found, window = set(), handmade.WINDOW
    for recording in (r for r in recordings if r.user in users):
        calibration = calibration_rows(handmade, recording)
        hop = handmade.HOP if test else handmade.TRAIN_HOP
        for start in range(0, len(recording.emg) - window + 1, hop):
            rows = slice(start, start + window)
            gestures = {int(number) for number in recording.gesture[rows]}
            name = handmade.GESTURES[recording.gesture[start]]
            if UNLABELLED in gestures or len(gestures) + len({*recording.trial[rows]}) > 2:
                continue
            index = recording.sample_index
            if index is not None and np.ptp(index[rows]) >= window:
                continue
            if test and (name == REST or calibration[rows].any()):
                continue
            if not test and (name in handmade.UNSEEN or not recording.pose_valid[rows].all()):
                continue
            found.add((recording.user, start, name))
    return found


def a_recording(rows):
    """Nothing but zeros."""
    zeros = np.zeros(rows, np.int16)
    return Recording(
        name="zeros", source="", user="u", session="", rate_hz=1.0, emg=np.zeros((rows, 1)),
        emg_unit="", is_envelope=False, pose=None, pose_unit="", pose_valid=zeros.astype(bool),
        gestures=("a",), gesture=zeros, trial=zeros.astype(np.int32), repetition=zeros,
    )  # fmt: skip


def listed(study, windows):
    return [
        (windows.users[user], int(start), study.plan.labels[label])
        for user, start, label in zip(windows.user, windows.start, windows.label, strict=True)
    ]


def test_training_and_validation_windows_are_the_paired_ones_of_seen_gestures_and_rest(
    handmade, study, recordings
):
    for windows, users in (
        (study.training_windows(), study.plan.train_users),
        (study.validation_windows(), study.plan.val_users),
    ):
        found = listed(study, windows)
        assert set(found) == expected_windows(handmade, recordings, users, test=False)
        assert len(found) == len(set(found))
        assert len(found) > 80
        assert not {name for _, _, name in found} & {*handmade.UNSEEN}


def test_test_windows_leave_out_rest_and_the_rows_profiles_were_measured_on(
    handmade, study, recordings
):
    windows = study.test_windows()
    found = listed(study, windows)
    assert set(found) == expected_windows(handmade, recordings, study.plan.test_users, test=True)
    assert {name for _, _, name in found} == {*handmade.GESTURES} - {REST}
    calibration = {r.user: calibration_rows(handmade, r) for r in recordings}
    for user, start, _ in found:
        assert not calibration[user][start : start + handmade.WINDOW].any()


def test_no_window_spans_lost_samples_or_a_row_without_pose(handmade, recordings):
    """Nor a single row of failed tracking, wherever it lies."""
    rng = np.random.default_rng(3)
    broken = []
    for recording in recordings:
        lost = rng.random(len(recording.emg)) < 0.01
        index = np.arange(len(lost)) + np.cumsum(3 * lost)
        valid = rng.random(len(lost)) > 0.005
        broken.append(dataclasses.replace(recording, sample_index=index, pose_valid=valid))
    study = make_study(handmade.configured("data.window_ms=100"), broken, "broken")
    handmade_20 = type("Short", (type(handmade),), {"WINDOW": 20})()
    for windows, users, test in (
        (study.training_windows(), study.plan.train_users, False),
        (study.test_windows(), study.plan.test_users, True),
    ):
        expected = expected_windows(handmade_20, broken, users, test=test)
        assert {*listed(study, windows)} == expected
        assert len(expected) > 20


def test_windows_of_one_trial_share_its_number_and_others_do_not(study, recordings):
    windows = study.test_windows()
    trials = {}
    for index in range(len(windows)):
        signal, start = int(windows.signal[index]), int(windows.start[index])
        trial = int(recordings[signal].trial[start])
        trials.setdefault(int(windows.trial[index]), set()).add((signal, trial))
    assert all(len(trials_of_it) == 1 for trials_of_it in trials.values())
    assert len(trials) == 2 * (2 * 4 + 3 * 2)  # users x (repetitions of seen + of unseen)


def test_cut_windows_hold_the_filtered_samples_and_scaled_poses(handmade, study):
    windows, front_end = study.training_windows(), study.plan.front_end
    index = np.array([0, 57, len(windows) - 1])
    emg, pose = windows.emg(index), windows.pose(index)
    assert emg.shape == (3, handmade.WINDOW, 3)
    assert pose.shape == (3, 4, handmade.WINDOW)
    for row, i in enumerate(index):
        signal = study.signals[windows.signal[i]]
        rows = (int(windows.start[i]), int(windows.start[i]) + handmade.WINDOW)
        assert np.array_equal(emg[row], signal.emg(*rows))
        assert np.array_equal(pose[row], signal.pose(*rows).T)
    profile = study.profiles[windows.users[windows.user[57]]]
    normalised = front_end.normalise(emg[1], profile).T
    assert np.array_equal(handmade.inputs(study, windows)[57], normalised)
    population = windows.encoder_input(index, front_end, {})[1]
    assert np.array_equal(population, front_end.normalise(emg[1]).T)


def test_inputs_mix_tiers_window_by_window(study):
    train = study.material().train
    index = np.arange(6)
    population = np.array([True, False, False, True, False, True])
    mixed = train.inputs(index, population)
    t0, t1 = (train.inputs(index, np.full(6, tier)) for tier in (True, False))
    assert np.array_equal(mixed, np.where(population[:, None, None], t0, t1))
    assert not np.array_equal(t0, t1)


def test_windows_that_do_not_overlap_are_read_alone_and_hold_the_same(handmade, study):
    plan = study.plan
    both = [
        study.windows(plan.train_users, plan.seen, hop, need_pose=True)
        for hop in (plan.window, plan.window // 2)
    ]
    assert [windows.alone for windows in both] == [True, False]
    shared = np.flatnonzero(both[1].start % plan.window == 0)
    assert np.array_equal(both[1].start[shared], both[0].start)
    index = np.arange(len(shared))
    assert np.allclose(both[0].emg(index), both[1].emg(shared), atol=1e-4)
    assert np.array_equal(both[0].pose(index), both[1].pose(shared))


def test_an_index_entry_costs_twenty_bytes(study):
    windows = study.training_windows()
    columns = (windows.signal, windows.start, windows.label, windows.user, windows.trial)
    assert sum(column.nbytes for column in columns) == 20 * len(windows)


def test_calibration_is_the_first_repetition_of_every_seen_gesture(handmade, recordings):
    recording = recordings[0]
    rows = calibration_rows(handmade, recording)
    names = np.array(handmade.GESTURES)[recording.gesture[rows]]
    assert {*names} == {"fist", "point", "thumb", "spread"}
    assert (recording.repetition[rows] == 1).all()
    assert rows.sum() == 4 * 95


@pytest.mark.parametrize(("stage", "count"), [("fist", 25), ("pinch", 0), (REST, 0)])
def test_calibration_of_a_file_with_one_trial_is_its_first_quarter(
    handmade, recordings, stage, count
):
    rows = calibration_rows(handmade, handmade.one_stage(recordings[0], stage))
    assert rows.sum() == count
    assert not rows[25:].any()


def test_files_of_one_gesture_each_make_the_same_kind_of_study(handmade, recordings):
    files = [handmade.one_stage(r, stage) for r in recordings for stage in handmade.GESTURES]
    study = make_study(handmade.configured(), files, "stages")
    assert study.plan.labels == handmade.GESTURES
    assert {*np.unique(study.training_windows().label)} == {0, 1, 3, 4, 6}
    assert {*np.unique(study.test_windows().label)} == {1, 2, 3, 4, 5, 6}
    assert study.profiles.keys() == {*handmade.USERS}


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_a_stretch_ends_where_gesture_or_trial_changes(data):
    gesture, trial = np.array(data, np.int16).T
    columns = {"gesture": gesture, "trial": trial.astype(np.int32)}
    runs = runs_of(dataclasses.replace(a_recording(len(data)), **columns))
    found = np.repeat(runs.stretch, runs.stop - runs.start)
    assert found[0] == 0
    for i in range(1, len(data)):
        assert found[i] - found[i - 1] == (data[i] != data[i - 1])

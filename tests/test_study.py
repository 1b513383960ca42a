"""Who and what is held out: no EMG of an unseen gesture reaches anything but the test."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embridge.device.errors import ConfigError, RecordingError
from embridge.device.frontend import channel_statistics, fit_front_end
from embridge.device.recordings import REST, UNLABELLED, Recording
from embridge.training.config import PRESETS, Config, load_config
from embridge.training.encoders import PatchEncoder, PoseEmbedder
from embridge.training.gallery import PoseGallery, build_gallery
from embridge.training.material import balanced_batch
from embridge.training.study import Study, apply_plan, make_study, read_all
from embridge.training.windows import WindowSet, calibration_rows, stretches

RATE_HZ = 200.0
GESTURES = ("rest", "fist", "pinch", "point", "thumb", "horns", "spread")
UNSEEN = ("pinch", "horns")
WINDOW, HOP, TRAIN_HOP = 40, 20, 10
USERS = ("s1", "s2", "s10", "s11", "s12", "s20")


def rows_of_a_session(repetitions: int = 3, held: int = 95, rest: int = 50) -> list[NDArray]:
    """gesture, trial, repetition of a session: all gestures in turn, several times."""
    parts: list[tuple[int, int, int, int]] = [(0, 0, 0, rest)]  # gesture trial repetition samples
    trial = 0
    for repetition in range(1, repetitions + 1):
        for gesture in range(1, len(GESTURES)):
            trial += 1
            parts += [(gesture, trial, repetition, held), (0, 0, 0, rest)]
        parts.append((UNLABELLED, 0, 0, 7))
    counts = [samples for *_, samples in parts]
    return [np.repeat([part[i] for part in parts], counts) for i in range(3)]


def session(user: str, seed: int, repetitions: int = 3) -> Recording:
    """All gestures in one file, as NinaPro has them; poses and amplitudes tell them apart."""
    rng = np.random.default_rng(seed)
    gesture, trial, repetition = rows_of_a_session(repetitions)
    samples = len(gesture)
    emg = rng.standard_normal((samples, 3)) * (2 + gesture[:, None]) * rng.uniform(0.5, 2, 3)
    pose = rng.standard_normal((len(GESTURES), 4))[gesture] + rng.normal(0, 0.1, (samples, 4))
    valid = np.ones(samples, bool)
    valid[300:320] = False
    return Recording(
        name=f"{user}.mat",
        source="ninapro-db2",
        user=user,
        session=user,
        rate_hz=RATE_HZ,
        emg=emg.astype(np.float32),
        emg_unit="uV",
        is_envelope=False,
        pose=pose.astype(np.float32),
        pose_unit="deg",
        pose_valid=valid,
        gestures=GESTURES,
        gesture=gesture.astype(np.int16),
        trial=trial.astype(np.int32),
        repetition=repetition.astype(np.int16),
    )


def configured(*overrides: str) -> Config:
    """Filters with a long memory: whatever rings on would be seen."""
    fixed = [
        f"data.window_ms={1000 * WINDOW / RATE_HZ}",
        f"data.hop_ms={1000 * HOP / RATE_HZ}",
        f"data.train_hop_ms={1000 * TRAIN_HOP / RATE_HZ}",
        f"data.unseen_gestures={list(UNSEEN)}",
        "data.pose_scaling=global",
        "front_end.notch_hz=[50]",
        "front_end.compression=log",
    ]
    return load_config(PRESETS / "raw_slow.toml", [*fixed, *overrides])


CONFIG = configured()


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return [session(user, seed) for seed, user in enumerate(reversed(USERS))]


@pytest.fixture(scope="module")
def study(recordings: list[Recording]) -> Study:
    return make_study(CONFIG, recordings, "handmade")


def inputs(study: Study, windows: WindowSet) -> NDArray[np.float32]:
    return windows.encoder_input(np.arange(len(windows)), study.plan.front_end, study.profiles)


def rows_of(study: Study, recording: Recording, unseen: bool) -> NDArray[np.bool_]:
    hidden = [GESTURES.index(gesture) for gesture in study.plan.unseen]
    return np.isin(recording.gesture, hidden) == unseen


# -- who is held out ---------------------------------------------------------------------------


def test_users_are_split_in_natural_order_and_disjointly(study: Study) -> None:
    plan = study.plan
    assert (plan.train_users, plan.val_users) == (("s1", "s2", "s10"), ("s11",))
    assert plan.test_users == ("s12", "s20")


def test_too_few_users_are_refused_in_one_line(recordings: list[Recording]) -> None:
    with pytest.raises(ConfigError, match="expected at least 3 users") as error:
        make_study(CONFIG, recordings[:2], "two")
    assert "\n" not in str(error.value)


def test_rest_is_neither_seen_nor_unseen_and_comes_first(study: Study) -> None:
    assert study.plan.labels == GESTURES
    assert study.plan.seen == ["fist", "point", "thumb", "spread"]
    assert study.plan.unseen == UNSEEN


# -- which windows -----------------------------------------------------------------------------


def expected_windows(
    study: Study, recordings: list[Recording], users: tuple[str, ...], *, test: bool
) -> set[tuple[str, int, str]]:
    """(user, start, gesture) of all windows, found by looking at each one."""
    found = set()
    for recording in (r for r in recordings if r.user in users):
        calibration = calibration_rows(recording, set(UNSEEN))
        for start in range(0, len(recording.emg) - WINDOW + 1, HOP if test else TRAIN_HOP):
            rows = slice(start, start + WINDOW)
            gestures = {int(number) for number in recording.gesture[rows]}
            name = GESTURES[recording.gesture[start]]
            if UNLABELLED in gestures or len(gestures) + len({*recording.trial[rows]}) > 2:
                continue
            if test and (name == REST or calibration[rows].any()):
                continue
            if not test and (name in UNSEEN or not recording.pose_valid[rows].all()):
                continue
            found.add((recording.user, start, name))
    return found


def listed(study: Study, windows: WindowSet) -> list[tuple[str, int, str]]:
    return [
        (windows.users[user], int(start), study.plan.labels[label])
        for user, start, label in zip(windows.user, windows.start, windows.label, strict=True)
    ]


def test_training_and_validation_windows_are_the_paired_ones_of_seen_gestures_and_rest(
    study: Study, recordings: list[Recording]
) -> None:
    for windows, users in (
        (study.training_windows(), study.plan.train_users),
        (study.validation_windows(), study.plan.val_users),
    ):
        found = listed(study, windows)
        assert set(found) == expected_windows(study, recordings, users, test=False)
        assert len(found) == len(set(found))
        assert len(found) > 80
        assert not {name for _, _, name in found} & {*UNSEEN}


def test_test_windows_leave_out_rest_and_the_rows_profiles_were_measured_on(
    study: Study, recordings: list[Recording]
) -> None:
    windows = study.test_windows()
    found = listed(study, windows)
    assert set(found) == expected_windows(study, recordings, study.plan.test_users, test=True)
    assert {name for _, _, name in found} == {*GESTURES} - {REST}
    for index in range(len(windows)):
        calibration = study.signals[windows.signal[index]].calibration
        assert not calibration[windows.start[index] : windows.start[index] + WINDOW].any()


def test_windows_of_one_trial_share_its_number_and_others_do_not(study: Study) -> None:
    windows = study.test_windows()
    trials: dict[int, set[tuple[int, int]]] = {}
    for index in range(len(windows)):
        signal = int(windows.signal[index])
        stretch = int(study.signals[signal].trial[windows.start[index]])
        trials.setdefault(int(windows.trial[index]), set()).add((signal, stretch))
    assert all(len(stretches_of_it) == 1 for stretches_of_it in trials.values())
    assert len(trials) == 2 * (2 * 4 + 3 * 2)  # users x (repetitions of seen + of unseen)


def test_cut_windows_hold_the_filtered_samples_and_scaled_poses(study: Study) -> None:
    windows = study.training_windows()
    index = np.array([0, 57, len(windows) - 1])
    emg, pose = windows.emg(index), windows.pose(index)
    assert emg.shape == (3, WINDOW, 3)
    assert pose.shape == (3, 4, WINDOW)
    for row, i in enumerate(index):
        signal = study.signals[windows.signal[i]]
        rows = slice(windows.start[i], windows.start[i] + WINDOW)
        assert np.array_equal(emg[row], signal.emg[rows])
        assert signal.pose is not None
        assert np.array_equal(pose[row], signal.pose[rows].T)
    profile = study.profiles[windows.users[windows.user[57]]]
    normalised = study.plan.front_end.normalise(emg[1], profile).T
    assert np.array_equal(inputs(study, windows)[57], normalised)
    assert np.array_equal(
        windows.encoder_input(index, study.plan.front_end, {})[1],
        study.plan.front_end.normalise(emg[1]).T,
    )


def test_test_windows_are_filtered_as_a_live_stream_would_be(
    study: Study, recordings: list[Recording]
) -> None:
    for recording, signal in zip(recordings, study.signals, strict=True):
        if recording.user in study.plan.test_users:
            assert np.array_equal(signal.emg, study.plan.front_end.filtered(recording.emg))


@given(
    data=st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 2)), min_size=1, max_size=30),
)
def test_a_stretch_ends_where_gesture_or_trial_changes(data: list[tuple[int, int]]) -> None:
    gesture, trial = np.array(data, np.int16).T
    found = stretches(gesture, trial.astype(np.int32))
    for i in range(1, len(data)):
        assert found[i] - found[i - 1] == (data[i] != data[i - 1])
    assert found[0] == 0


def test_calibration_is_the_first_repetition_of_every_seen_gesture(
    recordings: list[Recording],
) -> None:
    recording = recordings[0]
    rows = calibration_rows(recording, {*UNSEEN})
    names = np.array(GESTURES)[recording.gesture[rows]]
    assert {*names} == {"fist", "point", "thumb", "spread"}
    assert (recording.repetition[rows] == 1).all()
    assert rows.sum() == 4 * 95


@pytest.mark.parametrize(("stage", "calibrated"), [("fist", 25), ("pinch", 0), (REST, 0)])
def test_calibration_of_a_file_with_one_trial_is_its_first_quarter(
    recordings: list[Recording], stage: str, calibrated: int
) -> None:
    recording = one_stage(recordings[0], stage)
    rows = calibration_rows(recording, {*UNSEEN})
    assert rows.sum() == calibrated
    assert not rows[25:].any()


def one_stage(recording: Recording, stage: str) -> Recording:
    """The second repetition of one gesture as a file of its own, as emg2pose has them."""
    rows = np.flatnonzero(recording.gesture == GESTURES.index(stage))[:100]
    one = np.ones(len(rows))
    return dataclasses.replace(
        recording,
        name=f"{recording.user}-{stage}.hdf5",
        emg=recording.emg[rows],
        pose=None if recording.pose is None else recording.pose[rows],
        pose_valid=np.ones(len(rows), bool),
        gestures=(stage,),
        gesture=np.zeros(len(rows), np.int16),
        trial=one.astype(np.int32),
        repetition=one.astype(np.int16),
    )


def test_files_of_one_gesture_each_make_the_same_kind_of_study(
    recordings: list[Recording],
) -> None:
    files = [one_stage(recording, stage) for recording in recordings for stage in GESTURES]
    study = make_study(CONFIG, files, "stages")
    assert study.plan.labels == GESTURES
    assert {*np.unique(study.training_windows().label)} == {0, 1, 3, 4, 6}
    assert {*np.unique(study.test_windows().label)} == {1, 2, 3, 4, 5, 6}
    assert study.profiles.keys() == {*USERS}


# -- no EMG of an unseen gesture ---------------------------------------------------------------


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32 - 1), power=st.integers(-3, 4))
def test_unseen_emg_changes_nothing_that_is_trained_fitted_or_taught(
    study: Study, recordings: list[Recording], seed: int, power: int
) -> None:
    """Filters have a memory: what follows an unseen gesture must not carry its ringing either."""
    rng = np.random.default_rng(seed)
    changed = []
    for recording in recordings:
        emg = recording.emg.copy()
        hidden = rows_of(study, recording, unseen=True)
        emg[hidden] = rng.normal(5, 10.0**power, emg[hidden].shape)
        changed.append(dataclasses.replace(recording, emg=emg))
    again = make_study(CONFIG, changed, "handmade")
    assert again.plan == study.plan
    assert again.profiles == study.profiles
    for windows, others in (
        (study.training_windows(), again.training_windows()),
        (study.validation_windows(), again.validation_windows()),
    ):
        assert np.array_equal(inputs(study, windows), inputs(again, others))
        assert np.array_equal(windows.label, others.label)
    assert not np.array_equal(
        inputs(study, study.test_windows()), inputs(again, again.test_windows())
    )


def test_the_front_end_is_measured_on_seen_gestures_and_rest_of_the_training_users(
    study: Study, recordings: list[Recording]
) -> None:
    training = [
        recording.emg[rows_of(study, recording, unseen=False) & (recording.gesture != UNLABELLED)]
        for recording in recordings
        if recording.user in study.plan.train_users
    ]
    assert fit_front_end(CONFIG.front_end, RATE_HZ, training) == study.plan.front_end


def test_profiles_are_measured_on_the_calibration_rows(study: Study) -> None:
    for signal in study.signals:
        if signal.user not in study.plan.test_users:
            profile = study.profiles[signal.user]
            found = channel_statistics([signal.emg[signal.calibration]])
            assert found == (profile.offset, profile.scale)
            assert profile.seconds == pytest.approx(4 * 95 / RATE_HZ)


@pytest.mark.parametrize("scaling", ["global", "user"])
def test_unseen_poses_do_not_scale_the_joints(recordings: list[Recording], scaling: str) -> None:
    config = configured(f"data.pose_scaling={scaling}")
    study = make_study(config, recordings, "handmade")
    changed = []
    for recording in recordings:
        assert recording.pose is not None
        pose = recording.pose.copy()
        pose[rows_of(study, recording, unseen=True)] *= 9
        changed.append(dataclasses.replace(recording, pose=pose))
    again = make_study(config, changed, "handmade")
    index = np.arange(50)
    assert again.plan == study.plan
    assert np.array_equal(
        again.training_windows().pose(index), study.training_windows().pose(index)
    )


@pytest.mark.parametrize("scaling", ["global", "user"])
def test_scaled_joints_are_standard_over_the_seen_rows(
    recordings: list[Recording], scaling: str
) -> None:
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
        assert recording.pose is not None
        recording.pose[:] += 3000
    study = make_study(configured(f"data.pose_scaling={scaling}"), far, "long")
    signal = next(s for s in study.signals if s.user == study.plan.train_users[0])
    assert signal.pose is not None
    assert signal.pose.dtype == np.float32
    rows = signal.pose_valid & np.isin(signal.gesture, [0, 1, 3, 4, 6])
    pose = signal.pose[rows].astype(np.float64)
    assert pose.mean(axis=0) == pytest.approx([0] * 4, abs=2e-3)
    assert pose.std(axis=0) == pytest.approx([1] * 4, abs=2e-3)


@pytest.mark.parametrize(("unit", "scaling"), [("rad", "global"), ("deg", "user")])
def test_joints_are_scaled_per_user_unless_they_are_angles_everybody_shares(
    recordings: list[Recording], unit: str, scaling: str
) -> None:
    files = [dataclasses.replace(recording, pose_unit=unit) for recording in recordings]
    study = make_study(configured("data.pose_scaling=auto"), files, "auto")
    assert study.plan.pose_scaling == scaling


# -- the gallery -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedder() -> PoseEmbedder:
    return PoseEmbedder(PatchEncoder(4, WINDOW, 10, 8, 1, 2, 8), clusters=4).eval()


def same_gallery(a: PoseGallery, b: PoseGallery) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("embeddings", "mean_pose", "labels")
    )


def test_the_gallery_has_poses_of_all_gestures_from_all_training_users(
    study: Study, embedder: PoseEmbedder
) -> None:
    gallery = build_gallery(study, embedder, per_gesture=6, seed=0)
    assert np.bincount(gallery.labels).tolist() == [6] * len(GESTURES)
    assert gallery.names == GESTURES
    assert np.linalg.norm(gallery.embeddings, axis=1) == pytest.approx(1)
    assert gallery.embedded().vectors.shape == (6 * 7, 8)
    assert gallery.posed().vectors.shape == (6 * 7, 4)
    windows = study.windows(study.plan.train_users, GESTURES, TRAIN_HOP, need_pose=True)
    poses = windows.pose(np.arange(len(windows))).mean(axis=2)
    for label in range(len(GESTURES)):
        users = [
            int(windows.user[np.flatnonzero((poses == row).all(axis=1))[0]])
            for row in gallery.mean_pose[gallery.labels == label]
        ]
        assert np.bincount(users).tolist() == [2, 2, 2]


def test_a_gallery_holds_no_more_than_there_is(study: Study, embedder: PoseEmbedder) -> None:
    gallery = build_gallery(study, embedder, per_gesture=10_000, seed=0)
    windows = study.windows(study.plan.train_users, GESTURES, TRAIN_HOP, need_pose=True)
    assert np.array_equal(np.bincount(gallery.labels), np.bincount(windows.label))


def test_the_gallery_depends_on_the_training_users_poses_and_the_seed_alone(
    study: Study, recordings: list[Recording], embedder: PoseEmbedder
) -> None:
    gallery = build_gallery(study, embedder, 6, seed=0)
    assert same_gallery(gallery, build_gallery(study, embedder, 6, seed=0))
    assert not same_gallery(gallery, build_gallery(study, embedder, 6, seed=1))
    elsewhere, here = [], []
    for recording in recordings:
        assert recording.pose is not None
        trains = recording.user in study.plan.train_users
        other_emg = dataclasses.replace(recording, emg=recording.emg * np.float32(3))
        moved = dataclasses.replace(other_emg, pose=recording.pose + 1)
        elsewhere.append(other_emg if trains else moved)
        here.append(moved if trains else recording)
    assert same_gallery(gallery, build_gallery(apply_plan(study.plan, elsewhere), embedder, 6, 0))
    assert not same_gallery(gallery, build_gallery(apply_plan(study.plan, here), embedder, 6, 0))


# -- batches -----------------------------------------------------------------------------------


def test_a_batch_is_balanced_over_users_and_gestures(study: Study) -> None:
    """Rest is by far the most frequent, and one user lacks most windows of one gesture."""
    windows = study.training_windows()
    few = np.flatnonzero((windows.user == 0) & (windows.label == 1))[3:]
    windows = windows.select(np.delete(np.arange(len(windows)), few))
    index = balanced_batch(windows, 30_000, np.random.default_rng(0))
    cells = windows.user[index] * 10 + windows.label[index]
    _, count = np.unique(cells, return_counts=True)
    assert len(count) == 3 * 5
    assert count == pytest.approx(2000, abs=200)
    assert {*index} == {*range(len(windows))}, "every window has its chance"
    _, within = np.unique(index[cells == 1], return_counts=True)
    assert within == pytest.approx(2000 / 3, abs=120)


def test_a_batch_depends_on_its_generator_alone(study: Study) -> None:
    windows = study.training_windows()
    first, second, third = (
        balanced_batch(windows, 64, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


# -- refusals ----------------------------------------------------------------------------------


def test_windows_longer_than_any_stretch_are_refused_in_one_line(
    recordings: list[Recording],
) -> None:
    study = make_study(configured("data.window_ms=500"), recordings, "short")
    for cut in (study.training_windows, study.validation_windows):
        with pytest.raises(ConfigError, match=r"no windows of s1.*held for 500 ms") as error:
            cut()
        assert "\n" not in str(error.value)


def test_recordings_without_pose_are_refused(recordings: list[Recording]) -> None:
    bare = dataclasses.replace(recordings[2], pose=None)
    with pytest.raises(RecordingError, match="has no hand pose"):
        make_study(CONFIG, [*recordings[:2], bare, *recordings[3:]], "bare")


def test_a_plan_refuses_recordings_of_another_kind(
    study: Study, recordings: list[Recording]
) -> None:
    for change in ({"rate_hz": 100.0}, {"emg": recordings[0].emg[:, :2]}):
        with pytest.raises(RecordingError, match="expected 3 channels at 200 Hz") as error:
            apply_plan(study.plan, [dataclasses.replace(recordings[0], **change)])
        assert "\n" not in str(error.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="found none"):
        read_all(tmp_path)

"""Properties of the forward model, and of the sets of files made with it."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from embridge.device.emg2pose import JOINT_NAMES
from embridge.device.errors import ConfigError
from embridge.device.recordings import REST, read_recording, require_pose
from embridge.training.synth import MARK, UV_PER_COUNT, synthesize
from embridge.training.synth_model import (
    CHANNELS,
    UNITS,
    Band,
    draw_anatomy,
    draw_band,
    fire,
    potentials,
    simulate,
)
from embridge.training.synth_muscles import MUSCLES, activations
from embridge.training.synth_poses import FINGERS_OF, STAGES, movement, pose_of

RATE_HZ = 2000
SPACING_RAD = 2 * np.pi / CHANNELS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two users, one second per stage."""
    out = tmp_path_factory.mktemp("synth") / "set"
    return out, synthesize(out, users=2, seconds_per_stage=1.0, seed=3)


@pytest.fixture(scope="module")
def anatomy():
    return draw_anatomy(np.random.default_rng(0))


def ramp(muscles, seconds=8.0, top=1.0):
    """Activations of all muscles from 0 to `top`, (T, M) at 200 Hz."""
    return np.repeat(np.linspace(0, top, int(200 * seconds))[:, None], muscles, axis=1)


def pose_over_time(stage, seconds=2.0, seed=0):
    random = np.random.default_rng(seed)
    return movement(stage, int(seconds * RATE_HZ), RATE_HZ, random).astype(np.float64)


def test_every_gesture_is_made_of_finger_configurations_of_other_gestures():
    uses = Counter(
        (finger, configuration)
        for stage, configurations in FINGERS_OF.items()
        if stage != REST
        for finger, configuration in enumerate(configurations)
    )
    assert len(FINGERS_OF) == 13
    assert len(set(FINGERS_OF.values())) == 13
    assert min(uses.values()) >= 2, [use for use, count in uses.items() if count < 2]


@pytest.mark.parametrize("stage", STAGES)
def test_a_moving_hand_stays_nearer_to_its_gesture_than_to_rest(stage):
    pose = pose_over_time(stage, seconds=10.0)
    to_gesture = np.linalg.norm(pose - pose_of(stage), axis=1)
    if stage == REST:
        assert to_gesture.max() < 0.5
    else:
        assert (to_gesture < np.linalg.norm(pose - pose_of(REST), axis=1)).all()


def test_an_unknown_gesture_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"fist.*got 'wave'"):
        pose_of("wave")


def test_flexing_a_finger_drives_its_flexor_and_extending_it_its_extensor(anatomy):
    pose = np.tile(pose_of(REST).astype(np.float64), (50, 1))
    joint = JOINT_NAMES.index("RING_MCP_FE")
    flexor, extensor = MUSCLES.index("FDS_RING"), MUSCLES.index("EDC_RING")
    rest = activations(pose, 200, anatomy.control)[-1]
    pose[:, joint] += 0.8
    flexed = activations(pose, 200, anatomy.control)[-1] - rest
    pose[:, joint] -= 1.2
    extended = activations(pose, 200, anatomy.control)[-1] - rest
    assert flexed[flexor] > flexed[extensor] > 0  # the antagonist co-contracts
    assert extended[extensor] > extended[flexor] > 0
    assert flexed[MUSCLES.index("FDS_PINKY")] > 0  # neighbours move along
    assert flexed[MUSCLES.index("FPL")] == 0


def test_activations_never_leave_0_to_1(anatomy):
    pose = np.random.default_rng(0).normal(0, 3, (500, 20))
    activation = activations(pose, 200, anatomy.control)
    assert activation.min() >= 0
    assert activation.max() == 1


def test_units_are_recruited_from_small_to_large(anatomy):
    """The size principle: a rising activation adds larger and larger units."""
    random = np.random.default_rng(0)
    spikes = fire(ramp(len(MUSCLES)), 200, anatomy, random)
    first = np.full(anatomy.muscle.size, np.inf)
    np.minimum.at(first, spikes.unit, spikes.time_s)
    assert np.isfinite(first).all()
    for muscle in range(len(MUSCLES)):
        own = slice(muscle * UNITS, (muscle + 1) * UNITS)
        order = scipy.stats.spearmanr(first[own], anatomy.size_uv[own]).statistic
        assert order > 0.9
        assert (np.diff(anatomy.threshold[own]) > 0).all()
        assert (first[own] >= anatomy.threshold[own] * 8.0 - 0.01).all()


def test_a_unit_below_its_threshold_is_silent_and_none_exceeds_its_peak_rate(anatomy):
    random = np.random.default_rng(0)
    steady = np.full((2000, len(MUSCLES)), 0.3)  # 10 s
    spikes = fire(steady, 200, anatomy, random)
    count = np.bincount(spikes.unit, minlength=anatomy.muscle.size)
    assert np.array_equal(count > 0, anatomy.threshold < 0.3)
    assert (count[count > 0] >= 7 * 10).all()
    assert (count <= 1.15 * anatomy.peak_rate_hz * 10).all()


def test_intervals_between_spikes_vary_by_a_fifth(anatomy):
    spikes = fire(np.full((4000, len(MUSCLES)), 0.5), 200, anatomy, np.random.default_rng(0))
    intervals = np.diff(np.sort(spikes.time_s[spikes.unit == 0]))
    assert intervals.std() / intervals.mean() == pytest.approx(0.2, abs=0.03)


def test_a_hand_without_activation_gives_no_potential(anatomy):
    spikes = fire(np.zeros((200, len(MUSCLES))), 200, anatomy, np.random.default_rng(0))
    assert not potentials(spikes, anatomy, Band(), 2000, RATE_HZ).any()


@settings(max_examples=10, deadline=None)
@given(
    steps=st.integers(-CHANNELS, CHANNELS),
    rotation=st.floats(-0.2, 0.2),
    tilt_mm=st.floats(0, 4),
    seed=st.integers(0, 100),
)
def test_rotating_the_band_by_electrode_spacings_rolls_the_channels(steps, rotation, tilt_mm, seed):
    random = np.random.default_rng(seed)
    anatomy = draw_anatomy(random)
    spikes = fire(ramp(len(MUSCLES), seconds=1.0, top=0.3), 200, anatomy, random)
    band = Band(rotation_rad=rotation, tilt_mm=tilt_mm)
    turned = dataclasses.replace(band, rotation_rad=rotation + steps * SPACING_RAD)
    here = potentials(spikes, anatomy, band, 2000, RATE_HZ)
    there = potentials(spikes, anatomy, turned, 2000, RATE_HZ)
    np.testing.assert_allclose(there, np.roll(here, -steps, axis=1), atol=1e-3 * here.std())


def test_every_unit_is_largest_at_the_electrode_above_it(anatomy):
    unit = UNITS - 1
    late = fire(ramp(len(MUSCLES)), 200, anatomy, np.random.default_rng(0))
    own = late.unit == unit
    alone = dataclasses.replace(late, unit=late.unit[own], time_s=late.time_s[own])
    emg = potentials(alone, anatomy, Band(), 8 * RATE_HZ, RATE_HZ)
    nearest = round(anatomy.angle_rad[unit] / SPACING_RAD) % CHANNELS
    assert np.argmax(emg.std(axis=0)) == nearest


@pytest.mark.parametrize("stage", ["fist", "spread_fingers", "ok_sign"])
def test_power_lies_between_20_and_450_hz(anatomy, stage):
    random = np.random.default_rng(5)
    emg = simulate(pose_over_time(stage, 4.0), RATE_HZ, anatomy, draw_band(random, 50.0), random)
    frequency_hz, power = scipy.signal.welch(emg, RATE_HZ, nperseg=1000, axis=0)
    power = power.sum(axis=1)
    inside = power[(frequency_hz >= 20) & (frequency_hz <= 450)].sum() / power.sum()
    assert inside > 0.95
    median_hz = frequency_hz[np.searchsorted(np.cumsum(power), power.sum() / 2)]
    assert 50 < median_hz < 160


def test_a_gesture_is_several_times_stronger_than_rest(anatomy):
    random = np.random.default_rng(0)
    band = draw_band(random, 60.0)
    rms = {
        stage: simulate(pose_over_time(stage), RATE_HZ, anatomy, band, random).std()
        for stage in ("fist", REST)
    }
    assert 15 < rms["fist"] < 300  # uV
    assert rms["fist"] > 3 * rms[REST]
    assert 1 < rms[REST] < 20


def test_a_set_holds_every_user_and_stage_as_synthetic_recordings(made):
    _, files = made
    assert len(files) == len(set(files)) == 2 * len(STAGES)
    assert files == [path for path in files if path.exists()]
    seen = set()
    for path in files:
        recording = read_recording(path)
        assert path.name == f"{recording.session}_{recording.gestures[0]}_left.hdf5"
        assert recording.emg.shape == (RATE_HZ, CHANNELS)
        assert require_pose(recording).shape == (RATE_HZ, len(JOINT_NAMES))
        assert recording.pose_valid.all()
        assert recording.synthetic
        assert (recording.emg_unit, recording.pose_unit) == ("uV", "rad")
        seen.add((recording.user, recording.gestures[0]))
    assert seen == {(user, stage) for user in ("synth00", "synth01") for stage in STAGES}


def test_samples_are_whole_16_bit_counts_so_that_a_wrist_can_replay_them(made):
    for path in made[1][:3]:
        recording = read_recording(path)
        assert recording.emg_unit_per_count == UV_PER_COUNT
        counts = recording.emg / UV_PER_COUNT
        assert np.array_equal(counts, counts.astype(np.int16))
        assert np.abs(counts).max() < 2**15 - 1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(made, tmp_path):
    _, files = made
    again = synthesize(tmp_path / "a", users=1, seconds_per_stage=1.0, seed=3)
    for path in again:  # a user does not depend on how many there are
        same = next(file for file in files if file.name == path.name)
        assert path.read_bytes() == same.read_bytes()
    other = synthesize(tmp_path / "b", users=1, seconds_per_stage=1.0, seed=4)
    assert not np.array_equal(read_recording(other[0]).emg, read_recording(again[0]).emg)


def test_a_complete_set_is_left_alone_and_an_interrupted_one_completed(tmp_path):
    arguments = {"users": 1, "seconds_per_stage": 1.0, "seed": 3}
    files = synthesize(tmp_path / "a", **arguments)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    files[4].unlink()
    (tmp_path / "a" / ".x.hdf5.partial").write_bytes(b"half")
    assert synthesize(tmp_path / "a", **arguments) == files
    for path in files:
        assert path.read_bytes() == before[path][0]
    assert sum(path.stat().st_mtime_ns != before[path][1] for path in files) == 1


def test_a_set_made_with_other_arguments_is_not_mixed_or_overwritten(made):
    out, _ = made
    with pytest.raises(ConfigError, match=r'"seed": 4.*"seed": 3.*another folder'):
        synthesize(out, users=2, seconds_per_stage=1.0, seed=4)
    assert json.loads((out / MARK).read_text())["seed"] == 3


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="choose another"):
        synthesize(tmp_path, users=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("users", 0), ("users", 1001), ("seconds_per_stage", 0.5), ("seconds_per_stage", np.nan),
        ("seed", -1), ("rate_hz", 500), ("rate_hz", 2001),
    ],
)  # fmt: skip
def test_unusable_arguments_are_refused_before_anything_is_written(tmp_path, name, value):
    with pytest.raises(ConfigError, match=name):
        synthesize(tmp_path / "out", **{name: value})
    assert not (tmp_path / "out").exists()


def test_progress_is_told_after_every_file(tmp_path):
    told = []
    synthesize(tmp_path / "a", users=1, seconds_per_stage=1.0, progress=lambda *at: told.append(at))
    assert told == [(done, len(STAGES)) for done in range(1, len(STAGES) + 1)]

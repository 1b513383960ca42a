"""The front-end: exact in any chunking, filters as designed, statistics and profiles."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.frontend import (
    LIMIT,
    SETTLED,
    FilterDesign,
    FrontEnd,
    UserProfile,
    design_sos,
    fit_front_end,
    fit_profile,
    settling_rows,
)
from embridge.device.moments import Moments

RATE_HZ = 2000.0
SAMPLES = 600
DESIGN = FilterDesign(highpass_hz=20, lowpass_hz=450, notch_hz=(50, 60), compression="log")
EMG = np.random.default_rng(0).normal(3, [5, 20, 80], (SAMPLES, 3)).astype(np.float32)  # T C
FRONT_END = fit_front_end(DESIGN, RATE_HZ, [[EMG]])
ROOT = fit_front_end(DESIGN.model_copy(update={"compression": "root"}), RATE_HZ, [[EMG]])


def without_filters(channels: int = 1, floor: float = 1.0) -> FrontEnd:
    return FrontEnd(
        rate_hz=RATE_HZ,
        sos=[],
        compression="none",
        compression_floor=floor,
        offset=[0.0] * channels,
        scale=[1.0] * channels,
    )


def gain_db(design: FilterDesign, sine_hz: float, seconds: float = 6.0) -> float:
    """Gain of a sine once the filters have settled: the second half of its response."""
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    sine = np.sin(2 * np.pi * sine_hz * t)[:, None]
    front_end = without_filters().model_copy(update={"sos": design_sos(design, RATE_HZ)})
    settled = front_end.filtered(sine)[len(t) // 2 :]
    return float(20 * np.log10(settled.std() / sine.std() + 1e-12))


@given(cuts=st.lists(st.integers(0, SAMPLES), max_size=8).map(sorted))
def test_streaming_in_any_chunks_equals_one_shot(cuts: list[int]) -> None:
    for front_end in (FRONT_END, ROOT):
        stream = front_end.stream()
        edges = [0, *cuts, SAMPLES]
        parts = [stream.push(EMG[a:b]) for a, b in pairwise(edges)]
        assert np.array_equal(np.concatenate(parts), front_end.filtered(EMG))


def test_the_output_is_causal() -> None:
    changed = EMG.copy()
    changed[400:] *= -7
    before, after = FRONT_END.filtered(EMG), FRONT_END.filtered(changed)
    assert np.array_equal(before[:400], after[:400])
    assert not np.array_equal(before[400:], after[400:])


def test_channels_do_not_mix() -> None:
    changed = EMG.copy()
    changed[:, 1] = 0
    assert np.array_equal(FRONT_END.filtered(EMG)[:, ::2], FRONT_END.filtered(changed)[:, ::2])


@pytest.mark.parametrize(
    ("design", "sine_hz", "low_db", "high_db"),
    [
        (FilterDesign(highpass_hz=20), 20, -3.1, -2.9),
        (FilterDesign(highpass_hz=20), 10, -25, -23.5),  # order 4: 24 dB per octave
        (FilterDesign(highpass_hz=20), 100, -0.05, 0.05),
        (FilterDesign(lowpass_hz=250), 250, -3.1, -2.9),
        (FilterDesign(lowpass_hz=250), 125, -0.05, 0.05),
        (FilterDesign(lowpass_hz=250), 500, -300, -24),
        (FilterDesign(lowpass_hz=250, order=2), 250, -3.1, -2.9),
        (FilterDesign(notch_hz=(50,)), 50, -300, -60),
        (FilterDesign(notch_hz=(50,)), 40, -0.2, 0.05),
        (FilterDesign(notch_hz=(50, 60)), 60, -300, -60),
        (FilterDesign(), 5, -1e-3, 1e-3),
    ],
)
def test_bands_attenuate_as_designed(
    design: FilterDesign, sine_hz: float, low_db: float, high_db: float
) -> None:
    assert low_db <= gain_db(design, sine_hz) <= high_db


@pytest.mark.parametrize(
    "design",
    [
        FilterDesign(highpass_hz=1000),
        FilterDesign(lowpass_hz=1200),
        FilterDesign(notch_hz=(50, 1000)),
    ],
)
def test_an_edge_beyond_half_the_rate_is_refused_in_one_line(design: FilterDesign) -> None:
    with pytest.raises(ConfigError, match="expected below 1000 Hz") as error:
        design_sos(design, RATE_HZ)
    assert "\n" not in str(error.value)


def test_log_compression_is_its_formula() -> None:
    front_end = without_filters(floor=2.0).model_copy(update={"compression": "log"})
    x = np.array([[-200.0], [-2.0], [0.0], [1e-3], [2.0], [5000.0]])
    assert np.array_equal(
        front_end.filtered(x), (np.sign(x) * np.log1p(np.abs(x) / 2)).astype(np.float32)
    )


def test_root_compression_is_its_formula() -> None:
    front_end = without_filters(floor=2.0).model_copy(update={"compression": "root"})
    x = np.array([[-200.0], [-2.0], [0.0], [1e-3], [2.0], [5000.0]])
    y = front_end.filtered(x)
    assert np.array_equal(y, (np.sign(x) * np.sqrt(np.abs(x) / 2)).astype(np.float32))
    assert np.array_equal(front_end.filtered(-x), -y)
    assert y[4] == 1.0  # at the floor


def test_the_compression_floor_is_the_mean_magnitude_of_the_filtered_signal() -> None:
    emg = np.where(np.arange(700) % 2, 6, -2)[:, None].astype(np.float32)
    front_end = fit_front_end(FilterDesign(compression="log"), RATE_HZ, [[emg]])
    assert front_end.compression_floor == pytest.approx(4)


def test_population_statistics_standardise_the_training_samples() -> None:
    parts = [EMG[:250], EMG[250:]]
    front_end = fit_front_end(DESIGN, RATE_HZ, [[part] for part in parts])
    y = np.concatenate([front_end.normalise(front_end.filtered(part)) for part in parts])
    assert y.mean(axis=0) == pytest.approx([0] * 3, abs=1e-5)
    assert y.std(axis=0) == pytest.approx([1] * 3, abs=1e-5)


def test_the_mean_square_is_that_of_the_filtered_training_samples() -> None:
    for front_end in (FRONT_END, ROOT):
        squares = np.square(front_end.filtered(EMG), dtype=np.float64)
        assert front_end.mean_square == pytest.approx(squares.mean(), rel=1e-5)


def test_a_profile_standardises_its_wearer_and_the_population_does_not() -> None:
    wearer = FRONT_END.filtered(EMG * np.float32(9))
    profile = fit_profile(FRONT_END, "anna", [wearer[:100], wearer[100:]])
    t0, t1 = FRONT_END.normalise(wearer), FRONT_END.normalise(wearer, profile)
    assert t1.std(axis=0) == pytest.approx([1] * 3, abs=1e-5)
    assert t1.mean(axis=0) == pytest.approx([0] * 3, abs=1e-5)
    assert np.all(t0.std(axis=0) > 1.2)
    assert profile.seconds == pytest.approx(SAMPLES / RATE_HZ)
    assert t0.dtype == t1.dtype == np.float32


def test_a_profile_of_the_training_samples_is_the_population() -> None:
    profile = fit_profile(FRONT_END, "all", [FRONT_END.filtered(EMG)])
    assert (profile.offset, profile.scale) == (FRONT_END.offset, FRONT_END.scale)


def test_a_front_end_and_a_profile_read_back_from_json_give_bit_equal_outputs() -> None:
    again = FrontEnd.model_validate_json(FRONT_END.model_dump_json())
    profile = fit_profile(FRONT_END, "anna", [FRONT_END.filtered(EMG[:77])])
    profile_again = UserProfile.model_validate_json(profile.model_dump_json())
    filtered = again.filtered(EMG)
    assert np.array_equal(filtered, FRONT_END.filtered(EMG))
    assert np.array_equal(
        again.normalise(filtered, profile_again), FRONT_END.normalise(filtered, profile)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"offset": [0.0] * 2, "scale": [1.0] * 2},
        {"scale": [1.0]},
        {"rate_hz": 1000.0},
    ],
)
def test_a_profile_of_another_stream_is_refused_in_one_line(change: dict[str, object]) -> None:
    profile = fit_profile(FRONT_END, "anna", [FRONT_END.filtered(EMG)])
    assert profile.check(FRONT_END) is profile
    with pytest.raises(ConfigError, match=r"profile of anna: expected 3 channels at 2000 Hz") as e:
        profile.model_copy(update=change).check(FRONT_END)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_profile_that_would_divide_by_nothing_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        UserProfile(user="a", rate_hz=1, seconds=1, offset=[0.0], scale=[value])


def test_flat_channels_are_named() -> None:
    emg = EMG.copy()
    emg[:, 1] = 4
    with pytest.raises(ConfigError, match=r"channel\(s\) 1 are constant") as error:
        fit_front_end(FilterDesign(), RATE_HZ, [[emg]])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("samples", [0, 1])
def test_too_few_samples_are_refused(samples: int) -> None:
    with pytest.raises(ConfigError, match=f"got {samples} samples"):
        fit_front_end(DESIGN, RATE_HZ, [[EMG[:samples]]])


@pytest.mark.parametrize("shape", [(10,), (10, 2), (3, 10), (1, 10, 3)])
def test_samples_of_another_shape_are_refused_in_one_line(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match=r"expected samples of shape \(T, 3\)") as error:
        FRONT_END.filtered(np.zeros(shape, np.float32))
    assert "\n" not in str(error.value)


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, SAMPLES), max_size=4).map(sorted))
def test_statistics_do_not_depend_on_how_the_samples_are_split(cuts: list[int]) -> None:
    parts: list[NDArray[np.float32]] = np.split(EMG, cuts)
    measured = Moments(3)
    for part in parts:
        measured.add(part)
    assert measured.count == SAMPLES
    assert measured.mean == pytest.approx(EMG.mean(axis=0, dtype=np.float64))
    assert measured.spread == pytest.approx(EMG.std(axis=0, dtype=np.float64))
    plain = without_filters(3)
    assert fit_profile(plain, "a", parts).offset == pytest.approx(measured.mean.tolist())
    blocks = fit_front_end(DESIGN, RATE_HZ, [parts])
    assert blocks.offset == pytest.approx(FRONT_END.offset, abs=1e-9)
    assert blocks.scale == pytest.approx(FRONT_END.scale, rel=1e-9)


@pytest.mark.parametrize(
    "design",
    [
        DESIGN,
        FilterDesign(highpass_hz=2, lowpass_hz=250, notch_hz=(60,)),
        FilterDesign(highpass_hz=20, order=8),
        FilterDesign(notch_hz=(50, 51), notch_q=100),
    ],
)
def test_filters_started_late_enough_give_what_they_would_have_given(design: FilterDesign) -> None:
    sos = design_sos(design, RATE_HZ)
    rows = settling_rows(sos)
    emg = np.random.default_rng(1).choice([-1.0, 1.0], (3 * rows, 1)).astype(np.float32)
    front_end = without_filters().model_copy(update={"sos": sos})
    whole = front_end.filtered(emg)[2 * rows :]
    assert np.abs(front_end.filtered(emg[rows:])[rows:] - whole).max() <= SETTLED
    assert settling_rows([]) == 0


def test_normalised_values_are_clipped_where_int8_has_no_levels_left() -> None:
    front_end = without_filters(2)
    wild = np.array([[-1e9, 1e9], [1e9, -1e9]], np.float32)
    normalised = front_end.normalise(wild)
    np.testing.assert_array_equal(np.abs(normalised), LIMIT)

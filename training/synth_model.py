"""Forward model: hand pose over time -> surface EMG of a band of electrodes around the forearm.

Each step is a published model; constants without a source are chosen so that amplitudes, spectra
and the loss between users are those of real bands.

1. Muscle activation: `synth_muscles`; a common drive that fluctuates below 2 Hz (De Luca & Erim
   1994) multiplies it by 1 + 0.2 n(t).
2. Motor units (Fuglevand et al. 1993). Thresholds RTE_i = exp(i ln(30) / n), the last recruited at
   activation 0.6; rate f_i = min(peak_i, 8 + 40 (a - RTE_i)) Hz above threshold, where peak_i falls
   from 35 to 25 Hz; size P_i = exp(i ln(20) / n): small units first (size principle). Intervals
   between spikes vary by 20 %: spike k at the time when the integral of f_i reaches the sum of k
   draws of N(1, 0.2).
3. Action potentials. Bi- and triphasic Hermite-Rodriguez functions (Lo Conte et al. 1994),
   H_n(t/w) exp(-(t/w)^2), n = 1, 2, mixed per unit; deeper units are wider (tissue is a low pass).
4. Electrodes. 16 evenly on a ring of radius R; gain (d0 / d)^p by the distance d of unit and
   electrode (power law of a muscle fibre source, Roeleveld et al. 1997). The band sits rotated,
   and tilted, so that potentials arrive delayed by tilt cos(angle) / 4 m/s.
5. Recorder. Gain per channel, mains hum, white noise, motion artefacts (decaying swings of 2-12
   Hz), then the amplifier's 20 Hz high pass.
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from embridge.training.synth_muscles import MUSCLES, PLACES, Control, activations, draw_control

Floats = NDArray[np.float64]

CHANNELS = 16
UNITS = 24  # motor units per muscle
_THRESHOLD_RANGE, _LAST_RECRUITED, _SIZE_RANGE = 30.0, 0.6, 20.0
_FIRST_RATE_HZ, _RATE_GAIN_HZ, _INTERVAL_CV = 8.0, 40.0, 0.2
_PEAK_RATE_HZ = (35.0, 25.0)  # of the first and of the last unit
_CONDUCTION_MM_PER_S = 4000.0
_RING_MM, _NEAR_MM, _DECAY = 28.0, 8.0, 2.0
CONTROL_HZ = 200  # rate of activations and firing rates; spikes are placed in between


@dataclass(frozen=True, slots=True)
class Anatomy:
    """One user's forearm; U = muscles x UNITS units, those of a muscle in order of recruitment."""

    control: Control
    muscle: NDArray[np.intp]  # (U,) which muscle a unit belongs to
    threshold: Floats  # (U,) activation above which it fires
    peak_rate_hz: Floats  # (U,)
    size_uv: Floats  # (U,) action potential at an electrode _NEAR_MM away
    width_s: Floats  # (U,) w of the Hermite-Rodriguez function
    triphasic: Floats  # (U,) share of n = 2
    angle_rad: Floats  # (U,)
    radius_mm: Floats  # (U,)


@dataclass(frozen=True, slots=True)
class Band:
    """One donning of the electrode band."""

    rotation_rad: float = 0.0
    tilt_mm: float = 0.0
    tilt_towards_rad: float = 0.0
    gain: Floats | float = 1.0  # (C,)
    hum_hz: float = 50.0
    hum_uv: Floats | float = 0.0  # (C,) amplitude
    noise_uv: Floats | float = 0.0  # (C,) rms
    artefacts_per_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Spikes:
    """Firings of all units: `unit[k]` fires at `time_s[k]`."""

    unit: NDArray[np.intp]
    time_s: Floats


def draw_anatomy(random: np.random.Generator) -> Anatomy:
    """A user: muscle places and strengths jittered about the fixed map."""
    muscles = len(MUSCLES)
    centre_rad = np.deg2rad(PLACES[:, 0] + random.normal(0.0, 11.0, muscles))
    depth = PLACES[:, 1] + random.normal(0.0, 0.05, muscles)
    muscle = np.repeat(np.arange(muscles), UNITS)  # U
    order = np.tile(np.arange(1, UNITS + 1) / UNITS, muscles)  # U, 1 for the last recruited
    share = np.clip(depth[muscle] + random.normal(0.0, 0.05, muscle.size), 0.2, 0.85)
    threshold = _LAST_RECRUITED * _THRESHOLD_RANGE ** (order - 1.0)
    first_hz, last_hz = _PEAK_RATE_HZ
    return Anatomy(
        control=draw_control(random),
        muscle=muscle,
        threshold=threshold,
        peak_rate_hz=first_hz - (first_hz - last_hz) * threshold / _LAST_RECRUITED,
        size_uv=random.uniform(12.0, 20.0) * _SIZE_RANGE ** (order - 1.0 / UNITS),
        width_s=random.uniform(1.6e-3, 2.6e-3, muscle.size) * (1.0 + 0.8 * (0.85 - share)),
        triphasic=random.uniform(0.2, 0.8, muscle.size),
        angle_rad=centre_rad[muscle] + np.deg2rad(random.normal(0.0, 7.0, muscle.size)),
        radius_mm=share * _RING_MM,
    )


def draw_band(random: np.random.Generator, hum_hz: float) -> Band:
    """A donning: rotated by at most half the electrode spacing, tilted by at most 4 mm."""
    spacing_rad = 2.0 * np.pi / CHANNELS
    return Band(
        rotation_rad=random.uniform(-0.5, 0.5) * spacing_rad,
        tilt_mm=random.uniform(0.0, 4.0),
        tilt_towards_rad=random.uniform(0.0, 2.0 * np.pi),
        gain=random.lognormal(0.0, 0.12, CHANNELS),
        hum_hz=hum_hz,
        hum_uv=random.lognormal(np.log(0.8), 0.5, CHANNELS),
        noise_uv=random.uniform(2.5, 4.5, CHANNELS),
        artefacts_per_s=0.1,
    )


def fire(
    activation: Floats, rate_hz: float, anatomy: Anatomy, random: np.random.Generator
) -> Spikes:
    """Step 2: activation (T, M) at rate_hz -> spikes of all units."""
    level = activation[:, anatomy.muscle]  # T U
    rate = np.minimum(
        _FIRST_RATE_HZ + _RATE_GAIN_HZ * (level - anatomy.threshold), anatomy.peak_rate_hz
    )
    phase = np.cumsum(np.where(level > anatomy.threshold, rate, 0.0), axis=0) / rate_hz  # T U
    clock_s = np.arange(1, len(phase) + 1) / rate_hz
    units, times = [], []
    for unit in np.flatnonzero(phase[-1] > 0):
        count = int(1.5 * phase[-1, unit]) + 8
        intervals = np.maximum(random.normal(1.0, _INTERVAL_CV, count), 0.3)
        due = np.cumsum(intervals) - random.uniform(0.0, 1.0) * intervals[0]
        due = due[due < phase[-1, unit]]
        times.append(np.interp(due, phase[:, unit], clock_s, left=0.0))
        units.append(np.full(due.size, unit))
    if not units:
        return Spikes(np.zeros(0, np.intp), np.zeros(0))
    return Spikes(np.concatenate(units), np.concatenate(times))


def potentials(
    spikes: Spikes, anatomy: Anatomy, band: Band, samples: int, rate_hz: float
) -> NDArray[np.float32]:
    """Steps 3 and 4: spikes -> (T, C) uV at the electrodes, without disturbances."""
    size = scipy.fft.next_fast_len(samples + int(0.04 * rate_hz), real=True)
    active, row = np.unique(spikes.unit, return_inverse=True)
    position = spikes.time_s * rate_hz
    whole = position.astype(np.intp)
    late = position - whole  # a spike between two samples is shared by them
    flat = row * size + whole
    trains = np.bincount(flat, 1.0 - late, active.size * size)
    trains += np.bincount(flat + 1, late, active.size * size)
    spectrum = scipy.fft.rfft(trains.reshape(active.size, size).astype(np.float32))  # U F
    frequency_hz = scipy.fft.rfftfreq(size, 1.0 / rate_hz)  # F
    spectrum *= _action_potentials(anatomy, active, frequency_hz, rate_hz)
    electrode = band.rotation_rad + 2.0 * np.pi * np.arange(CHANNELS) / CHANNELS  # C
    mixed = _gains(anatomy, active, electrode).astype(np.float32) @ spectrum  # C F
    delay_s = band.tilt_mm / _CONDUCTION_MM_PER_S * np.cos(electrode - band.tilt_towards_rad)
    mixed *= np.exp(-2j * np.pi * delay_s[:, None] * frequency_hz)
    emg = scipy.fft.irfft(mixed, size)[:, :samples].T  # T C
    return np.asarray(emg * band.gain, np.float32)


def disturb(
    emg: NDArray[np.float32], band: Band, rate_hz: float, random: np.random.Generator
) -> NDArray[np.float32]:
    """Step 5: (T, C) uV clean -> as recorded."""
    samples, channels = emg.shape
    time_s = np.arange(samples)[:, None] / rate_hz  # T 1
    turn = 2.0 * np.pi * band.hum_hz * time_s + random.uniform(0.0, 2.0 * np.pi)
    hum = band.hum_uv * (np.sin(turn) + 0.3 * np.sin(3.0 * turn))  # T C
    noise = band.noise_uv * random.standard_normal((samples, channels))
    recorded = emg + hum + noise
    for _ in range(random.poisson(band.artefacts_per_s * samples / rate_hz)):
        since_s = np.maximum(time_s - random.uniform(0.0, samples / rate_hz), 0.0)
        swing = np.exp(-since_s / 0.15) * np.sin(2.0 * np.pi * random.uniform(2, 12) * since_s)
        away = np.arange(channels) - random.integers(channels)
        near = np.exp(-0.5 * (np.abs((away + channels / 2) % channels - channels / 2) / 1.5) ** 2)
        recorded += random.lognormal(np.log(250.0), 0.5) * swing * near
    high_pass = scipy.signal.butter(2, 20.0, "highpass", fs=rate_hz, output="sos")
    return np.asarray(scipy.signal.sosfilt(high_pass, recorded, axis=0), np.float32)


def simulate(
    pose: Floats, rate_hz: float, anatomy: Anatomy, band: Band, random: np.random.Generator
) -> NDArray[np.float32]:
    """All steps: pose (T, 20) in rad -> EMG (T, C) in uV as recorded."""
    step = round(rate_hz / CONTROL_HZ)
    activation = activations(pose[::step], rate_hz / step, anatomy.control)  # T' M
    activation = np.clip(activation * (1.0 + 0.2 * _common_drive(activation.shape, random)), 0, 1)
    spikes = fire(activation, rate_hz / step, anatomy, random)
    return disturb(potentials(spikes, anatomy, band, len(pose), rate_hz), band, rate_hz, random)


def _common_drive(shape: tuple[int, ...], random: np.random.Generator) -> Floats:
    """Fluctuation below 2 Hz of unit variance, (T, M)."""
    warm_up = int(CONTROL_HZ)
    low_pass = scipy.signal.butter(2, 2.0, fs=CONTROL_HZ, output="sos")
    white = random.standard_normal((shape[0] + warm_up, *shape[1:]))
    bandwidth_hz = 2.0 * np.pi / (2.0 * np.sqrt(2.0))  # noise bandwidth of a 2nd-order Butterworth
    slow = scipy.signal.sosfilt(low_pass, white, axis=0)[warm_up:]
    return np.asarray(slow / np.sqrt(bandwidth_hz / (CONTROL_HZ / 2.0)))


def _action_potentials(
    anatomy: Anatomy, active: NDArray[np.intp], frequency_hz: Floats, rate_hz: float
) -> NDArray[np.complex64]:
    """Spectra of the action potentials, (U, F): d^n/dt^n of a Gaussian is (2 pi i f)^n of it."""
    width_s = anatomy.width_s[active, None].astype(np.float32)  # U 1
    triphasic = anatomy.triphasic[active, None].astype(np.float32)
    size = anatomy.size_uv[active, None].astype(np.float32)
    turn = (2.0 * np.pi * frequency_hz * width_s).astype(np.float32)  # U F
    gaussian = rate_hz * np.sqrt(np.pi) * width_s * np.exp(-((turn / 2.0) ** 2))
    peak1, peak2 = np.sqrt(2.0) * np.exp(-0.5), 2.0  # of H_n(x) exp(-x^2)
    shape = 1j * turn * (1.0 - triphasic) / peak1 - turn**2 * triphasic / peak2
    return np.asarray(size * gaussian * shape, np.complex64)


def _gains(anatomy: Anatomy, active: NDArray[np.intp], electrode_rad: Floats) -> Floats:
    """(C, U): what of a unit's potential reaches each electrode."""
    radius = anatomy.radius_mm[active]
    turn = electrode_rad[:, None] - anatomy.angle_rad[active]  # C U
    distance = np.sqrt(_RING_MM**2 + radius**2 - 2.0 * _RING_MM * radius * np.cos(turn))
    return np.asarray((_NEAR_MM / distance) ** _DECAY)

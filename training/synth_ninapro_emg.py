"""What NinaPro's recorders make of the forearm's potentials: electrodes, rate, unit of each set.

The model's 16 electrodes stand for all of them: eight evenly spaced make the ring, one between them
on either side of the arm stands for flexor and extensor digitorum, two far off for biceps and
triceps. A second Myo sits half a spacing further (DB5).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
import scipy.signal
from numpy.typing import NDArray

from embridge.device.ninapro import RING
from embridge.device.ninapro_subjects import LEFT_HANDED, mirror_ring
from embridge.training.synth_glove import draw_glove
from embridge.training.synth_model import Anatomy, Band, draw_anatomy, draw_band, simulate

Floats = NDArray[np.float64]

_RING = tuple(range(0, 16, 2))
_BETWEEN = tuple(range(1, 16, 2))
_FLEXOR, _EXTENSOR, _BICEPS, _TRICEPS = 1, 9, 3, 11
_FAR_AWAY = 0.2  # of the forearm's EMG at the upper arm
_OTTO_BOCK_V_PER_UV = 0.014  # DB1: amplified 14 000 times
_OTTO_BOCK_STEP_V = 0.0024


@dataclass(frozen=True, slots=True)
class Subject:
    """A forearm, a donning of electrodes and of the glove."""

    anatomy: Anatomy
    band: Band
    glove: Floats


def draw_subject(random: np.random.Generator) -> Subject:
    """A subject in a laboratory with 50 Hz mains."""
    return Subject(draw_anatomy(random), draw_band(random, hum_hz=50.0), draw_glove(random))


@dataclass(frozen=True, slots=True)
class Recorder:
    """One set's recorder. shape: (T', 16) uV at `model_hz` -> (T, C) at `rate_hz`, in its unit."""

    source: str
    model_hz: int
    rate_hz: int
    electrodes: tuple[int, ...]
    shape: Callable[[Floats], Floats]

    def record(
        self,
        pose: Floats,
        trial: int,
        person: Subject,
        subject: int,
        random: np.random.Generator,
    ) -> Floats:
        """EMG (T, C) of a hand's angles (T', 20) at `model_hz`, simulated `trial` rows at a time.

        Left-handed subjects' ring runs the other way round, as in the real set.
        """
        parts = [
            simulate(pose[row : row + trial], self.model_hz, person.anatomy, person.band, random)
            for row in range(0, len(pose), trial)
        ]
        emg = np.concatenate(parts)[:, self.electrodes]
        if subject in LEFT_HANDED.get(self.source, ()):
            emg = mirror_ring(emg, RING)
        return self.shape(emg.astype(np.float64))


def _trigno(emg: Floats) -> Floats:
    """Delsys Trigno: volts; the last two electrodes are on the upper arm."""
    far = np.ones(emg.shape[1])
    far[-2:] = _FAR_AWAY
    return 1e-6 * far * emg


def _otto_bock(emg: Floats) -> Floats:
    """Otto Bock: amplified, moving root mean square over 100 ms, every 10th sample."""
    power = scipy.ndimage.uniform_filter1d(emg**2, 100, axis=0, origin=49)
    volts = _OTTO_BOCK_V_PER_UV * np.sqrt(np.maximum(power, 0.0))[::10]
    return np.asarray(np.clip(np.round(volts / _OTTO_BOCK_STEP_V), 1, 2000) * _OTTO_BOCK_STEP_V)


def _myo(emg: Floats) -> Floats:
    """Two Myos: whole counts -128..127, every 5th sample."""
    slow = scipy.signal.resample_poly(emg, 1, 5, axis=0)
    return np.asarray(np.clip(np.round(slow), -128, 127))


SETS = {
    "db1": Recorder("ninapro-db1", 1000, 100, (*_RING, _FLEXOR, _EXTENSOR), _otto_bock),
    "db2": Recorder(
        "ninapro-db2", 2000, 2000, (*_RING, _FLEXOR, _EXTENSOR, _BICEPS, _TRICEPS), _trigno
    ),
    "db5": Recorder("ninapro-db5", 1000, 200, (*_RING, *_BETWEEN), _myo),
    "db7": Recorder(
        "ninapro-db7", 2000, 2000, (*_RING, _FLEXOR, _EXTENSOR, _BICEPS, _TRICEPS), _trigno
    ),
}

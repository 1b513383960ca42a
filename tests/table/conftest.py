"""Generated users of the NinaPro DB1 kind, in which what leaks would be seen."""

from collections.abc import Callable

import numpy as np
import pytest

from embridge.device.ninapro import EXERCISE_A
from embridge.device.recordings import REST, Recording
from embridge.training.table.data import UserWindows, users_of

SENSORS, CHANNELS = 8, 10
REPETITIONS = 5
MARK = 1000.0  # channel 0 of the EMG of a marked gesture carries it


def db1_recording(number: int, *, noise: float = 0.2, marked: tuple[int, ...] = ()) -> Recording:
    """One user: pose -> log envelope is linear, so unseen gestures can be inferred."""
    common = np.random.default_rng(0)
    poses = common.standard_normal((13, SENSORS)) * 2
    poses[0] = 0
    mixing = common.standard_normal((SENSORS, CHANNELS)) * 0.3
    rng = np.random.default_rng(100 + number)
    gain = rng.normal(0, 0.3, CHANNELS)
    gesture, repetition, trial = [0] * 20, [0] * 20, [0] * 20
    for g in range(1, 13):
        for r in range(1, REPETITIONS + 1):
            length = int(rng.integers(80, 120))
            gesture += [g] * length + [0] * 20
            repetition += [r] * length + [0] * 20
            trial += [max(trial) + 1] * length + [0] * 20
    labels = np.array(gesture)
    slow = np.repeat(rng.normal(0, 0.3, (len(labels) // 20 + 1, SENSORS)), 20, axis=0)
    pose = poses[labels] + slow[: len(labels)]
    log = pose @ mixing + gain - 2 + rng.normal(0, noise, (len(labels), CHANNELS))
    emg = np.exp(log)
    emg[np.isin(labels, marked), 0] = MARK
    return Recording(
        name=f"S{number}_A1_E1",
        source="ninapro-db1",
        user=f"s{number}",
        session="1",
        rate_hz=100.0,
        emg=emg.astype(np.float32),
        emg_unit="V",
        is_envelope=True,
        pose=(pose * 10 + 100 + number).astype(np.float32),
        pose_unit="raw glove",
        pose_valid=np.ones(len(labels), bool),
        gestures=(REST, *EXERCISE_A),
        gesture=labels.astype(np.int16),
        trial=np.array(trial, np.int32),
        repetition=np.array(repetition, np.int16),
        ring=8,
    )


@pytest.fixture(scope="session")
def db1() -> Callable[..., Recording]:
    """(number, noise=, marked=) -> the recording of one user."""
    return db1_recording


@pytest.fixture(scope="session")
def users() -> list[UserWindows]:
    """Six users, s1 to s6."""
    return users_of(db1_recording(number) for number in range(1, 7))

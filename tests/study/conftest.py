"""Handmade recordings in which whatever leaks would be seen, and a study of them."""

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from embridge.device.recordings import UNLABELLED, Recording
from embridge.training.config import PRESETS, Config, load_config
from embridge.training.study import Study, make_study
from embridge.training.windows import WindowSet


class Handmade:
    """Recordings of six users with all gestures each, and the configuration to study them."""

    RATE_HZ = 200.0
    GESTURES = ("rest", "fist", "pinch", "point", "thumb", "horns", "spread")
    UNSEEN = ("pinch", "horns")
    WINDOW, HOP, TRAIN_HOP = 40, 20, 10
    USERS = ("s1", "s2", "s10", "s11", "s12", "s20")

    def rows_of_a_session(
        self, repetitions: int = 3, held: int = 95, rest: int = 50
    ) -> list[NDArray]:
        """gesture, trial, repetition of a session: all gestures in turn, several times."""
        parts: list[tuple[int, int, int, int]] = [(0, 0, 0, rest)]  # ... samples
        trial = 0
        for repetition in range(1, repetitions + 1):
            for gesture in range(1, len(self.GESTURES)):
                trial += 1
                parts += [(gesture, trial, repetition, held), (0, 0, 0, rest)]
            parts.append((UNLABELLED, 0, 0, 7))
        counts = [samples for *_, samples in parts]
        return [np.repeat([part[i] for part in parts], counts) for i in range(3)]

    def session(self, user: str, seed: int, repetitions: int = 3) -> Recording:
        """All gestures in one file, as NinaPro has them; poses and amplitudes tell them apart."""
        rng = np.random.default_rng(seed)
        gesture, trial, repetition = self.rows_of_a_session(repetitions)
        samples = len(gesture)
        emg = rng.standard_normal((samples, 3)) * (2 + gesture[:, None]) * rng.uniform(0.5, 2, 3)
        pose = rng.standard_normal((len(self.GESTURES), 4))[gesture]
        pose = pose + rng.normal(0, 0.1, (samples, 4))
        valid = np.ones(samples, bool)
        valid[300:320] = False
        return Recording(
            name=f"{user}.mat",
            source="ninapro-db2",
            user=user,
            session=user,
            rate_hz=self.RATE_HZ,
            emg=emg.astype(np.float32),
            emg_unit="uV",
            is_envelope=False,
            pose=pose.astype(np.float32),
            pose_unit="deg",
            pose_valid=valid,
            gestures=self.GESTURES,
            gesture=gesture.astype(np.int16),
            trial=trial.astype(np.int32),
            repetition=repetition.astype(np.int16),
        )

    def one_stage(self, recording: Recording, stage: str) -> Recording:
        """The second repetition of one gesture as a file of its own, as emg2pose has them."""
        rows = np.flatnonzero(recording.gesture == self.GESTURES.index(stage))[:100]
        one = np.ones(len(rows))
        return dataclasses.replace(
            recording,
            name=f"{recording.user}-{stage}",
            emg=recording.emg[rows],
            pose=None if recording.pose is None else recording.pose[rows],
            pose_valid=np.ones(len(rows), bool),
            gestures=(stage,),
            gesture=np.zeros(len(rows), np.int16),
            trial=one.astype(np.int32),
            repetition=one.astype(np.int16),
        )

    def configured(self, *overrides: str) -> Config:
        """Filters with a long memory: whatever rings on would be seen."""
        fixed = [
            f"data.window_ms={1000 * self.WINDOW / self.RATE_HZ}",
            f"data.hop_ms={1000 * self.HOP / self.RATE_HZ}",
            f"data.train_hop_ms={1000 * self.TRAIN_HOP / self.RATE_HZ}",
            f"data.unseen_gestures={list(self.UNSEEN)}",
            "data.pose_scaling=global",
            "front_end.notch_hz=[50]",
            "front_end.compression=log",
        ]
        return load_config(PRESETS / "raw_slow.toml", [*fixed, *overrides])

    def hidden(self, recording: Recording) -> NDArray[np.bool_]:
        """(T,) rows of unseen gestures."""
        return np.isin(recording.gesture, [self.GESTURES.index(name) for name in self.UNSEEN])

    def inputs(self, study: Study, windows: WindowSet) -> NDArray[np.float32]:
        """All windows as the encoder sees them, in tier T1."""
        return windows.encoder_input(np.arange(len(windows)), study.plan.front_end, study.profiles)


@pytest.fixture(scope="session")
def handmade() -> Handmade:
    return Handmade()


@pytest.fixture(scope="session")
def recordings(handmade: Handmade) -> list[Recording]:
    return [handmade.session(user, seed) for seed, user in enumerate(reversed(handmade.USERS))]


@pytest.fixture(scope="session")
def study(handmade: Handmade, recordings: list[Recording]) -> Study:
    return make_study(handmade.configured(), recordings, "handmade")

"""Regression from pose to EMG: the strong simple method, and the prior of the small-data recipe.

The user's own data leave the encoder alone and change where poses lie in EMG space: from T2 on with
their labels, in T1 with guesses of them (self-training).
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from embridge.training.pose_to_emg import PoseToEmg, PoseToEmgConfig
from embridge.training.table.guess import GestureGuess
from embridge.training.table.inputs import EncoderInputs
from embridge.training.table.protocol import Adapted, Tier, TrainSet, UserData
from embridge.training.table.ridge import mean_pose, own_targets

OWN_WEIGHT = 30.0  # of one own window against one of the population's
_LEAST_SHARE = 0.02  # of a window; guesses below are not worth a row


@dataclass
class RidgeToEmg:
    """One row of the table. EMG features: the window's mean root envelope of each channel.

    align: bring electrodes together by rotation or reflection, from T1 on
    guess: in T1, learn from the user's unlabelled runs too
    """

    tier: Tier
    align: bool = True
    guess: bool = False
    config: PoseToEmgConfig = field(default_factory=PoseToEmgConfig)
    _inputs: EncoderInputs = field(init=False)
    _emg: NDArray[np.float64] = field(init=False)  # (N, C)
    _pose: NDArray[np.float64] = field(init=False)  # (N, J)
    _label: NDArray[np.int64] = field(init=False)
    _guess: GestureGuess = field(init=False)
    _space: PoseToEmg = field(init=False)

    def fit(self, training: TrainSet) -> None:
        """Learn the population's map."""
        known = self.tier is not Tier.T0
        self._inputs = EncoderInputs.of(training, align=self.align and known)
        windows = self._inputs.of_training(training, profiles=known)
        self._emg, self._pose = mean_emg(windows), mean_pose(training.pose)
        self._label = training.label
        if self.guess:
            self._guess = GestureGuess.of(self._emg, self._label)
        self._space = self._fitted(self._emg, self._pose, self._label, None)

    def embed_pose(self, pose: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, J, T) -> (N, C)."""
        return _poses(self._space, pose)

    def adapt(self, user: UserData) -> Adapted:
        """The user's profile; from T2 on, or by guesses, also the user's own map."""
        inputs = self._inputs.of_user(user)
        space = self.with_own(user) if self.learns_from_user else self._space

        def embed(emg: NDArray[np.float32]) -> NDArray[np.float32]:
            features = torch.from_numpy(mean_emg(inputs(emg)).astype(np.float32))
            return np.asarray(space.emg(features).numpy())

        return Adapted(embed, embed_pose=lambda pose: _poses(space, pose))

    @property
    def learns_from_user(self) -> bool:
        """Whether the user's own windows enter the map, and not only the profile."""
        return self.guess or self.tier in (Tier.T2, Tier.T3)

    def with_own(self, user: UserData) -> PoseToEmg:
        """The map of the population and this user together; ValueError in T0."""
        if user.emg is None or user.run is None:
            raise ValueError(f"expected EMG of the user's own, got tier {user.tier}")
        emg = mean_emg(self._inputs.of_user(user)(user.emg))
        row, pose, share = self._own_pairs(user, emg)
        return self._fitted(
            np.concatenate([self._emg, emg[row]]),
            np.concatenate([self._pose, pose]),
            np.concatenate([self._label, user.run[row] + 1000]),  # groups apart
            np.concatenate([np.ones(len(self._emg)), OWN_WEIGHT * share]),
        )

    def _own_pairs(
        self, user: UserData, emg: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
        """Which own windows go with which poses (M, J), and to what share of the window, (M,)."""
        if user.label is not None:
            poses = own_targets(user, self._pose, self._label)
            return np.arange(len(emg)), poses, np.ones(len(emg))
        if user.run is None:
            raise ValueError(f"expected runs of the user's own, got tier {user.tier}")
        shares = self._guess(emg, user.run)
        row, column = np.nonzero(shares > _LEAST_SHARE)
        mean = np.stack([self._pose[self._label == g].mean(axis=0) for g in self._guess.classes])
        return row, mean[column], shares[row, column]

    def _fitted(
        self,
        emg: NDArray[np.float64],
        pose: NDArray[np.float64],
        group: NDArray[np.int64],
        weight: NDArray[np.float64] | None,
    ) -> PoseToEmg:
        space = PoseToEmg(pose.shape[1], emg.shape[1], self.config)
        space.fit(emg, pose, group, weight)
        return space


def mean_emg(inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, C, T) -> (N, C)."""
    return np.asarray(inputs.mean(axis=2, dtype=np.float64))


def _poses(space: PoseToEmg, pose: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(space(torch.from_numpy(mean_pose(pose).astype(np.float32))).numpy())

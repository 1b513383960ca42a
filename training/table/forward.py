"""Regression from pose to EMG: the strong simple method, and the prior of the small-data recipe.

The rows of T2 and T3 leave the encoder alone: what a user's own labelled or paired data change is
where poses lie in EMG space.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from embridge.training.pose_to_emg import PoseToEmg, PoseToEmgConfig
from embridge.training.table.inputs import EncoderInputs
from embridge.training.table.protocol import Adapted, Tier, TrainSet, UserData
from embridge.training.table.ridge import OWN_WEIGHT, mean_pose, own_targets


@dataclass
class RidgeToEmg:
    """One row of the table. EMG features: the window's mean root envelope of each channel.

    align: bring electrodes together by rotation or reflection, from T1 on
    """

    tier: Tier
    align: bool = True
    config: PoseToEmgConfig = field(default_factory=PoseToEmgConfig)
    _inputs: EncoderInputs = field(init=False)
    _emg: NDArray[np.float64] = field(init=False)  # (N, C)
    _pose: NDArray[np.float64] = field(init=False)  # (N, J)
    _label: NDArray[np.int64] = field(init=False)
    _space: PoseToEmg = field(init=False)

    def fit(self, training: TrainSet) -> None:
        """Learn the population's map."""
        known = self.tier is not Tier.T0
        self._inputs = EncoderInputs.of(training, align=self.align and known)
        windows = self._inputs.of_training(training, profiles=known)
        self._emg, self._pose = mean_emg(windows), mean_pose(training.pose)
        self._label = training.label
        self._space = self._fitted(self._emg, self._pose, self._label, None)

    def embed_pose(self, pose: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N, J, T) -> (N, C)."""
        return _poses(self._space, pose)

    def adapt(self, user: UserData) -> Adapted:
        """The user's profile; from T2 on also the user's own map."""
        inputs, space = self._inputs.of_user(user), self._space
        if user.label is not None:
            space = self.with_own(user)

        def embed(emg: NDArray[np.float32]) -> NDArray[np.float32]:
            features = torch.from_numpy(mean_emg(inputs(emg)).astype(np.float32))
            return np.asarray(space.emg(features).numpy())

        return Adapted(embed, embed_pose=lambda pose: _poses(space, pose))

    def with_own(self, user: UserData) -> PoseToEmg:
        """The map of the population and this user together; ValueError below T2."""
        if user.emg is None or user.label is None:
            raise ValueError(f"expected labelled EMG of the user's own, got tier {user.tier}")
        emg = mean_emg(self._inputs.of_user(user)(user.emg))
        pose = own_targets(user, self._pose, self._label)
        weight = np.repeat([1.0, OWN_WEIGHT], [len(self._emg), len(emg)])
        return self._fitted(
            np.concatenate([self._emg, emg]),
            np.concatenate([self._pose, pose]),
            np.concatenate([self._label, user.label + 1000]),  # groups apart
            weight,
        )

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

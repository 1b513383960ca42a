"""Ridge regression from EMG features to the window's mean glove: the baseline of all tiers.

Reading of the protocol that gives the known .346 (T1, class means) on the twelve users: features
are means over the window of log(emg + 0.02) and of sqrt(emg), 20 in all; every user's, trained on
or not, are standardised over the user's own seen gestures, repetitions 1, 3 and 4 (T0: over the
training users together); all training windows count alike, with intercept; the glove is
standardised per user over the windows' means of all gestures; a class mean is the mean of
unit-length gallery poses. With the mean of the poses as they are it is .338.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from embridge.device.electrodes import (
    Alignment,
    Order,
    Signature,
    align,
    orders,
    reordered,
)
from embridge.training.table.features import (
    Scaling,
    envelope_features,
    log_envelope,
    scaled_by_user,
    scaling_for,
)
from embridge.training.table.protocol import Adapted, Tier, TrainSet, UserData

ALPHA = 1000.0
OWN_WEIGHT = 10.0  # of one own window against one of the population's, T2 and T3
RANDOM_FEATURES = 500


@dataclass
class RidgeToPose:
    """One row of the table.

    align: bring electrodes together by rotation ("rotation") or also reflection ("reflection")
    random_features: cosines added to the features (Rahimi and Recht 2007), drawn by `seed`
    population: learn from the training users; False: from the user's own paired data alone (T3)
    """

    tier: Tier
    align: str = "none"
    random_features: int = 0
    population: bool = True
    seed: int = 0
    _pooled: Scaling = field(init=False)
    _alignment: Alignment | None = field(init=False, default=None)
    _inputs: NDArray[np.float64] = field(init=False)
    _targets: NDArray[np.float64] = field(init=False)
    _label: NDArray[np.int64] = field(init=False)
    _model: Ridge = field(init=False)

    def fit(self, training: TrainSet) -> None:
        """Learn the population's regression; T2 and T3 add the user's own windows in `adapt`."""
        raw = envelope_features(training.emg)
        self._pooled = Scaling.of(raw)
        scaled = self._pooled(raw) if self.tier is Tier.T0 else scaled_by_user(training, raw)
        if self.align != "none":
            scaled = self._align(training, scaled)
        self._inputs = self._lifted(scaled)
        self._targets, self._label = mean_pose(training.pose), training.label
        self._model = Ridge(alpha=ALPHA).fit(self._inputs, self._targets)

    def embed_pose(self, pose: NDArray[np.float32]) -> NDArray[np.float64]:
        """The window's mean glove, (N, J, T) -> (N, J)."""
        return mean_pose(pose)

    def adapt(self, user: UserData) -> Adapted:
        """Standardise and align as the tier allows; in T2 and T3 learn from the user too."""
        scaling = scaling_for(user, self._pooled, envelope_features)
        order = self._order(user)

        def features(emg: NDArray[np.float32]) -> NDArray[np.float64]:
            scaled = scaling(envelope_features(emg))
            return self._lifted(scaled if order is None else reordered(scaled, order))

        model = self._model
        if user.emg is not None and user.label is not None:
            model = self._with_own(
                features(user.emg), own_targets(user, self._targets, self._label)
            )
        return Adapted(lambda emg: np.asarray(model.predict(features(emg))))

    def _align(self, training: TrainSet, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        log = log_envelope(training.emg)
        choices = orders(training.ring, log.shape[1], reflect=self.align == "reflection")
        people = [training.user == number for number in range(len(training.users))]
        signatures = [Signature.of(log[mine & training.calibration]) for mine in people]
        self._alignment, chosen = align(signatures, choices)
        aligned = np.empty_like(scaled)
        for mine, order in zip(people, chosen, strict=True):
            aligned[mine] = reordered(scaled[mine], order)
        return aligned

    def _order(self, user: UserData) -> Order | None:
        if self._alignment is None or user.emg is None:
            return None
        return self._alignment.order(Signature.of(log_envelope(user.emg)))

    def _lifted(self, scaled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add cosines whose bandwidth is the typical distance of two standardised windows."""
        if not self.random_features:
            return scaled
        rng = np.random.default_rng(self.seed)
        width = scaled.shape[1]
        directions = rng.standard_normal((width, self.random_features)) / math.sqrt(2 * width)
        phase = rng.uniform(0, 2 * np.pi, self.random_features).astype(np.float32)
        cosines = np.cos(scaled.astype(np.float32) @ directions.astype(np.float32) + phase)
        return np.asarray(np.concatenate([scaled, cosines], axis=1))

    def _with_own(self, inputs: NDArray[np.float64], targets: NDArray[np.float64]) -> Ridge:
        if not self.population:
            return Ridge(alpha=ALPHA).fit(inputs, targets)
        weight = np.repeat([1.0, OWN_WEIGHT], [len(self._inputs), len(inputs)])
        return Ridge(alpha=ALPHA).fit(
            np.concatenate([self._inputs, inputs]),
            np.concatenate([self._targets, targets]),
            sample_weight=weight,
        )


def own_targets(
    user: UserData, targets: NDArray[np.float64], label: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Pose (N, J) of a user's own windows, from the population's targets (M, J) and labels (M,).

    T2: the population's mean pose of each gesture; T3: the own glove, on the population's scale.
    ValueError below T2.
    """
    if user.pose is not None:
        return np.asarray(mean_pose(user.pose) * targets.std(axis=0) + targets.mean(axis=0))
    if user.label is None:
        raise ValueError(f"expected labels of the user's own windows, got tier {user.tier}")
    means = {gesture: targets[label == gesture].mean(axis=0) for gesture in np.unique(label)}
    return np.stack([means[gesture] for gesture in user.label])


def mean_pose(pose: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, J, T) -> (N, J)."""
    return np.asarray(pose.mean(axis=2, dtype=np.float64))


@dataclass
class GloveItself:
    """The test window's own glove as query: what a perfect encoder of EMG into pose would reach."""

    tier: Tier = Tier.POSE

    def fit(self, training: TrainSet) -> None:
        """Nothing to learn."""

    def embed_pose(self, pose: NDArray[np.float32]) -> NDArray[np.float64]:
        """The window's mean glove."""
        return mean_pose(pose)

    def adapt(self, user: UserData) -> Adapted:
        """ValueError: there is no EMG encoder, and the referee asks for none in this tier."""
        raise ValueError("tier `pose` has no EMG encoder: its queries are the user's own poses")

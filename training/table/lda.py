"""LDA on Hudgins' features: what labels of the seen gestures give without any pose."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from embridge.training.table.features import (
    Scaling,
    hudgins_features,
    scaled_by_user,
    scaling_for,
)
from embridge.training.table.protocol import Classifier, Tier, TrainSet, UserData


@dataclass
class HudginsLda:
    """Shrinkage LDA of the training users' seen gestures, in T2 of the user's own alone."""

    tier: Tier
    _pooled: Scaling = field(init=False)
    _model: LinearDiscriminantAnalysis = field(init=False)

    def fit(self, training: TrainSet) -> None:
        """Features standardised over all training users (T0) or over each user's calibration."""
        raw = hudgins_features(training.emg)
        self._pooled = Scaling.of(raw)
        scaled = self._pooled(raw) if self.tier is Tier.T0 else scaled_by_user(training, raw)
        self._model = _lda().fit(scaled, training.label)

    def adapt(self, user: UserData) -> Classifier:
        """The user's own statistics from T1 on, the user's own classifier in T2."""
        scaling = scaling_for(user, self._pooled, hudgins_features)

        def features(emg: NDArray[np.float32]) -> NDArray[np.float64]:
            return scaling(hudgins_features(emg))

        model = self._model
        if user.emg is not None and user.label is not None:
            model = _lda().fit(features(user.emg), user.label)
        return lambda emg: np.asarray(model.predict(features(emg)))


def _lda() -> LinearDiscriminantAnalysis:
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")

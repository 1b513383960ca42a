"""Reference rows that any encoder must beat."""

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from embridge.training.evaluate import Queries
from embridge.training.material import balanced_batch
from embridge.training.study import Study

TRAINING_WINDOWS = 4000


def emg_features(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean and standard deviation per channel: (N, C, T) -> (N, 2C)."""
    return np.concatenate([windows.mean(axis=2), windows.std(axis=2)], axis=1)


def ridge_to_pose(study: Study, seed: int = 0) -> Queries:
    """Ridge regression from EMG features to the window's mean pose; its output is the query."""
    windows = study.training_windows()
    index = balanced_batch(windows, TRAINING_WINDOWS, np.random.default_rng(seed))
    inputs = windows.encoder_input(index, study.plan.front_end, study.profiles)
    model = Ridge(alpha=1.0).fit(emg_features(inputs), windows.pose(index).mean(axis=2))
    return lambda test: np.asarray(model.predict(emg_features(test)))

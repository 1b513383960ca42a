"""A linear model of the EMG that a pose goes with, and the space both are compared in.

Our addition, for data too small to learn this from: the paper aligns EMG with a learned pose
embedding alone. A regression EMG -> pose collapses unseen gestures onto the seen ones next to them;
pose -> EMG does not (Shigeto et al. 2015, "Ridge regression, hubness, and zero-shot learning").
"""

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveFloat
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from embridge.training.section import Section


class PoseToEmgConfig(Section):
    """power: p; ridge: penalty for each unit of weight; shrink: of the covariance to its mean."""

    power: PositiveFloat = 1.5
    ridge: PositiveFloat = 2.5
    shrink: NonNegativeFloat = 1.0


class PriorConfig(PoseToEmgConfig):
    """How much of the pose space is this one, and how firmly encoders are held to it.

    share: of the squared length of a pose's embedding, 0: no prior; weight: of the loss term that
    asks of each EMG vector what s(x) of its window is
    """

    share: float = Field(0.0, ge=0, lt=1)
    weight: NonNegativeFloat = 5.0


Features = Literal["mean", "rms"]


def emg_features(windows: Tensor, kind: Features) -> Tensor:
    """Encoder input (B, C, T) -> (B, C): mean of what is an envelope, else RMS."""
    if kind == "mean":
        return windows.mean(dim=2)
    return root_mean_square(windows)


def root_mean_square(x: Tensor) -> Tensor:
    """Over the last dimension; the gradient stays finite where all is zero."""
    return (x.square().mean(dim=-1) + 1e-6).sqrt()


class PoseToEmg(nn.Module):
    """x(v) = W [max(v, 0)^p, max(-v, 0)^p] + b, compared as s(x) = unit((x - mean) A).

    Muscles pull only: flexing and extending a joint are the work of different ones, so each joint
    counts twice. A A^T = (S + shrink tr(S)/F I)^-1 for S, the covariance within gestures, so that
    cosines weigh directions by how well they tell gestures apart.
    """

    weight: Tensor  # (2J, F)
    bias: Tensor  # (F,)
    mean: Tensor  # (F,)
    whitening: Tensor  # (F, F)

    def __init__(
        self, joints: int, features: int, config: PoseToEmgConfig, kind: Features = "mean"
    ) -> None:
        """joints: J, standardised; features: F of the EMG, standardised per wearer; kind: which."""
        super().__init__()
        self.config, self.features, self.kind = config, features, kind
        self.register_buffer("weight", torch.zeros(2 * joints, features))
        self.register_buffer("bias", torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("whitening", torch.eye(features))

    def fit(
        self,
        emg: NDArray[np.floating[Any]],
        pose: NDArray[np.floating[Any]],
        group: NDArray[np.int64],
        weight: NDArray[np.float64] | None = None,
    ) -> None:
        """emg: (N, F), pose: (N, J), group: (N,) what `S` is within, weight: (N,), 1 by default."""
        config = self.config
        weights = np.ones(len(emg)) if weight is None else weight
        inputs = self._rectified(torch.from_numpy(np.asarray(pose, np.float64))).numpy()
        model = Ridge(alpha=config.ridge * weights.sum()).fit(inputs, emg, sample_weight=weights)
        within = np.asarray(emg, np.float64).copy()
        for number in np.unique(group):
            mine = group == number
            within[mine] -= within[mine].mean(axis=0)
        covariance = np.cov(within.T, aweights=weights)
        spread = np.trace(covariance) / len(covariance)
        shrunk = covariance + config.shrink * spread * np.eye(len(covariance))
        self._take("weight", model.coef_.T)
        self._take("bias", model.intercept_)
        self._take("mean", np.average(emg, axis=0, weights=weights))
        self._take("whitening", np.linalg.cholesky(np.linalg.inv(shrunk)))

    def of_windows(self, windows: Tensor) -> Tensor:
        """s(x) of encoder input: (B, C, T) -> (B, C), unit length."""
        return self.emg(emg_features(windows, self.kind))

    def emg(self, features: Tensor) -> Tensor:
        """s(x) of EMG features: (B, F) -> (B, F), unit length."""
        return F.normalize((features - self.mean) @ self.whitening, dim=-1)

    def forward(self, pose: Tensor) -> Tensor:
        """s(x(v)) of mean poses: (B, J) -> (B, F), unit length."""
        return self.emg(self.expected(pose))

    def whitened_as(self, vectors: Tensor, other: "PoseToEmg") -> Tensor:
        """s(x) here -> s(x) of another map, each vector's length kept: (..., F) -> (..., F).

        Both means are taken to be the same, as they nearly are of EMG standardised per wearer.
        """
        turned: Tensor = vectors @ torch.linalg.solve(self.whitening, other.whitening)
        length: Tensor = vectors.norm(dim=-1, keepdim=True)
        return F.normalize(turned, dim=-1) * length

    def expected(self, pose: Tensor) -> Tensor:
        """x(v), EMG features of mean poses: (B, J) -> (B, F)."""
        return self._rectified(pose) @ self.weight + self.bias

    def _rectified(self, pose: Tensor) -> Tensor:
        return torch.cat([pose.clamp(min=0), (-pose).clamp(min=0)], dim=1) ** self.config.power

    def _take(self, name: str, values: NDArray[np.floating[Any]]) -> None:
        buffer = self.get_buffer(name)
        buffer.copy_(torch.from_numpy(np.ascontiguousarray(values)).to(buffer))

"""The `base` encoder, E_x and what turns its tokens into vectors in the pose space: its head."""

import torch.nn.functional as F
from torch import Tensor, nn

from embridge.training.encoders import PatchEncoder
from embridge.training.qformer import QFormer


class BaseEncoder(nn.Module):
    """E_x alone, for methods that are not aligned to poses: its vector is [CLS].

    Whatever the head, one window becomes M unit vectors (M = 1 here), and `features` is what a
    linear probe reads.
    """

    def __init__(self, encoder: PatchEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def queries(self, emg: Tensor) -> tuple[Tensor, Tensor]:
        """emg: (B, C, T) -> what the head makes (B, M, D), and its vectors, unit (B, M, D)."""
        hidden = self.encoder(emg)[:, :1]
        return hidden, F.normalize(hidden, dim=-1)

    def features(self, emg: Tensor) -> Tensor:
        """emg: (B, C, T) -> (B, D), mean of the M vectors before projection and unit length.

        Fact: the mean over queries, not the query closest to the pose, which would leak the pose;
        [CLS] where there is no Q-Former. Ours: before the projection.
        """
        return self.queries(emg)[0].mean(dim=1)

    def forward(self, emg: Tensor) -> Tensor:
        """emg: (B, C, T) -> (B, M, D), unit length."""
        return self.queries(emg)[1]


class ProjectedBase(BaseEncoder):
    """CPEP's EMG side (fact): one linear layer on [CLS], one vector for a window."""

    def __init__(self, encoder: PatchEncoder, embedding: int) -> None:
        """embedding: D of the pose space, which need not be the encoder's."""
        super().__init__(encoder)
        self.project = nn.Linear(encoder.dim, embedding)

    def queries(self, emg: Tensor) -> tuple[Tensor, Tensor]:
        """emg: (B, C, T) -> [CLS] (B, 1, D) and its projection, unit length (B, 1, D)."""
        hidden = self.encoder(emg)[:, :1]
        return hidden, F.normalize(self.project(hidden).float(), dim=-1)


class QFormerBase(BaseEncoder):
    """EMBridge's EMG side: E_x, Q-Former pass 1, projection (ours); M vectors for a window."""

    def __init__(self, encoder: PatchEncoder, qformer: QFormer, embedding: int) -> None:
        """embedding: D of the pose space, which need not be the encoder's."""
        super().__init__(encoder)
        self.qformer = qformer
        self.project = nn.Linear(encoder.dim, embedding)

    def queries(self, emg: Tensor) -> tuple[Tensor, Tensor]:
        """emg: (B, C, T) -> Q' (B, M, D) and its projection, unit length (B, M, D)."""
        hidden = self.qformer(self.encoder(emg))
        return hidden, F.normalize(self.project(hidden).float(), dim=-1)

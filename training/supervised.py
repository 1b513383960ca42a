"""The unimodal baseline: EMG -> joint angles by regression; its features go to a linear probe."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embridge.training.base import BaseEncoder


class PoseRegression(nn.Module):
    """L = mean | W z + b - pose |, the MAE of joint angles that emg2pose is trained by.

    Fact: MAE of angles. Ours: E_x in place of emg2pose's network, and no fingertip term, which
    gloves cannot give. Each patch token predicts its patch's mean pose, [CLS] the window's, so that
    [CLS], which the probe reads, is trained too.
    """

    def __init__(self, base: BaseEncoder, joints: int) -> None:
        super().__init__()
        self.base = base
        self.out = nn.Linear(base.encoder.dim, joints)

    def forward(self, emg: Tensor, pose: Tensor) -> Tensor:
        """emg: (B, C, T), pose: (B, J, T) -> loss."""
        return F.l1_loss(self.out(self.base.encoder(emg)), self._targets(pose))

    def _targets(self, pose: Tensor) -> Tensor:
        """(B, 1 + P, J): mean pose of the window, then of each patch."""
        encoder = self.base.encoder
        patches = pose[:, :, : encoder.patches * encoder.patch]
        patches = patches.reshape(*pose.shape[:2], encoder.patches, encoder.patch)  # B J P S
        means = [pose.mean(dim=2, keepdim=True), patches.mean(dim=3)]
        return torch.cat(means, dim=2).transpose(1, 2)

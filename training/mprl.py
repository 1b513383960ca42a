"""MPRL, masked pose reconstruction: pose tokens rebuilt with what the queries know of the EMG."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embridge.training.qformer import QFormer


class MaskedPoseReconstruction(nn.Module):
    """L = 1/|M| sum_{m in M} || g(H_P[m]) - P[m] ||^2, H_P from the Q-Former's second pass.

    Fact: the loss and the two passes. Ours: P is the frozen pose encoder's patch embedding without
    position, half of it is masked, g is a linear layer after the Q-Former's layer norm, and ||.||^2
    is the mean over D. Position is added after masking: masked slots would be anonymous otherwise.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.g = nn.Linear(dim, dim)

    def forward(
        self, qformer: QFormer, queries: Tensor, patches: Tensor, position: Tensor, hidden: Tensor
    ) -> Tensor:
        """-> loss, whose gradient reaches the EMG encoder through `queries`.

        queries: (B, M, D) Q' of pass 1, not detached; patches: (B, P, D) P; position: (1, P, D);
        hidden: (B, P) bool, True where masked
        """
        shown = torch.where(hidden[..., None], self.mask_token, patches) + position
        rebuilt = self.g(qformer.beside(queries, shown))  # B P D
        return F.mse_loss(rebuilt[hidden], patches[hidden])

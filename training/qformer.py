"""The Q-Former: learned queries that read the EMG tokens."""

import torch
from torch import Tensor, nn

from embridge.training.encoders import Block, PatchEncoder


class QFormer(nn.Module):
    """BLIP-2's Q-Former as EMBridge uses it.

    Fact: 4 self-attention blocks that start from the pretrained pose encoder, cross-attention in
    every other one, 16 queries. Ours: in blocks 0 and 2 (each block is as the encoders' are).
    """

    def __init__(self, pose_encoder: PatchEncoder, queries: int) -> None:
        super().__init__()
        dim = pose_encoder.dim
        self.queries = nn.Parameter(torch.randn(1, queries, dim) * 0.02)
        self.blocks = nn.ModuleList(
            Block(dim, pose_encoder.heads, pose_encoder.feed_forward, cross=i % 2 == 0)
            for i in range(pose_encoder.depth)
        )
        self.norm = nn.LayerNorm(dim)

    def start_from(self, pose_encoder: PatchEncoder) -> None:
        """Copy the self-attention and MLP of the pretrained pose encoder; cross-attention stays."""
        for block, pretrained in zip(self.blocks, pose_encoder.blocks, strict=True):
            block.load_state_dict(pretrained.state_dict(), strict=False)

    def forward(self, emg_tokens: Tensor) -> Tensor:
        """Pass 1. emg_tokens: (B, N, D) -> queries Q' (B, M, D)."""
        z = self.queries.expand(len(emg_tokens), -1, -1)
        for block in self.blocks:
            z = block(z, emg_tokens)
        return self.norm(z)  # type: ignore[no-any-return]

    def beside(self, queries: Tensor, pose_tokens: Tensor) -> Tensor:
        """Pass 2: self-attention over [Q' ; pose tokens] -> pose positions H_P (B, P, D).

        queries: (B, M, D) of pass 1; pose_tokens: (B, P, D) with position
        Fact: pose tokens reach the EMG through Q' alone. Ours: so there is no cross-attention in
        this pass, and queries may not read pose tokens (BLIP-2's mask for generated text).
        """
        count, patches = queries.shape[1], pose_tokens.shape[1]
        size = count + patches
        allowed = torch.ones(size, size, dtype=torch.bool, device=queries.device)
        allowed[:count, count:] = False
        z = torch.cat([queries, pose_tokens], dim=1)  # B M+P D
        for block in self.blocks:
            z = block(z, None, allowed)
        return self.norm(z[:, count:])  # type: ignore[no-any-return]

"""Stage 1 of EMBridge: masked autoencoding of EMG and of pose, each by itself."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embridge.training.draws import shuffled
from embridge.training.encoders import Block, PatchEncoder


class MaskedAutoencoder(nn.Module):
    """L = 1/|M| sum_{i in M} || psi(phi({z_j}_{j not in M}))_i - z_i ||^2 (CPEP and EMBridge).

    Fact: the visible half alone is encoded (phi), a decoder (psi) rebuilds, masked patches count.
    Ours: the decoder's size, the mean over a patch's values, and that the decoder also reads [CLS].
    Without that [CLS] has no gradient, and [CLS] is the embedding everything is later aligned to.
    """

    def __init__(self, encoder: PatchEncoder, decoder_dim: int, mask_ratio: float) -> None:
        super().__init__()
        self.encoder, self.mask_ratio = encoder, mask_ratio
        dim, patch_dim = encoder.embed_patch.out_features, encoder.embed_patch.in_features
        self.enter = nn.Linear(dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_dim))
        self.position = nn.Parameter(torch.randn(1, encoder.patches, decoder_dim) * 0.02)
        self.blocks = nn.ModuleList(Block(decoder_dim, 4, 2 * decoder_dim) for _ in range(2))
        self.out = nn.Linear(decoder_dim, patch_dim)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> loss."""
        batch, patches = len(x), self.encoder.patches
        order = shuffled(batch, patches, like=x)
        visible = max(1, int(patches * (1 - self.mask_ratio)))
        keep, masked = order[:, :visible], order[:, visible:]
        z = self.enter(self.encoder(x, keep))  # B 1+P' D
        spots = keep[..., None].expand(-1, -1, z.shape[-1])
        full = self.mask_token.to(z.dtype).expand(batch, patches, -1)
        full = full.scatter(1, spots, z[:, 1:])
        full = torch.cat([z[:, :1], full + self.position], dim=1)  # B 1+P D
        for block in self.blocks:
            full = block(full)
        where = masked[..., None].expand(-1, -1, self.out.out_features)
        rebuilt = torch.gather(self.out(full[:, 1:]), 1, where)
        return F.mse_loss(rebuilt, torch.gather(self.encoder.tokens(x), 1, where))

"""EMBridge's two encoders, E_x of EMG and E_p of pose: Transformers over temporal patches.

Cui et al., "EMBridge", ICLR 2026. Where the sources are silent the choice is ours and said so.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embridge.training.pose_to_emg import PoseToEmg, root_mean_square

PatchFeatures = Literal["waveform", "rms"]


class Attention(nn.Module):
    """Multi-head attention over `context` (the input itself when None)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D), context: (B, M, D), mask: (N, M) True where attention is allowed."""
        context = x if context is None else context
        batch, tokens, dim = x.shape
        q = self.query(x).view(batch, tokens, self.heads, -1).transpose(1, 2)  # B H N D/H
        k, v = (
            self.key_value(context)
            .view(batch, context.shape[1], 2, self.heads, -1)
            .permute(2, 0, 3, 1, 4)  # 2 B H M D/H
        )
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(y.transpose(1, 2).reshape(batch, tokens, dim))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Pre-norm Transformer block, with cross-attention where asked for."""

    def __init__(self, dim: int, heads: int, feed_forward: int, cross: bool = False) -> None:
        super().__init__()
        self.norm_self, self.attend_self = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm_cross = nn.LayerNorm(dim) if cross else None
        self.attend_cross = Attention(dim, heads) if cross else None
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, feed_forward), nn.GELU(), nn.Linear(feed_forward, dim)
        )

    def forward(
        self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """x: (B, N, D) -> (B, N, D); cross-attention is skipped without a context."""
        x = x + self.attend_self(self.norm_self(x), mask=mask)
        if context is not None and self.attend_cross and self.norm_cross:
            x = x + self.attend_cross(self.norm_cross(x), context)
        return x + self.mlp(self.norm_mlp(x))  # type: ignore[no-any-return]


class PatchEncoder(nn.Module):
    """Transformer over temporal patches with a [CLS] token: E_x for EMG, E_p for pose.

    instance_norm: "channel" or "window" standardises each window as the paper does; "none" keeps
    amplitudes, which is what envelopes carry.
    features: "waveform" embeds the samples of a patch as the paper does; "rms" embeds the root
    mean square of each channel in it, our choice where data are few: masked waveforms of EMG are
    noise that cannot be predicted, and a linear embedding does not see their power.
    """

    def __init__(
        self,
        channels: int,
        window: int,
        patch: int,
        dim: int,
        depth: int,
        heads: int,
        feed_forward: int,
        instance_norm: Literal["none", "window", "channel"] = "none",
        features: PatchFeatures = "waveform",
    ) -> None:
        super().__init__()
        self.patch, self.patches = patch, window // patch
        self.instance_norm, self.features = instance_norm, features
        self.dim, self.depth, self.heads, self.feed_forward = dim, depth, heads, feed_forward
        per_channel = patch if features == "waveform" else 1
        self.embed_patch = nn.Linear(channels * per_channel, dim)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, self.patches + 1, dim) * 0.02)
        self.blocks = nn.ModuleList(Block(dim, heads, feed_forward) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)

    def tokens(self, x: Tensor) -> Tensor:
        """x: (B, C, T) -> patches (B, P, C * S), or the RMS of each (B, P, C)."""
        if self.instance_norm != "none":
            axes = (1, 2) if self.instance_norm == "window" else (2,)
            x = (x - x.mean(axes, keepdim=True)) / (x.std(axes, keepdim=True) + 1e-5)
        batch, channels, _ = x.shape
        x = x[:, :, : self.patches * self.patch]
        x = x.reshape(batch, channels, self.patches, self.patch).permute(0, 2, 1, 3)  # B P C S
        if self.features == "rms":
            return root_mean_square(x)
        return x.reshape(batch, self.patches, channels * self.patch)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """x: (B, C, T) -> (B, 1 + P, D), [CLS] first; keep: (B, P') patches to encode."""
        z = self.embed_patch(self.tokens(x)) + self.position[:, 1:]  # B P D
        if keep is not None:
            z = torch.gather(z, 1, keep[..., None].expand(-1, -1, z.shape[-1]))
        cls = (self.cls + self.position[:, :1]).expand(len(z), -1, -1)
        z = torch.cat([cls, z], dim=1)
        for block in self.blocks:
            z = block(z)
        return self.norm(z)  # type: ignore[no-any-return]


class PoseEmbedder(nn.Module):
    """The frozen pose encoder's embedding space: v = unit([CLS] - mean of [CLS] over training).

    Subtracting the mean is our addition: raw [CLS] vectors share a large common component, which
    crowds all cosines towards 1 and leaves int8 codes few levels to tell gestures apart.

    With a prior (ours, for small data) that vector makes up a share 1 - `share` of the squared
    length, and s(x(v)) of `PoseToEmg` the rest, in front: v = [sqrt(share) s, sqrt(1 - share) c].
    """

    mean: Tensor
    centroids: Tensor

    def __init__(
        self,
        encoder: PatchEncoder,
        clusters: int,
        prior: PoseToEmg | None = None,
        share: float = 0.0,
    ) -> None:
        """clusters: N_c, how many k-means centroids of the training poses CASCLe keeps."""
        super().__init__()
        self.encoder, self.prior, self.share = encoder, prior, share
        self.register_buffer("mean", torch.zeros(encoder.dim))
        dim = encoder.dim + (prior.features if prior else 0)
        self.register_buffer("centroids", torch.zeros(clusters, dim))

    def features(self, pose: Tensor) -> Tensor:
        """pose: (B, J, T) -> [CLS] (B, D), what a linear probe reads."""
        return self.encoder(pose)[:, 0]  # type: ignore[no-any-return]

    def forward(self, pose: Tensor) -> Tensor:
        """pose: (B, J, T) -> (B, D), or (B, F + D) with a prior of F features; unit length."""
        learned = F.normalize(self.features(pose) - self.mean, dim=-1)
        if self.prior is None:
            return learned
        front = self.share**0.5 * self.prior(pose.mean(dim=2))
        return torch.cat([front, (1 - self.share) ** 0.5 * learned], dim=1)

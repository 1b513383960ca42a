"""EMBridge's encoders: patch Transformers pretrained by masked reconstruction, and the Q-Former.

Cui et al., "EMBridge", ICLR 2026. Where the sources are silent the choice is ours and said so.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    features: "waveform" embeds the samples of a patch as the paper does; "power" embeds the log
    power of each channel in it, our choice where data are few: masked waveforms of EMG are noise
    that cannot be predicted, and a linear embedding does not see their power.
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
        features: Literal["waveform", "power"] = "waveform",
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
        """x: (B, C, T) -> patches (B, P, C * S), or their log power (B, P, C)."""
        if self.instance_norm != "none":
            axes = (1, 2) if self.instance_norm == "window" else (2,)
            x = (x - x.mean(axes, keepdim=True)) / (x.std(axes, keepdim=True) + 1e-5)
        batch, channels, _ = x.shape
        x = x[:, :, : self.patches * self.patch]
        x = x.reshape(batch, channels, self.patches, self.patch).permute(0, 2, 1, 3)  # B P C S
        if self.features == "power":
            return (x.square().mean(dim=3) + 1e-3).log()
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


class MaskedAutoencoder(nn.Module):
    """Masked reconstruction: encode the visible half, rebuild the rest, MSE on what was masked.

    The decoder also reads [CLS], which the sources leave open: without it [CLS] has no gradient,
    and [CLS] is the pose embedding that everything is later aligned to.
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
        order = torch.rand(batch, patches, device=x.device).argsort(dim=1)
        visible = max(1, int(patches * (1 - self.mask_ratio)))
        keep, masked = order[:, :visible], order[:, visible:]
        z = self.enter(self.encoder(x, keep))  # B 1+P' D
        spots = keep[..., None].expand(-1, -1, z.shape[-1])
        full = self.mask_token.expand(batch, patches, -1).scatter(1, spots, z[:, 1:])
        full = torch.cat([z[:, :1], full + self.position], dim=1)  # B 1+P D
        for block in self.blocks:
            full = block(full)
        where = masked[..., None].expand(-1, -1, self.out.out_features)
        rebuilt = torch.gather(self.out(full[:, 1:]), 1, where)
        return F.mse_loss(rebuilt, torch.gather(self.encoder.tokens(x), 1, where))


class PoseEmbedder(nn.Module):
    """The frozen pose encoder's embedding space: v = unit([CLS] - mean of [CLS] over training).

    Subtracting the mean is our addition: raw [CLS] vectors share a large common component, which
    crowds all cosines towards 1 and leaves int8 codes few levels to tell gestures apart.
    """

    mean: Tensor
    centroids: Tensor

    def __init__(self, encoder: PatchEncoder, clusters: int) -> None:
        """clusters: N_c, how many k-means centroids of the training poses CASCLe keeps."""
        super().__init__()
        self.encoder = encoder
        dim = encoder.embed_patch.out_features
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("centroids", torch.zeros(clusters, dim))

    def forward(self, pose: Tensor) -> Tensor:
        """pose: (B, J, T) -> (B, D), unit length."""
        return F.normalize(self.encoder(pose)[:, 0] - self.mean, dim=-1)


class QFormer(nn.Module):
    """Learned queries that read the EMG tokens (BLIP-2's Q-Former, as EMBridge uses it).

    Self-attention starts from the pretrained pose encoder; every other block has cross-attention.
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
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.rebuild = nn.Linear(dim, dim)  # g(.), the light decoder of MPRL

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

    def masked_pose_loss(
        self, queries: Tensor, pose_patches: Tensor, position: Tensor, mask_ratio: float
    ) -> Tensor:
        """Pass 2, MPRL: rebuild masked pose tokens from the visible ones and Q' alone.

        queries: (B, M, D) not detached; pose_patches: (B, P, D) without position;
        position: (1, P, D)
        Queries may not read pose tokens, and there is no cross-attention to the EMG.
        """
        batch, patches, _ = pose_patches.shape
        count = queries.shape[1]
        chosen = torch.rand(batch, patches, device=queries.device).argsort(dim=1)
        chosen = chosen[:, : max(1, int(patches * mask_ratio))]
        masked = torch.zeros(batch, patches, dtype=torch.bool, device=queries.device)
        masked = masked.scatter(1, chosen, True)
        hidden = torch.where(masked[..., None], self.mask_token, pose_patches) + position
        allowed = torch.ones(
            count + patches, count + patches, dtype=torch.bool, device=queries.device
        )
        allowed[:count, count:] = False
        z = torch.cat([queries, hidden], dim=1)  # B M+P D
        for block in self.blocks:
            z = block(z, None, allowed)
        rebuilt = self.rebuild(self.norm(z[:, count:]))
        return F.mse_loss(rebuilt[masked], pose_patches[masked])


class BaseEncoder(nn.Module):
    """EMBridge's EMG side: E_x, Q-Former pass 1, projection; M unit vectors for one window."""

    def __init__(self, encoder: PatchEncoder, qformer: QFormer) -> None:
        super().__init__()
        dim = encoder.embed_patch.out_features
        self.encoder, self.qformer = encoder, qformer
        self.project = nn.Linear(dim, dim)

    def queries(self, emg: Tensor) -> tuple[Tensor, Tensor]:
        """emg: (B, C, T) -> Q' (B, M, D) and its projection, unit length (B, M, D)."""
        hidden = self.qformer(self.encoder(emg))
        return hidden, F.normalize(self.project(hidden), dim=-1)

    def forward(self, emg: Tensor) -> Tensor:
        """emg: (B, C, T) -> (B, M, D)."""
        return self.queries(emg)[1]

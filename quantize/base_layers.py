"""The `base` encoder as boards run it, in float or with integer linears.

Both forms come from a trained `QFormerBase` and keep the names of its weights. Attention is written
as two products and a softmax, which every backend knows. In the integer form each linear reads and
writes codes; everything between stays float: softmax, layer norm, GELU, attention products,
residual and position adds, features of patches.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from embridge.quantize.layers import QuantLayers, qnn
from embridge.quantize.recipes import Recipe
from embridge.quantize.silence import quiet
from embridge.training.base import QFormerBase
from embridge.training.config import BaseConfig
from embridge.training.encoders import Attention, PatchEncoder
from embridge.training.plan import samples
from embridge.training.qformer import QFormer

with quiet():
    from brevitas.quant import Int8WeightPerChannelFloat


@dataclass(frozen=True, slots=True)
class BaseShape:
    """Everything that fixes the network: C channels and T samples in, M queries of D out."""

    config: BaseConfig
    channels: int
    window: int
    rate_hz: float
    embedding: int  # D

    @property
    def queries(self) -> int:
        """M."""
        return self.config.queries

    def untrained(self) -> QFormerBase:
        """An encoder of this shape, as `training.models.build_models` makes it."""
        base = self.config
        encoder = PatchEncoder(
            self.channels,
            self.window,
            samples(base.patch_ms, self.rate_hz),
            base.dim,
            base.depth,
            base.heads,
            base.feed_forward,
            base.instance_norm,
            base.features,
        )
        return QFormerBase(encoder, QFormer(encoder, base.queries), self.embedding)


class WindowEncoder(nn.Module):
    """One window in, its query vectors out; unit length is left to the caller."""

    def __init__(self, shape: BaseShape, base: QFormerBase) -> None:
        super().__init__()
        self.shape, self.base = shape, base

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, 1, T) -> (B, M * D)."""
        hidden = self.base.qformer(self.base.encoder(x.flatten(2)))  # B M D
        return self.base.project(hidden).flatten(1)  # type: ignore[no-any-return]

    def embed(self, windows: Tensor) -> Tensor:
        """windows: (B, C, T) -> (B, M, D), not normalised."""
        return self(windows.unsqueeze(2)).unflatten(1, (self.shape.queries, -1))  # type: ignore[no-any-return]


class PlainAttention(nn.Module):
    """`training.encoders.Attention` without a mask, in operators that backends know."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = attention.heads
        self.query, self.key_value = attention.query, attention.key_value
        self.out = attention.out

    def forward(self, x: Tensor, context: Tensor | None = None, mask: None = None) -> Tensor:
        """x: (B, N, D), context: (B, M, D) -> (B, N, D); there is no mask."""
        batch, tokens, dim = x.shape
        both = self.key_value(x if context is None else context)  # B M 2D
        q, k, v = map(self._per_head, (self.query(x), both[..., :dim], both[..., dim:]))
        scores = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2))  # BH N M
        y = torch.bmm(scores.softmax(dim=-1), v)  # BH N D/H
        y = y.view(batch, self.heads, tokens, -1).transpose(1, 2)  # B N H D/H
        return self.out(y.reshape(batch, tokens, dim))  # type: ignore[no-any-return]

    def _per_head(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B * H, N, D / H), since a product of 4 axes is expanded and not fused."""
        x = x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # B H N D/H
        return x.flatten(0, 1)


class IntegerLinear(nn.Module):
    """A linear layer between two quantizers: codes in, codes out, int8 weights per output channel.

    The bias stays float here; each backend requantizes it to int32.
    """

    def __init__(self, linear: nn.Linear, recipe: Recipe) -> None:
        super().__init__()
        layers = QuantLayers(recipe)
        self.enter, self.leave = layers.identity(), layers.identity()
        self.linear = qnn.QuantLinear(
            linear.in_features,
            linear.out_features,
            bias=True,
            weight_quant=Int8WeightPerChannelFloat,
            weight_bit_width=recipe.weight_bits,
            bias_quant=None,
        )
        with torch.no_grad():
            self.linear.weight.copy_(linear.weight)
            self.linear.bias.copy_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., C) -> (..., D)."""
        return self.leave(self.linear(self.enter(x)))  # type: ignore[no-any-return]


def float_form(shape: BaseShape, encoder: QFormerBase) -> WindowEncoder:
    """A copy of `encoder` as boards run it; equal to it but for unit length and rounding."""
    base = copy.deepcopy(encoder).cpu().eval()
    for module in list(base.modules()):
        for name, child in module.named_children():
            if isinstance(child, Attention):
                setattr(module, name, PlainAttention(child))
    return WindowEncoder(shape, base).eval()


def integer_form(shape: BaseShape, encoder: QFormerBase, recipe: Recipe) -> WindowEncoder:
    """The same with quantized linears; activation ranges are not set: see `base_quantizer`."""
    twin = float_form(shape, encoder)
    for module in list(twin.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear) and not isinstance(module, IntegerLinear):
                setattr(module, name, IntegerLinear(child, recipe))
    return twin.eval()


def linears_of(twin: WindowEncoder) -> list[IntegerLinear]:
    """The quantized linears, in the order of their names."""
    return [module for module in twin.modules() if isinstance(module, IntegerLinear)]

"""The `watch` encoder: a causal convolutional network for microcontrollers and NPUs.

Every convolution is "valid": it is never padded, so an output depends on samples at or before its
own time and on nothing outside the window. Streaming frame by frame and recomputing a window
therefore give the same numbers, and no PAD operator reaches the int8 graph.

Written once for float and for quantized layers: `Layers` makes the three kinds of module needed.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from embridge.training.batch_norm import BatchNorm


@dataclass(frozen=True, slots=True)
class Stage:
    """One convolution stage: output channels, kernel length and stride, both in time steps."""

    width: int
    kernel: int
    stride: int


WatchSize = Literal["s", "m", "l"]
_TIMES_AS_WIDE: dict[WatchSize, float] = {"s": 0.5, "m": 1.0, "l": 2.0}
_WIDTH_STEP = 8  # NPUs compute channels in groups of 8


def sized(stage: Stage, size: WatchSize) -> Stage:
    """The stage of an `m` network, in another size: its width scaled, a multiple of 8."""
    if size == "m":
        return stage
    width = _WIDTH_STEP * round(_TIMES_AS_WIDE[size] * stage.width / _WIDTH_STEP)
    return replace(stage, width=max(width, _WIDTH_STEP))


@dataclass(frozen=True, slots=True)
class WatchShape:
    """Everything that fixes the network: C channels, T samples in, D embedding out."""

    channels: int
    window: int
    embedding: int
    stem: Stage
    blocks: tuple[Stage, ...]

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Stem and blocks in turn."""
        return (self.stem, *self.blocks)

    @property
    def stride(self) -> int:
        """Samples between two frames that are pooled: the product of all strides."""
        return math.prod(stage.stride for stage in self.stages)

    def frames(self) -> int:
        """Time steps that are left to pool after all strides; raises ValueError when none is."""
        steps = self.window
        for stage in self.stages:
            if not 1 <= stage.stride <= 3:
                raise ValueError(f"stride {stage.stride}: Ethos-U55 and U65 take 1 to 3")
            steps = (steps - stage.kernel) // stage.stride + 1
            if steps < 1:
                raise ValueError(
                    f"window of {self.window} samples is shorter than the receptive field of the "
                    "watch encoder; use a longer window or smaller kernels"
                )
        return steps

    def macs(self) -> int:
        """Multiply-accumulates of one window."""
        steps = (self.window - self.stem.kernel) // self.stem.stride + 1
        total = steps * self.stem.width * self.channels * self.stem.kernel
        width = self.stem.width
        for stage in self.blocks:
            steps = (steps - stage.kernel) // stage.stride + 1
            total += steps * width * (stage.kernel + stage.width)
            width = stage.width
        return total + width * self.embedding


class Layers(Protocol):
    """Makes the layers of an encoder, in float or quantized."""

    def conv(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> nn.Conv2d:
        """Conv2d (1, kernel) without padding, with bias."""

    def relu(self) -> nn.Module:
        """ReLU, followed by its quantizer where there is one."""

    def identity(self) -> nn.Module:
        """The quantizer of an input or output; nothing in float."""


class FloatLayers:
    """Plain torch layers."""

    def conv(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> nn.Conv2d:
        """Conv2d (1, kernel) without padding, with bias."""
        return nn.Conv2d(
            channels_in, channels_out, (1, kernel), stride=(1, stride), groups=groups, bias=True
        )

    def relu(self) -> nn.Module:
        """ReLU."""
        return nn.ReLU()

    def identity(self) -> nn.Module:
        """Identity."""
        return nn.Identity()


class Stem(nn.Module):
    """Convolution over all electrodes at once."""

    def __init__(self, channels: int, stage: Stage, layers: Layers) -> None:
        super().__init__()
        self.conv = layers.conv(channels, stage.width, stage.kernel, stage.stride)
        self.norm: nn.Module = BatchNorm(stage.width)
        self.relu = layers.relu()

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, 1, T) -> (B, D, 1, T')."""
        return self.relu(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class SeparableBlock(nn.Module):
    """Depthwise-separable convolution (MobileNet, Howard et al. 2017, section 3.1)."""

    def __init__(self, width_in: int, stage: Stage, layers: Layers) -> None:
        super().__init__()
        self.depthwise = layers.conv(
            width_in, width_in, stage.kernel, stage.stride, groups=width_in
        )
        self.norm1: nn.Module = BatchNorm(width_in)
        self.relu1 = layers.relu()
        self.pointwise = layers.conv(width_in, stage.width, 1)
        self.norm2: nn.Module = BatchNorm(stage.width)
        self.relu2 = layers.relu()

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, D, 1, T) -> (B, D', 1, T')."""
        x = self.relu1(self.norm1(self.depthwise(x)))
        return self.relu2(self.norm2(self.pointwise(x)))  # type: ignore[no-any-return]


class WatchEncoder(nn.Module):
    """Window -> embedding, all integer once quantized; unit length is left to the caller."""

    def __init__(self, shape: WatchShape, layers: Layers | None = None) -> None:
        super().__init__()
        shape.frames()
        layers = layers or FloatLayers()
        self.shape = shape
        self.input = layers.identity()
        self.stem = Stem(shape.channels, shape.stem, layers)
        widths = [shape.stem.width, *(stage.width for stage in shape.blocks)]
        self.blocks = nn.ModuleList(
            SeparableBlock(width, stage, layers)
            for width, stage in zip(widths, shape.blocks, strict=False)
        )
        # The pool shares its input's quantizer, one scale; relu of a mean of relus is that mean.
        self.pooled = cast(SeparableBlock, self.blocks[-1]).relu2
        self.head = layers.conv(widths[-1], shape.embedding, 1)
        self.output = layers.identity()

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, 1, T) -> (B, D, 1, 1)."""
        x = self.stem(self.input(x))
        for block in self.blocks:
            x = block(x)
        x = self.pooled(x.mean(dim=(2, 3), keepdim=True))  # B D 1 1
        return self.output(self.head(x))  # type: ignore[no-any-return]

    def embed(self, windows: Tensor) -> Tensor:
        """windows: (B, C, T) -> (B, D), not normalised."""
        return self(windows.unsqueeze(2)).flatten(1)  # type: ignore[no-any-return]


def fold_batch_norm(encoder: WatchEncoder) -> WatchEncoder:
    """Return a copy without batch norm whose outputs equal those of `encoder` in eval mode."""
    folded = WatchEncoder(encoder.shape)
    folded.load_state_dict(encoder.state_dict())
    folded.eval()
    with torch.no_grad():
        for stem_or_block in (folded.stem, *folded.blocks):
            pairs = (
                [("conv", "norm")]
                if isinstance(stem_or_block, Stem)
                else [("depthwise", "norm1"), ("pointwise", "norm2")]
            )
            for conv, norm in pairs:
                fused = fuse_conv_bn_eval(
                    getattr(stem_or_block, conv), getattr(stem_or_block, norm)
                )
                setattr(stem_or_block, conv, fused)
                setattr(stem_or_block, norm, nn.Identity())
    return folded

"""The quantized layers of an encoder, made with brevitas, and the recipes that choose them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from embridge.quantize.silence import quiet
from embridge.training.watch import Layers, WatchEncoder, WatchShape, fold_batch_norm

with quiet():  # at import, brevitas warns about an optional package
    import brevitas.nn as qnn
    from brevitas.core.quant import IntQuant
    from brevitas.graph.calibrate import calibration_mode
    from brevitas.quant import (
        Int8ActPerTensorFloat,
        Int8WeightPerChannelFloat,
        Uint8ActPerTensorFloat,
    )

__all__ = [
    "RECIPES",
    "QuantLayers",
    "Recipe",
    "calibration_mode",
    "folded_encoder",
    "qnn",
    "quantized_twin",
]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to quantize: bits, the calibration percentile, and the training steps after it.

    percentile: share of |activation| values, in percent, that the range covers (the rest clips)
    qat_steps: optimiser steps of distillation with fake quantization; 0 = calibration only
    """

    weight_bits: int = 8
    act_bits: int = 8
    percentile: float = 99.999
    qat_steps: int = 0
    learning_rate: float = 1e-4


RECIPES = {
    "w8a8": Recipe(),
    "w8a8-qat": Recipe(qat_steps=200),
}


class KernelRounding(IntQuant):  # type: ignore[misc]
    """Codes by x * (1 / scale), as kernels and `quantized_decomposed` do; brevitas divides.

    The two differ in the last bit of float32, which moves a code where x lies between two.
    """

    def to_int(self, scale: Tensor, zero_point: Tensor, bit_width: Tensor, x: Tensor) -> Tensor:
        """x -> codes, as floats."""
        codes = self.float_to_int_impl(x * (1 / scale)) + zero_point
        low, high = self.min_int(bit_width), self.max_int(bit_width)
        return self.tensor_clamp_impl(codes, min_val=low, max_val=high)  # type: ignore[no-any-return]


class QuantLayers:
    """Brevitas layers for `training.watch.Layers`.

    Weights are symmetric and per output channel, activations per tensor: unsigned after a ReLU,
    symmetric signed at the input and the embedding. The bias stays float here; each backend
    requantizes it to int32 with scale input x weight.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def conv(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> nn.Conv2d:
        """Conv2d (1, kernel) without padding, with quantized weights and float bias."""
        return qnn.QuantConv2d(  # type: ignore[no-any-return]
            channels_in,
            channels_out,
            (1, kernel),
            stride=(1, stride),
            groups=groups,
            bias=True,
            weight_quant=Int8WeightPerChannelFloat,
            weight_bit_width=self.recipe.weight_bits,
            bias_quant=None,
        )

    def relu(self) -> nn.Module:
        """ReLU and an unsigned quantizer."""
        return qnn.QuantReLU(  # type: ignore[no-any-return]
            act_quant=Uint8ActPerTensorFloat,
            int_quant=KernelRounding,
            bit_width=self.recipe.act_bits,
            high_percentile_q=self.recipe.percentile,
        )

    def identity(self) -> nn.Module:
        """A symmetric signed quantizer."""
        return qnn.QuantIdentity(  # type: ignore[no-any-return]
            act_quant=Int8ActPerTensorFloat,
            int_quant=KernelRounding,
            bit_width=self.recipe.act_bits,
            high_percentile_q=self.recipe.percentile,
        )


def folded_encoder(shape: WatchShape, layers: Layers) -> WatchEncoder:
    """An untrained encoder without batch norm, ready to receive folded weights."""
    encoder = WatchEncoder(shape, layers)
    encoder.stem.norm = nn.Identity()
    for block in encoder.blocks:
        block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    return encoder.eval()


def quantized_twin(encoder: WatchEncoder, recipe: Recipe) -> WatchEncoder:
    """The same network in brevitas layers, with `encoder`'s batch norm folded into its weights.

    Its activation ranges are not set yet: see `quantizer.calibrate`.
    """
    twin = folded_encoder(encoder.shape, QuantLayers(recipe))
    weights = fold_batch_norm(encoder).state_dict()
    layers = dict(twin.named_modules())
    for name, value in weights.items():
        module, _, parameter = name.rpartition(".")
        with torch.no_grad():
            getattr(layers[module], parameter).copy_(value)
    return twin

"""The quantized layers of an encoder, made with brevitas."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from embridge.quantize.recipes import Recipe
from embridge.quantize.silence import quiet
from embridge.training.watch import Layers, WatchEncoder, WatchShape

with quiet():  # at import, brevitas warns about an optional package
    import brevitas.nn as qnn
    from brevitas.core.quant import IntQuant
    from brevitas.graph.calibrate import calibration_mode
    from brevitas.quant import (
        Int8ActPerTensorFloat,
        Int8ActPerTensorFloatMSE,
        Int8WeightPerChannelFloat,
        Uint8ActPerTensorFloat,
        Uint8ActPerTensorFloatMSE,
    )

__all__ = [
    "KernelRounding",
    "QuantLayers",
    "calibration_mode",
    "conv_names",
    "folded_encoder",
    "qnn",
    "quantized_twin",
]


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

    weight_bits: of each convolution in the order they are made; the recipe's everywhere when empty
    """

    def __init__(self, recipe: Recipe, weight_bits: tuple[int, ...] = ()) -> None:
        self.recipe = recipe
        self._bits = iter(weight_bits)

    def conv(
        self, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> nn.Conv2d:
        """Conv2d (1, kernel) without padding, with quantized weights and float bias.

        Its buffer `weight_bits` lets a saved state say how to rebuild it.
        """
        bits = next(self._bits, self.recipe.weight_bits)
        conv: nn.Conv2d = qnn.QuantConv2d(
            channels_in,
            channels_out,
            (1, kernel),
            stride=(1, stride),
            groups=groups,
            bias=True,
            weight_quant=Int8WeightPerChannelFloat,
            weight_bit_width=bits,
            bias_quant=None,
        )
        conv.register_buffer("weight_bits", torch.tensor(bits))
        return conv

    def relu(self) -> nn.Module:
        """ReLU and an unsigned quantizer."""
        mse = self.recipe.ranges == "mse"
        return qnn.QuantReLU(  # type: ignore[no-any-return]
            act_quant=Uint8ActPerTensorFloatMSE if mse else Uint8ActPerTensorFloat,
            **self._activation(),
        )

    def identity(self) -> nn.Module:
        """A symmetric signed quantizer."""
        mse = self.recipe.ranges == "mse"
        return qnn.QuantIdentity(  # type: ignore[no-any-return]
            act_quant=Int8ActPerTensorFloatMSE if mse else Int8ActPerTensorFloat,
            **self._activation(),
        )

    def _activation(self) -> dict[str, object]:
        options = {"int_quant": KernelRounding, "bit_width": self.recipe.act_bits}
        if self.recipe.ranges == "percentile":
            options["high_percentile_q"] = self.recipe.percentile
        return options


def folded_encoder(shape: WatchShape, layers: Layers) -> WatchEncoder:
    """An untrained encoder without batch norm, ready to receive folded weights."""
    encoder = WatchEncoder(shape, layers)
    encoder.stem.norm = nn.Identity()
    for block in encoder.blocks:
        block.norm1, block.norm2 = nn.Identity(), nn.Identity()
    return encoder.eval()


def conv_names(shape: WatchShape) -> list[str]:
    """Paths of the convolutions in the order that an encoder makes them."""
    blocks = range(len(shape.blocks))
    inner = [f"blocks.{i}.{conv}" for i in blocks for conv in ("depthwise", "pointwise")]
    return ["stem.conv", *inner, "head"]


def quantized_twin(
    float_encoder: WatchEncoder, recipe: Recipe, weight_bits: Mapping[str, int] | None = None
) -> WatchEncoder:
    """The same network in brevitas layers; batch norm is folded into its weights already.

    weight_bits: bits of some convolutions, by path; the others take the recipe's
    Its activation ranges are not set yet: see `quantizer.calibrate`.
    """
    chosen = weight_bits or {}
    bits = tuple(chosen.get(name, recipe.weight_bits) for name in conv_names(float_encoder.shape))
    twin = folded_encoder(float_encoder.shape, QuantLayers(recipe, bits))
    layers = dict(twin.named_modules())
    for name, value in float_encoder.state_dict().items():
        module, _, parameter = name.rpartition(".")
        with torch.no_grad():
            getattr(layers[module], parameter).copy_(value)
    return twin

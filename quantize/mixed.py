"""How sensitive each layer is to quantization, and which layers deserve 8 bits.

One quantizer at a time is switched on in a calibrated twin, everything else computing in float:
what the embedding then loses is that quantizer's own doing.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from embridge.quantize.layers import conv_names, qnn, quantized_twin
from embridge.quantize.recipes import Recipe
from embridge.training.watch import WatchEncoder

HIGH_BITS = 8


def choose_bits(float_encoder: WatchEncoder, recipe: Recipe, windows: Tensor) -> dict[str, int]:
    """Bits of each convolution's weights, by path, within the recipe's `weight_budget`.

    windows: (N, C, T). All start at `recipe.weight_bits`; the layers whose weights cost the
    embedding most cosine per byte saved go to 8 bits, as many as fit.
    """
    budget = recipe.weight_budget or 1.0
    names = conv_names(float_encoder.shape)
    layers = dict(float_encoder.named_modules())
    count = {name: layers[name].weight.numel() for name in names}
    loss = weight_loss(float_encoder, recipe, windows)
    bits = dict.fromkeys(names, recipe.weight_bits)
    room = sum(count.values()) * (budget * HIGH_BITS - recipe.weight_bits)  # bits left to give
    for name in sorted(names, key=lambda n: loss[n] / count[n], reverse=True):
        cost = count[name] * (HIGH_BITS - recipe.weight_bits)
        if cost <= room:
            bits[name], room = HIGH_BITS, room - cost
    return bits


def weight_loss(float_encoder: WatchEncoder, recipe: Recipe, windows: Tensor) -> dict[str, float]:
    """1 - mean cosine of embeddings when only one convolution's weights are quantized, by path.

    windows: (N, C, T); at `recipe.weight_bits`
    """
    weights_only = replace(recipe, qat_steps=0, weight_budget=None)
    twin = quantized_twin(float_encoder, weights_only)
    return {
        name: lost_cosine(alone, float_encoder, windows)
        for name, alone in one_at_a_time(twin)
        if isinstance(dict(twin.named_modules())[name], qnn.QuantConv2d)
    }


def one_at_a_time(twin: WatchEncoder) -> Iterator[tuple[str, WatchEncoder]]:
    """(path of a layer, a copy of `twin` in which only that layer's quantizer is on).

    Convolutions stand for their weights, `relu` and input and output for activations. The pool
    shares its input's quantizer and goes with it.
    """
    for quantizer in _quantizers(twin).values():
        quantizer.disable_quant = True
    base = copy.deepcopy(twin)
    for quantizer in _quantizers(twin).values():
        quantizer.disable_quant = False
    for name in _quantizers(twin):
        alone = copy.deepcopy(base)
        _quantizers(alone)[name].disable_quant = False
        yield name, alone


def lost_cosine(encoder: WatchEncoder, reference: WatchEncoder, windows: Tensor) -> float:
    """1 - mean cosine between both embeddings of windows (N, C, T)."""
    with torch.no_grad():
        a, b = encoder.embed(windows).double(), reference.embed(windows).double()
    return float(1 - F.cosine_similarity(a, b).mean())


def _quantizers(twin: WatchEncoder) -> dict[str, Any]:
    """Weight and activation quantizers in the order of the network, by the path of their layer."""
    found: dict[str, Any] = {}
    for name, module in twin.named_modules():
        if isinstance(module, qnn.QuantConv2d):
            found[name] = module.weight_quant
        elif isinstance(module, (qnn.QuantReLU, qnn.QuantIdentity)):
            found[name] = module.act_quant
    return found

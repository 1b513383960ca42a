"""Last touches on a calibrated twin, after which float fake quantization equals integer kernels.

Neither costs accuracy; without them about one code in ten differs from the integer backends.
"""

import math
from typing import Any

import numpy as np
import torch

from embridge.training.watch import WatchEncoder


def settle(twin: WatchEncoder) -> None:
    """Settle the pool's scale, then every bias, in place; ranges and weights must be final."""
    settle_pool_scale(twin)
    settle_biases(twin)


def settle_pool_scale(twin: WatchEncoder) -> None:
    """Raise the pool's scale by at most about 1 %, so that its ties round alike everywhere.

    The mean of an even number of codes often falls exactly between two codes, and any float error
    then decides. With 8 significant bits the sums are exact, and where 1 / scale is accurate enough
    x / scale and x * (1 / scale) both give the tie, which rounds to even.
    """
    pooled: Any = twin.pooled
    scaling = pooled.act_quant.fused_activation_quant_proxy.tensor_quant.scaling_impl
    top_code = 2 ** int(pooled.act_quant.bit_width()) - 1
    mantissa, exponent = math.frexp(act_scale(pooled))
    candidates = (math.ldexp(m, exponent - 8) for m in range(math.ceil(mantissa * 256), 513))
    scaling.value.data.fill_(
        top_code * next(s for s in candidates if _reciprocal_error(s) < 2**-25)
    )


def settle_biases(twin: WatchEncoder) -> None:
    """Round each bias to a multiple of input scale x weight scale: the kernels' int32 grid."""
    convs: list[tuple[Any, Any]] = [(twin.stem.conv, twin.stem.relu)]
    for block in twin.blocks:
        convs += [(block.depthwise, block.relu1), (block.pointwise, block.relu2)]
    source: Any = twin.input
    for conv, quantizer in [*convs, (twin.head, twin.output)]:
        with torch.no_grad():
            step = act_scale(source) * conv.quant_weight().scale.flatten().double()  # D
            conv.bias.copy_(torch.round(conv.bias / step) * step)
        source = quantizer


def act_scale(quantizer: Any) -> float:
    """Size of one code of a brevitas activation layer."""
    return float(quantizer.act_quant.scale().detach())


def _reciprocal_error(scale: float) -> float:
    """Relative error of 1 / scale in float32."""
    return abs(float(np.float32(1) / np.float32(scale)) * scale - 1)

"""What an encoder promises to be integer, and how much of its arithmetic that is.

Everything in `watch` is integer. In `base` all that multiplies by weights is; the rest stays float
and is counted. Counts come from the shapes in the exported graph and are one window's:
multiply-accumulates of linears, convolutions and products; for other operators one operation per
element of the largest operand, but `PER_ELEMENT` for those that pass over it more than once.
Moves of data and conversions between float and codes are no arithmetic and are not counted. A
backend may compute more in integers than promised, never less.
"""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from embridge.device.errors import ConfigError
from embridge.device.manifest import RUNTIME_STAGES
from embridge.quantize.passes import DEQUANTIZE, DEQUANTIZE_WEIGHT, QUANTIZE, QUANTIZE_WEIGHT

aten = torch.ops.aten
CONVERSIONS = frozenset({QUANTIZE, DEQUANTIZE, QUANTIZE_WEIGHT, DEQUANTIZE_WEIGHT})
CONVOLUTION = aten.conv2d.default
WEIGHTED = frozenset({aten.linear.default, CONVOLUTION})  # arguments: x, weight, bias
BIAS = 2  # the argument that stays float here; backends make it int32
WEIGHTED_KERNELS = frozenset(
    {
        *("FullyConnected", "Conv2d", "DepthwiseConv2d"),  # XNNPACK
        *("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D"),  # TFLite
        *("aten::linear", "aten::addmm", "aten::mm", "aten::convolution"),  # ExecuTorch
    }
)
PRODUCTS = frozenset({aten.bmm.default, aten.matmul.default})
MOVES = frozenset(
    {
        *("view", "reshape", "flatten", "unflatten", "transpose", "permute", "expand"),
        *("squeeze", "unsqueeze", "slice", "cat", "alias"),
    }
)
PER_ELEMENT = {
    "std": 4,  # mean, difference, square, mean
    "softmax": 5,  # maximum, difference, exponential, sum, division
    "layer_norm": 7,  # mean, difference, square, mean, scaling, weight, bias
}


@dataclass(frozen=True, slots=True)
class Contract:
    """What of an encoder must be integer, and where it can therefore be lowered to.

    whole: every operator; otherwise those that multiply by weights
    stages: those it can be lowered to; None for all
    """

    encoder: str
    whole: bool
    stages: tuple[str, ...] | None = None

    @property
    def promise(self) -> str:
        """In words, for messages."""
        return "integer operators only" if self.whole else "integer linears and convolutions"

    def binds(self, node: Node) -> bool:
        """Whether this operator of a graph must be integer."""
        return self.whole or node.target in WEIGHTED

    def require_stage(self, stage: str) -> None:
        """Raise ConfigError for a stage that the encoder cannot be lowered to."""
        if self.stages is not None and stage not in self.stages:
            raise ConfigError(
                f"encoder {self.encoder!r} cannot be lowered to {stage}: its softmax and layer "
                f"norm stay float; choose out of {', '.join(self.stages)}, or lower 'watch'"
            )


WATCH = Contract("watch", whole=True)
CONTRACTS = {
    "watch": WATCH,
    "base": Contract("base", whole=False, stages=RUNTIME_STAGES),
}


def is_quantized(node: Node) -> bool:
    """It reads values that were codes, its bias excepted, and its readers make codes of it."""
    bias = node.args[BIAS] if node.target in WEIGHTED and len(node.args) > BIAS else None
    inputs = [source for source in node.all_input_nodes if source is not bias]
    return all(source.target in (DEQUANTIZE, DEQUANTIZE_WEIGHT) for source in inputs) and all(
        reader.target is QUANTIZE for reader in node.users
    )


def operator_name(node: Node) -> str:
    """Such as "layer_norm"."""
    target: Any = node.target
    return str(target.__name__.split(".")[0])


def compute_nodes(program: ExportedProgram) -> Iterator[Node]:
    """The operators of a graph without conversions between float and codes."""
    for node in program.graph_module.graph.nodes:
        if node.op == "call_function" and node.target not in CONVERSIONS:
            yield node


def weighted_count(program: ExportedProgram) -> int:
    """How many operators multiply by weights."""
    return sum(node.target in WEIGHTED for node in compute_nodes(program))


def arithmetic(program: ExportedProgram, contract: Contract = WATCH) -> dict[str, Any]:
    """What one window costs, as a manifest's results hold it.

    macs: multiply-accumulates of linears, convolutions and products
    integer_share_of_arithmetic, float_operators: their shares add up to 1
    """
    macs, integer, count, floats = 0, 0, Counter[str](), Counter[str]()
    for node in compute_nodes(program):
        operations = _operations(node)
        macs += operations if node.target in WEIGHTED | PRODUCTS else 0
        if contract.binds(node) and is_quantized(node):
            integer += operations
        elif operations:
            count[operator_name(node)] += 1
            floats[operator_name(node)] += operations
    total = integer + floats.total()
    return {
        "macs": macs,
        "integer_share_of_arithmetic": integer / total,
        "float_operators": [
            {"op": op, "count": count[op], "share_of_arithmetic": operations / total}
            for op, operations in floats.most_common()
        ],
    }


def _operations(node: Node) -> int:
    """MACs of a product; elements times operations on each otherwise; 0 for a move."""
    name = operator_name(node)
    if name in MOVES:
        return 0
    out = math.prod(_shape(node))
    if node.target in WEIGHTED:
        return out * math.prod(_shape(node.args[1])[1:])  # weight: D, then what is summed over
    if node.target in PRODUCTS:
        return out * int(_shape(node.args[0])[-1])
    largest = max([out, *(math.prod(_shape(source)) for source in node.all_input_nodes)])
    return PER_ELEMENT.get(name, 1) * largest


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)

"""The promise of an exported graph: every operator reads and writes quantized values.

Checked before any backend sees the graph. A backend may refuse an operator in its own words, or
quantize it by its own rule, and then no longer computes what was calibrated.
"""

from collections import Counter

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from embridge.quantize.errors import LoweringError
from embridge.quantize.passes import DEQUANTIZE, DEQUANTIZE_WEIGHT, QUANTIZE, QUANTIZE_WEIGHT

BIAS = 2  # the argument of a convolution that stays float here; backends make it int32
CONVOLUTION = torch.ops.aten.conv2d.default


def require_quantized(stage: str, program: ExportedProgram) -> None:
    """Raise LoweringError, naming operators and their modules, when the graph computes in float."""
    grids = (QUANTIZE, DEQUANTIZE, QUANTIZE_WEIGHT, DEQUANTIZE_WEIGHT)
    floats = Counter(
        f"{node.target.__name__.split('.')[0]} of module '{_module(node)}'"
        for node in program.graph_module.graph.nodes
        if node.op == "call_function" and node.target not in grids and not _is_quantized(node)
    )
    if floats:
        raise LoweringError(
            f"{stage}: expected integer operators only, but "
            f"{'; '.join(f'{count} {name}' for name, count in floats.items())} stayed in float; "
            "give each a quantized input and output in the encoder, or take it out of the encoder"
        )


def _is_quantized(node: Node) -> bool:
    bias = node.args[BIAS] if node.target is CONVOLUTION and len(node.args) > BIAS else None
    inputs = [source for source in node.all_input_nodes if source is not bias]
    return all(source.target in (DEQUANTIZE, DEQUANTIZE_WEIGHT) for source in inputs) and all(
        reader.target is QUANTIZE for reader in node.users
    )


def _module(node: Node) -> str:
    """Path of the module that a node was traced from."""
    stack = list(node.meta["nn_module_stack"].values())
    return str(stack[-1][0])

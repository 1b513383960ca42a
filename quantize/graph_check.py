"""The promise of an exported graph: what the contract says is integer reads and writes codes.

Checked before any backend sees the graph. A backend may refuse an operator in its own words, or
quantize it by its own rule, and then no longer computes what was calibrated.
"""

from collections import Counter

from torch.export import ExportedProgram
from torch.fx import Node

from embridge.quantize.contract import CONVOLUTION as CONVOLUTION
from embridge.quantize.contract import (
    WATCH,
    Contract,
    compute_nodes,
    is_quantized,
    operator_name,
)
from embridge.quantize.errors import LoweringError


def require_quantized(stage: str, program: ExportedProgram, contract: Contract = WATCH) -> None:
    """Raise LoweringError, naming operators and their modules, when the graph breaks a contract."""
    floats = Counter(
        f"{operator_name(node)} of module '{_module(node)}'"
        for node in compute_nodes(program)
        if contract.binds(node) and not is_quantized(node)
    )
    if floats:
        raise LoweringError(
            f"{stage}: expected {contract.promise}, but "
            f"{'; '.join(f'{count} {name}' for name, count in floats.items())} stayed in float; "
            "give each a quantized input and output in the encoder, or take it out of the encoder"
        )


def _module(node: Node) -> str:
    """Path of the module that a node was traced from."""
    stack = list(node.meta["nn_module_stack"].values())
    return str(stack[-1][0])

"""The exported graph in the form that ExecuTorch's Arm passes take; no value changes.

They want int8 weights and int32 biases as constants, the mean over time as an average pool, a mark
on every operator that is quantized, and memory in time-major order (channels last). Where one of
these is missing they say nothing: the operator stays in float, or gives wrong numbers. So what they
do not check is checked here.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from embridge.quantize.contract import CONVERSIONS, operator_name
from embridge.quantize.errors import LoweringError
from embridge.quantize.passes import DEQUANTIZE_WEIGHT, QUANTIZE, fold_weights
from embridge.quantize.silence import quiet

aten = torch.ops.aten
CONVOLUTION, POOL = aten.conv2d.default, aten.avg_pool2d.default
INT32 = torch.iinfo(torch.int32)


def arm_graph(stage: str, graph: ExportedProgram) -> ExportedProgram:
    """Prepare a quantized graph for Ethos-U or Cortex-M; `graph` is left as it was.

    In and out as in `graph`, both in channels-last memory. Raises LoweringError, naming operator
    and module, for what the Arm passes would get wrong without a word.
    """
    (window,) = graph.example_inputs[0]
    with quiet():
        module = fold_weights(graph).module(check_guards=False)
    means_to_pools(module)
    require_expressible(stage, module)
    quantize_biases(module)
    mark_quantized(module)
    module.recompile()
    with quiet(), torch.no_grad():
        example = (window.to(memory_format=torch.channels_last),)
        prepared = torch.export.export(module, example, strict=False)
    require_marked(stage, prepared)
    return prepared


def means_to_pools(module: GraphModule) -> None:
    """Write each mean over (2, 3) that keeps its axes as an average pool over the whole map."""
    for node in module.graph.find_nodes(op="call_function", target=aten.mean.dim):
        source, axes, *keeps_axes = node.args
        if sorted(axis % 4 for axis in axes) == [2, 3] and keeps_axes == [True]:
            node.target = POOL
            size = list(source.meta["val"].shape[2:])
            # No padding to count: asked for it, the Cortex-M passes would copy the map to pad it.
            node.args = (source, size, [1, 1], [0, 0], False, False)


def quantize_biases(module: GraphModule) -> None:
    """Write the float bias of each convolution as an int32 constant and its dequantize.

    Its scale is that of the input times that of the weights, per channel, as kernels want it.
    """
    for number, node in enumerate(module.graph.find_nodes(op="call_function", target=CONVOLUTION)):
        if len(node.args) < 3 or node.args[2] is None:
            continue
        source, weight, bias = node.args[:3]
        scale = source.args[1] * _constant(module, weight.args[1]).double()  # D
        codes = torch.round(_constant(module, bias).double() / scale)
        grid = {
            "codes": codes.clamp(INT32.min, INT32.max).to(torch.int32),
            "scale": scale.float(),
            "zero": torch.zeros_like(codes, dtype=torch.int64),
        }
        names = [f"bias{number}_{part}" for part in grid]
        for name, value in zip(names, grid.values(), strict=True):
            module.register_buffer(name, value)
        with module.graph.inserting_before(node):
            constants = [module.graph.get_attr(name) for name in names]
            args: Any = (*constants, 0, INT32.min, INT32.max, torch.int32)
            node.update_arg(2, module.graph.call_function(DEQUANTIZE_WEIGHT, args))


def mark_quantized(module: GraphModule) -> None:
    """Mark each operator between quantized values; the Arm passes leave all others in float."""
    with quiet():
        from executorch.backends.arm.quantizer.arm_quantizer_utils import mark_node_as_annotated

    for node in _operators(module):
        if all(reader.target is QUANTIZE for reader in node.users):
            mark_node_as_annotated(node)


def require_expressible(stage: str, module: GraphModule) -> None:
    """Refuse a Conv1d, and a pool that would have to requantize: the kernels cannot."""
    for node in _operators(module):
        if node.target is aten.conv1d.default:
            raise LoweringError(
                f"{stage}: conv1d of module '{_module(node)}' would stay in float, expected a "
                "Conv2d with a (1, kernel): write the encoder with Conv2d"
            )
        if node.target is POOL:
            before, *after = (grid.args[1:3] for grid in (*node.all_input_nodes, *node.users))
            if any(grid != before for grid in after):
                raise LoweringError(
                    f"{stage}: the average pool of module '{_module(node)}' goes from (scale, zero "
                    f"point) {before} to {after}, which its kernel cannot do; give the pool's "
                    "output the quantizer of its input"
                )


def require_marked(stage: str, program: ExportedProgram) -> None:
    """Refuse a graph with an operator that the Arm passes will not take for quantized."""
    with quiet():
        from executorch.backends.arm.common.annotation_meta import ArmAnnotationInfo

    unmarked = [
        f"{operator_name(node)} of module '{_module(node)}'"
        for node in _operators(program.graph_module)
        if ArmAnnotationInfo.CUSTOM_META_KEY not in node.meta.get("custom", {})
    ]
    if unmarked:
        raise LoweringError(
            f"{stage}: {'; '.join(unmarked)} would stay in float: not between a dequantize and a "
            "quantize; give each a quantized input and output in the encoder"
        )


def _operators(module: GraphModule) -> Iterator[Node]:
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target not in CONVERSIONS:
            yield node


def _module(node: Node) -> str:
    """Path of the module that a node was traced from; '' is the encoder itself."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def _constant(module: GraphModule, node: Node) -> Tensor:
    """A buffer by the node that reads it."""
    owner, _, name = str(node.target).rpartition(".")
    value: Tensor = getattr(module.get_submodule(owner), name)
    return value

"""Cortex-M: .pte whose operators are CMSIS-NN kernels, for ExecuTorch on a microcontroller.

Rounding. A convolution multiplies its int32 sum by a 31-bit multiplier, (sum * m + 2^30) >> 31,
then shifts right to the nearest, halves away from zero: it rounds twice (CMSIS-NN's default). The
pool divides the sum of raw codes to the nearest, halves away from zero (`arm_avgpool_s8`). Fake
quantization rounds once, halves to even. In one layer about one code in a thousand then differs by
one, always upwards, and over the layers that adds up: `quantize.cortex_reference` tells how far.
"""

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch.export import ExportedProgram

from embridge.quantize.audit import Call
from embridge.quantize.errors import LoweringError
from embridge.quantize.silence import quiet
from embridge.quantize.targets.arm_graph import arm_graph
from embridge.quantize.targets.extras import need
from embridge.quantize.targets.pte import arena_bytes, program_calls, read_program
from embridge.quantize.targets.refusal import run_compiler

ADVICE = "use operators that CMSIS-NN has, or take it out of the encoder"
CHANNELS_LAST = [0, 2, 3, 1]
CONVOLUTIONS = ("cortex_m::quantized_conv2d", "cortex_m::quantized_depthwise_conv2d")


def lower(cpu: str, graph: ExportedProgram) -> bytes:
    """Program for one CPU ("m4", "m55" ...), (1, C, 1, T) float32 in, (1, D, 1, 1) float32 out.

    Both in channels-last memory: time-major, as samples arrive. The first kernel quantizes the
    window, the last dequantizes the embedding, all between are int8. Raises ConfigError without
    the extra `arm`, LoweringError when an operator has no CMSIS-NN kernel.
    """
    artefact = serialize(edge_program(cpu, graph))
    require_kernels(f"cortex-{cpu}", artefact)
    return artefact


def edge_program(cpu: str, graph: ExportedProgram) -> Any:
    """ExecuTorch's `EdgeProgramManager` of the program, before memory planning.

    Its operators also have reference kernels in Python: see `quantize.cortex_reference`.
    """
    stage = f"cortex-{cpu}"
    need(stage, "arm", "tosa_serializer")
    return compile_program(stage, arm_graph(stage, graph))


def compile_program(stage: str, prepared: ExportedProgram) -> Any:
    """Exchange the operators of a prepared graph for CMSIS-NN kernels."""

    def compile_() -> Any:
        from executorch.backends.cortex_m.edge_compile_config import cortex_m_edge_compile_config
        from executorch.backends.cortex_m.passes.cortex_m_pass_manager import CortexMPassManager
        from executorch.backends.cortex_m.target_config import CortexMTargetConfig
        from executorch.exir import EdgeProgramManager, to_edge

        config = cortex_m_edge_compile_config()
        edge = to_edge(prepared, compile_config=config).exported_program()
        target = CortexMTargetConfig.from_target_string(stage)
        program = CortexMPassManager(edge, target_config=target).transform()
        return EdgeProgramManager(program, compile_config=config)

    return run_compiler(stage, compile_, ADVICE)


def serialize(edge: Any) -> bytes:
    """Plan the memory and write the .pte."""
    with quiet():
        return bytes(edge.to_executorch().buffer)


def require_kernels(stage: str, artefact: bytes) -> None:
    """Refuse operators without a CMSIS-NN kernel, and maps that its kernels would not take."""
    with quiet():
        others = Counter(
            call.op for call in calls(artefact) if not call.op.startswith("cortex_m::")
        )
        unordered = list(_other_layouts(artefact))
    if others:
        names = "; ".join(f"{count} {op}" for op, count in others.items())
        raise LoweringError(
            f"{stage}: expected CMSIS-NN kernels only, but {names} remained; {ADVICE}"
        )
    if unordered:
        raise LoweringError(
            f"{stage}: expected maps in channels-last memory, but {'; '.join(unordered)}; "
            "the kernel would refuse it on the device: export with a channels-last window"
        )


def calls(artefact: bytes) -> Iterator[Call]:
    """The kernels of the program."""
    return program_calls(artefact, {})


def facts(artefact: bytes) -> dict[str, Any]:
    """Exact sizes, and the multiply-accumulates of all convolutions."""
    program, _ = read_program(artefact)
    return {
        "estimated": False,
        "arena_bytes": arena_bytes(artefact),
        "arena_includes": "float32 window and embedding, activations, CMSIS-NN scratch",
        "constant_bytes": sum(len(buffer.storage) for buffer in program.constant_buffer),
        "macs": sum(
            math.prod(tensors[1].sizes) * math.prod(tensors[-1].sizes[2:])
            for op, tensors in _tensors(artefact)
            if op in CONVOLUTIONS
        ),
    }


def _other_layouts(artefact: bytes) -> Iterator[str]:
    """The maps (1, C, 1, T) in another memory order; the second operand is the weights."""
    for op, tensors in _tensors(artefact):
        for tensor in (tensors[0], tensors[-1]):
            if len(tensor.sizes) == 4 and list(tensor.dim_order) != CHANNELS_LAST:
                yield f"{op} has {list(tensor.sizes)} in order {list(tensor.dim_order)}"


def _tensors(artefact: bytes) -> Iterator[tuple[str, list[Any]]]:
    """Each kernel call with its tensors: map, constants, scratch, and its output last."""
    from executorch.exir.schema import KernelCall, Tensor

    _, plan = read_program(artefact)
    for instruction in (i for chain in plan.chains for i in chain.instructions):
        call = instruction.instr_args
        if isinstance(call, KernelCall):
            values = [plan.values[i].val for i in call.args]
            yield (
                plan.operators[call.op_index].name,
                [value for value in values if isinstance(value, Tensor)],
            )

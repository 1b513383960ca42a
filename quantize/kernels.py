"""Which kernels really run, as the runtimes themselves tell it: ExecuTorch by ETDump, LiteRT by the
partition that its interpreter made.

`audit` reads what an artefact asks for; this looks at what the runtime made of it on this machine.
"""

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.quantize.audit import INTEGERS, Call
from embridge.quantize.errors import LoweringError
from embridge.quantize.silence import quiet
from embridge.quantize.targets import xnnpack

RUNS = 100
LAYOUTS = {"NC", "ND", "NHWC", "NCHW", "NCHW2NHWC"}  # in the names of XNNPACK's kernels, not types
INTEGER_TYPES = {"S8", "U8", "X8", "QS8", "QU8", "QC8", "QC8W", "QC4W"}  # X8: moves single bytes
DELEGATE = "DELEGATE"  # LiteRT's node for a part of the graph that XNNPACK took over


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of one window, in the order they run.

    library: XNNPACK, or the runtime whose own kernel it is
    types: that it reads and writes: out of its name, or of its operator where the name has none
    integer: nothing in it is float, or it converts at an end of the artefact
    mean_us: over RUNS windows; XNNPACK drops fractions of a microsecond from each; None where the
        runtime does not time kernels
    """

    name: str
    library: str
    types: str
    integer: bool
    mean_us: float | None


def run_kernels(stage: str, artefact: bytes, window: NDArray[np.float32]) -> tuple[Kernel, ...]:
    """Run one window (C, T) through an artefact and return the kernels that did the work.

    Raises ConfigError for a stage whose runtime does not tell.
    """
    if stage.startswith("executorch-"):
        return tuple(_executorch(artefact, window))
    if stage.startswith("tflite-"):
        return tuple(_litert(artefact, window))
    raise ConfigError(
        f"stage {stage!r}: expected executorch-* or tflite-*, whose runtimes tell their kernels"
    )


def require_integer_kernels(stage: str, kernels: tuple[Kernel, ...]) -> None:
    """Raise LoweringError, naming them, when a kernel that ran is not an integer one."""
    floats = Counter(f"{k.name} ({k.types}) of {k.library}" for k in kernels if not k.integer)
    if floats or not kernels:
        found = "; ".join(f"{count} {name}" for name, count in floats.items()) or "none at all"
        raise LoweringError(
            f"{stage}: expected integer kernels only, but {found} ran; "
            "take those operators out of the encoder, or choose another int8 stage"
        )


def _executorch(artefact: bytes, window: NDArray[np.float32]) -> Iterator[Kernel]:
    """Kernels out of the trace, each beside the operator that it runs for."""
    with quiet():
        events = _trace(artefact, window)
        calls = [c for c in xnnpack.calls(artefact) if not c.op.startswith("delegate ")]
    operators: list[Call | None] = [*calls] if len(calls) == len(events) else [None] * len(events)
    for event, call in zip(events, operators, strict=True):
        types, integer = _named_types(event.name) or _operator_types(call)
        library = "XNNPACK" if event.is_delegated_op else "ExecuTorch"
        mean_us = round(1000 * float(event.perf_data.avg), 3)
        yield Kernel(event.name.split(" #")[0], library, types, integer, mean_us)


def _trace(artefact: bytes, window: NDArray[np.float32]) -> list[Any]:
    """Events of all kernels; a debug buffer would abort the process once values overflow it."""
    import executorch.kernels.quantized  # noqa: F401  registers its kernels
    import torch
    from executorch.devtools import Inspector
    from executorch.extension.pybindings import _C
    from executorch.runtime import Runtime

    _C._unsafe_reset_threadpool(1)
    program = Runtime.get().load_program(artefact, enable_etdump=True, debug_buffer_size=0)
    method = program.load_method("forward")
    x = torch.from_numpy(np.ascontiguousarray(window, np.float32))[None, :, None]  # 1 C 1 T
    for _ in range(RUNS):
        method.execute([x])
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.etdp")
        program.write_etdump_result_to_file(str(trace), str(Path(folder, "unused.bin")))
        inspector = Inspector(etdump_path=str(trace))
    (block,) = (block for block in inspector.event_blocks if block.name == "Execute")
    return [e for e in block.events if e.is_delegated_op or e.name.startswith("native_call_")]


def _named_types(kernel: str) -> tuple[str, bool] | None:
    """Types in a name as `Convolution (NHWC, QC8) IGEMM`, and whether all are integer."""
    found = re.search(r"\(([^)]*)\)", kernel)
    types = [t for t in found[1].split(", ") if t not in LAYOUTS] if found else []
    return (", ".join(types), set(types) <= INTEGER_TYPES) if types else None


def _operator_types(call: Call | None) -> tuple[str, bool]:
    if call is None:
        return "unknown types", False
    ends = (", ".join(v.dtype for v in values) for values in (call.inputs, call.outputs))
    return " -> ".join(ends), call.is_integer()


def _litert(artefact: bytes, window: NDArray[np.float32]) -> Iterator[Kernel]:
    """The interpreter's nodes; those that XNNPACK took over stay listed beside its own."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet():
        interpreter = Interpreter(model_content=artefact, num_threads=1)
        interpreter.allocate_tensors()
        (source,) = interpreter.get_input_details()
        x = window.T[None, None]  # 1 1 T C
        if source["dtype"] == np.int8:
            scale, zero_point = source["quantization"]
            x = np.clip(np.rint(x / scale) + zero_point, -128, 127)
        interpreter.set_tensor(source["index"], np.ascontiguousarray(x, source["dtype"]))
        interpreter.invoke()
        nodes = interpreter._get_ops_details()
    taken = _taken_over(nodes)
    for node in (node for node in nodes if node["op_name"] != DELEGATE):
        ends = [[t.__name__ for t in node[key]] for key in ("operand_types", "result_types")]
        integer = INTEGERS.issuperset(ends[0] + ends[1])
        library = "XNNPACK" if node["index"] in taken else "LiteRT"
        yield Kernel(node["op_name"], library, " -> ".join(map(", ".join, ends)), integer, None)


def _taken_over(nodes: list[dict[str, Any]]) -> set[int]:
    """Indices of the nodes between the inputs and outputs of XNNPACK's nodes."""
    makers = {
        tensor: node for node in nodes if node["op_name"] != DELEGATE for tensor in node["outputs"]
    }
    taken: set[int] = set()
    for delegate in (node for node in nodes if node["op_name"] == DELEGATE):
        wanted = list(delegate["outputs"])
        while wanted:
            node = makers.get(wanted.pop())
            if node and node["index"] not in taken:
                taken.add(node["index"])
                wanted += [t for t in node["inputs"] if t not in delegate["inputs"]]
    return taken

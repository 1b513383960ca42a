"""Arm Ethos-U: the whole encoder as one command stream for the NPU, by two routes.

    ethos-NPU             TFLite -> Vela -> .tflite, for TFLite Micro; int8 at both ends
    ethos-NPU-executorch  ExecuTorch's EthosUPartitioner -> TOSA -> Vela -> .pte; float32 at both
                          ends, which kernels of the host CPU convert

What Vela cannot place on the NPU it leaves to the CPU, in int8 and without an error: refused here.
Cycles and times are Vela's estimates, for the system and the memory mode in `NPUS`.
"""

import csv
import io
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from embridge.quantize.audit import CONVERSIONS, Call, Value
from embridge.quantize.errors import LoweringError
from embridge.quantize.targets import tflite
from embridge.quantize.targets.arm_graph import arm_graph
from embridge.quantize.targets.extras import need
from embridge.quantize.targets.pte import program_calls
from embridge.quantize.targets.refusal import run_compiler

STREAM, BACKEND = "ethos-u", "EthosUBackend"  # the NPU's operator in .tflite and in .pte
BLOCK = struct.Struct("<16sI12x")  # name and bytes of a block; each starts at a multiple of 16
TENSOR = struct.Struct("<6i3i")  # shape; bytes of an element, offset, region
ADVICE = "use what the NPU has, such as strides of 1 to 3"
DTYPES = {1: "int8", 2: "int16", 4: "int32"}


@dataclass(frozen=True, slots=True)
class Npu:
    """What Vela compiles and estimates for.

    system: clock and bandwidths, memory_mode: what lies in which memory; sections of Vela's
    Arm/vela.ini, those that ExecuTorch takes by default
    """

    system: str
    memory_mode: str


NPUS = {
    "u55-128": Npu("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "u55-256": Npu("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "u65-256": Npu("Ethos_U65_High_End", "Dedicated_Sram_384KB"),
    "u85-256": Npu("Ethos_U85_SYS_DRAM_Mid", "Sram_Only"),
}


def lower_tflite(npu: str, graph: ExportedProgram) -> tuple[bytes, dict[str, Any]]:
    """.tflite for one of `NPUS`, (1, 1, T, C) int8 in and (1, D, 1, 1) int8 out, and its facts.

    Raises ConfigError without the extra `arm`, LoweringError when an operator is not on the NPU.
    """
    stage = f"ethos-{npu}"
    need(stage, "arm", "ethosu")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "encoder.tflite")
        source.write_bytes(tflite.lower(graph))
        run_compiler(stage, lambda: _vela(npu, source), ADVICE)
        artefact = Path(folder, "encoder_vela.tflite").read_bytes()
        return artefact, _facts(npu, Path(folder), require_npu(stage, tflite.calls(artefact)))


def lower_executorch(npu: str, graph: ExportedProgram) -> tuple[bytes, dict[str, Any]]:
    """.pte for one of `NPUS`, (1, C, 1, T) float32 in and (1, D, 1, 1) float32 out, and its facts.

    Both ends in channels-last memory, so that the NPU need not transpose. Raises ConfigError
    without the extra `arm`, LoweringError when an operator is not on the NPU.
    """
    with tempfile.TemporaryDirectory() as folder:
        artefact = partition(npu, graph, Path(folder))
        on_cpu = require_npu(f"ethos-{npu}-executorch", executorch_calls(artefact))
        return artefact, _facts(npu, Path(folder, "output"), on_cpu)


def partition(npu: str, graph: ExportedProgram, folder: Path) -> bytes:
    """The .pte by ExecuTorch's partitioner; leaves `out.tosa` and Vela's `output` in `folder`."""
    stage = f"ethos-{npu}-executorch"
    need(stage, "arm", "ethosu", "tosa_serializer")
    prepared = arm_graph(stage, graph)

    def lower() -> bytes:
        from executorch.backends.arm.ethosu import EthosUCompileSpec, EthosUPartitioner
        from executorch.exir import (
            EdgeCompileConfig,
            ExecutorchBackendConfig,
            to_edge_transform_and_lower,
        )

        spec = EthosUCompileSpec(
            f"ethos-{npu}", system_config=NPUS[npu].system, memory_mode=NPUS[npu].memory_mode
        )
        edge = to_edge_transform_and_lower(
            prepared,
            partitioner=[EthosUPartitioner(spec.dump_intermediate_artifacts_to(str(folder)))],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        _forget(folder, edge.exported_program())
        inline = ExecutorchBackendConfig(extract_delegate_segments=False)
        return bytes(edge.to_executorch(inline).buffer)

    return run_compiler(stage, lower, ADVICE)


def require_npu(stage: str, calls: Iterator[Call]) -> int:
    """Refuse an artefact that is not one command stream; returns its operators on the CPU.

    Those can only be the conversions at the ends of a .pte.
    """
    ops = list(calls)
    streams = sum(call.op == STREAM for call in ops)
    others = [call for call in ops if call.op not in (STREAM, f"delegate {BACKEND}")]
    left = Counter(
        f"{call.op} ({', '.join(v.dtype for v in call.inputs)} -> "
        f"{', '.join(v.dtype for v in call.outputs)})"
        for call in others
        if not (call.op in CONVERSIONS and call.is_integer())
    )
    if left or streams != 1:
        names = "; ".join(f"{count} {name}" for name, count in left.items()) or "none"
        raise LoweringError(
            f"{stage}: expected the encoder as one NPU command stream, got {streams} with "
            f"{names} on the CPU; {ADVICE}"
        )
    return len(others)


def executorch_calls(artefact: bytes) -> Iterator[Call]:
    """The operators of a .pte, the NPU's command stream as one of them."""
    return program_calls(artefact, {BACKEND: _stream_calls})


def _stream_calls(payload: bytes) -> Iterator[Call]:
    """A command stream with its tensors, from the blocks that Vela's output is packed in."""
    blocks, at = {}, 0
    while at < len(payload):
        name, size = BLOCK.unpack_from(payload, at)
        at += BLOCK.size
        blocks[name.rstrip(b"\0").decode()] = payload[at : at + size]
        at += -(-size // 16) * 16
    tensors = [
        [Value(DTYPES[record[6]], False) for record in TENSOR.iter_unpack(blocks[end][4:])]
        for end in ("inputs", "outputs")
    ]
    yield Call(STREAM, *tensors)


def _vela(npu: str, source: Path) -> None:
    from ethosu.vela import vela

    options = [
        f"--accelerator-config=ethos-{npu}",
        "--config=Arm/vela.ini",
        f"--system-config={NPUS[npu].system}",
        f"--memory-mode={NPUS[npu].memory_mode}",
        f"--output-dir={source.parent}",
    ]
    with redirect_stdout(io.StringIO()) as said:
        status = vela.main([str(source), *options])
    if status:
        raise RuntimeError(said.getvalue())


def _forget(folder: Path, program: ExportedProgram) -> None:
    """Take the temporary folder out of what is written, or the bytes would never be the same."""
    from executorch.exir.lowered_backend_module import get_lowered_submodules

    for _, module, _ in get_lowered_submodules(program.graph_module):
        specs = module.compile_specs
        specs[:] = [spec for spec in specs if spec.value != str(folder).encode()]


def _facts(npu: str, folder: Path, operators_cpu: int) -> dict[str, Any]:
    """Vela's summary of what it compiled; it is nowhere in the artefact."""
    (path,) = folder.glob("*_summary_*.csv")
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    setting = f"{row['accelerator_configuration']}, {NPUS[npu].system}, {NPUS[npu].memory_mode}"
    flash_kib = float(row["on_chip_flash_memory_used"]) + float(row["off_chip_flash_memory_used"])
    return {
        "estimated": True,
        "model": f"ethos-u-vela {metadata.version('ethos-u-vela')}, {setting}",
        "inference_us": round(1e6 * float(row["inference_time"]), 3),
        "npu_cycles": int(row["cycles_npu"]),
        "total_cycles": int(row["cycles_total"]),
        "sram_bytes": int(1024 * float(row["sram_memory_used"])),
        "flash_bytes": int(1024 * flash_kib),
        "dram_bytes": int(1024 * float(row["dram_memory_used"])),
        "macs": int(row["nn_macs"]),
        "operators_npu": int(row["passes_before_fusing"]),
        "operators_cpu": operators_cpu,
    }

"""The Arm stages on this host, without a board or an emulator: for comparing codes, not for timing.

Cortex-M runs by ExecuTorch's Python kernels, and Ethos-U by the TOSA reference model, in the form
from which Vela makes the NPU's command stream. A package's program is lowered once more from its
own networks and must come out as the same bytes; then that program runs here.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram
from torch.nn import functional as F

from embridge.device.errors import ConfigError, PackageError
from embridge.device.manifest import CORTEX_CPUS, ETHOS_NPUS
from embridge.device.package import Package
from embridge.quantize.base_quantizer import Quantized
from embridge.quantize.errors import LoweringError
from embridge.quantize.export import export_graph
from embridge.quantize.passes import QUANTIZE
from embridge.quantize.silence import quiet
from embridge.quantize.stages import quantized_encoder
from embridge.quantize.targets import cortex_m, ethos_u
from embridge.quantize.targets.extras import need

Run = Callable[[Tensor], NDArray[np.int8]]  # (1, C, 1, T) float32 -> (D,) codes
CPU_OF = {f"cortex-{cpu}": cpu for cpu in CORTEX_CPUS}
NPU_OF = {f"ethos-{npu}-executorch": npu for npu in ETHOS_NPUS}
REFERENCE_STAGES = (*CPU_OF, *NPU_OF)


class ReferenceEncoder:
    """An Arm stage on this host, with the interface of a device runtime."""

    def __init__(
        self, run: Run, input_shape: tuple[int, int], scale: float, zero_point: int
    ) -> None:
        self._run, self.input_shape = run, input_shape
        self.embedding_scale: float | None = scale
        self.embedding_zero_point = zero_point
        self._scale = np.float32(scale)

    def embed(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """window: (C, T) float32 -> (D,) float32, dequantized, not of unit length."""
        codes = self.codes(window).astype(np.float32)
        return (codes - np.float32(self.embedding_zero_point)) * self._scale

    def codes(self, window: NDArray[np.float32]) -> NDArray[np.int8]:
        """window: (C, T) float32 -> (D,) int8; ConfigError for a window of another shape."""
        if window.shape != self.input_shape:
            raise ConfigError(
                f"window has shape {window.shape}, the encoder takes (C, T) = {self.input_shape}; "
                "cut windows with the package's configuration"
            )
        batch = torch.from_numpy(np.ascontiguousarray(window, np.float32))[None, :, None]
        with torch.inference_mode():
            return self._run(batch)

    def close(self) -> None:
        """Nothing to free."""


def open_reference(package: Package, stage: str) -> ReferenceEncoder:
    """The reference of one of `REFERENCE_STAGES`, for the very artefact that the package holds.

    Takes seconds. Raises ConfigError for another stage and without the extra `arm`, PackageError
    when the package does not hold the stage, or its networks do not give its artefact.
    """
    _require_reference(stage)
    artefact = package.artefact(stage)
    encoder, lowered = reference_of(quantized_encoder(package), stage)
    if lowered != artefact:
        raise PackageError(
            f"{package.path.name}: expected the artefact of {stage} that its own networks give, "
            f"got {len(artefact)} other bytes; build it again with `embridge lower`, with the "
            "versions installed here"
        )
    return encoder


def reference_of(quantized: Quantized, stage: str) -> tuple[ReferenceEncoder, bytes]:
    """The reference of a quantized encoder in one of `REFERENCE_STAGES`, and the stage's artefact.

    Raises ConfigError for another stage, and what the target's `lower` raises.
    """
    _require_reference(stage)
    graph = export_graph(quantized.twin)
    run, artefact = (
        _cortex_m(CPU_OF[stage], graph, quantized.scale, quantized.zero_point)
        if stage in CPU_OF
        else _ethos_u(NPU_OF[stage], graph)
    )
    shape = (quantized.twin.shape.channels, quantized.twin.shape.window)
    return ReferenceEncoder(run, shape, quantized.scale, quantized.zero_point), artefact


def _require_reference(stage: str) -> None:
    if stage not in REFERENCE_STAGES:
        raise ConfigError(
            f"stage {stage!r} has no reference on this host; "
            f"choose one of {', '.join(REFERENCE_STAGES)}"
        )


def _cortex_m(cpu: str, graph: ExportedProgram, scale: float, zero_point: int) -> tuple[Run, bytes]:
    edge = cortex_m.edge_program(cpu, graph)
    with quiet():
        program: Any = edge.exported_program().module(check_guards=False)
    for node in program.graph.nodes:
        if "quantized_avg_pool2d" in str(node.target):
            node.target = average_pool
    program.recompile()

    def run(window: Tensor) -> NDArray[np.int8]:
        values = program(window.to(memory_format=torch.channels_last)).flatten()
        return QUANTIZE(values, scale, zero_point, -128, 127, torch.int8).numpy()  # type: ignore[no-any-return]

    return run, cortex_m.serialize(edge)


def average_pool(x: Tensor, kernel: list[int], stride: list[int], *_settings: object) -> Tensor:
    """CMSIS-NN's `arm_avgpool_s8` without padding: raw codes, halves away from zero.

    x: (B, C, H, W) int8 -> (B, C, H', W') int8. ExecuTorch's Python kernel goes by way of float
    and rounds halves to even, which its C++ kernel on the device does not.
    """
    count = kernel[0] * kernel[1]
    sums = F.avg_pool2d(x.double(), kernel, stride, divisor_override=1)  # whole numbers, exact
    magnitude = (sums.abs() + count // 2) // count
    return (sums.sign() * magnitude).to(torch.int8)


def _ethos_u(npu: str, graph: ExportedProgram) -> tuple[Run, bytes]:
    need(f"ethos-{npu}-executorch", "arm", "tosa_reference_model")
    import tosa_reference_model as tosa

    with tempfile.TemporaryDirectory() as folder:
        artefact = ethos_u.partition(npu, graph, Path(folder))
        program = Path(folder, "out.tosa").read_bytes()
    first, *_ = graph.graph.find_nodes(op="call_function", target=QUANTIZE)

    def run(window: Tensor) -> NDArray[np.int8]:
        codes = QUANTIZE(window, *first.args[1:]).permute(0, 2, 3, 1)  # 1 1 T C
        with quiet():
            (output,), status = tosa.run(program, [np.ascontiguousarray(codes.numpy())])
        if status != tosa.GraphStatus.TOSA_VALID:
            raise LoweringError(
                f"ethos-{npu}-executorch: the TOSA reference model says {status}; lower it again"
            )
        embedding: NDArray[np.int8] = output.ravel()
        return embedding

    return run, artefact

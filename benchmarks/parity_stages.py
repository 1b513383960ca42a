"""Running every stage of a package on the same windows, one window at a time as on the device.

In a batch torch sums in another order, and fake quantization and the graph must agree to the bit.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from embridge.benchmarks.first_divergence import Networks
from embridge.benchmarks.parity_pairs import TORCH_STAGES, StageOutput
from embridge.device.decision import Voter
from embridge.device.errors import ConfigError, PackageError
from embridge.device.manifest import INT8_STAGES
from embridge.device.package import Package
from embridge.device.runtimes import EncoderRuntime
from embridge.quantize.base_layers import WindowEncoder
from embridge.quantize.cortex_reference import REFERENCE_STAGES, open_reference
from embridge.quantize.layers import qnn
from embridge.quantize.stages import HOST_STAGES, TorchEncoder, open_stage
from embridge.training.study import Progress
from embridge.training.watch import WatchEncoder

SLOW_WINDOWS = 64
REPORT_EVERY = 50  # windows
Opener = Callable[[Package], EncoderRuntime]
# Stages with a reference on this host that is too slow for all windows.
SLOW_STAGES: Mapping[str, Opener] = {
    stage: partial(open_reference, stage=stage) for stage in REFERENCE_STAGES
}


@dataclass(frozen=True)
class StagesRun:
    """What the stages of a package gave.

    skipped: stages that cannot run here, and why; refused: those whose artefact is not what the
    package's own networks give
    """

    outputs: dict[str, StageOutput] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def run_stages(
    networks: Networks,
    inputs: NDArray[np.float32],
    *,
    slow: Mapping[str, Opener] = SLOW_STAGES,
    slow_windows: int = SLOW_WINDOWS,
    progress: Progress | None = None,
) -> StagesRun:
    """The torch stages and every artefact that runs here, on inputs (N, C, T).

    slow: how to open stages that see only `slow_windows` of them, evenly spread
    """
    package, run = networks.package, StagesRun()
    everything = np.arange(len(inputs))
    few = np.unique(np.linspace(0, len(inputs) - 1, slow_windows, dtype=np.int64))
    for stage in dict.fromkeys([*TORCH_STAGES, *package.manifest.stages]):
        fast = stage in TORCH_STAGES or stage in HOST_STAGES
        if not fast and stage not in slow:
            run.skipped[stage] = "no runtime or reference for it on this host"
            continue
        try:
            runtime = _open(networks, stage) if fast else slow[stage](package)
        except ConfigError as error:
            run.skipped[stage] = str(error)
            continue
        except PackageError as error:
            run.refused[stage] = str(error)
            continue
        numbers = everything if fast else few
        run.outputs[stage] = _output(package, stage, runtime, inputs, numbers, progress)
        runtime.close()
    return run


def _output(
    package: Package,
    stage: str,
    runtime: EncoderRuntime,
    inputs: NDArray[np.float32],
    numbers: NDArray[np.int64],
    progress: Progress | None,
) -> StageOutput:
    queries = _queries(stage, runtime, inputs[numbers], progress)
    voter = Voter(package.gallery(_gallery(stage)), package.manifest.decision.k)
    decisions = np.array([voter.vote(query).label for query in queries], np.int64)
    zero_point = package.manifest.embedding.zero_point if queries.dtype == np.int8 else 0
    return StageOutput(stage, numbers, queries, decisions, zero_point)


def _gallery(stage: str) -> str:
    """The stage whose gallery a stage searches: the graph gives fake quantization's codes."""
    return "fakequant" if stage == "graph" else stage


def _open(networks: Networks, stage: str) -> EncoderRuntime:
    encoder = networks.encoder
    if stage == "float":
        return TorchEncoder(encoder.float_encoder, None, 0)
    if stage == "fakequant":
        twin = with_held_weights(encoder.twin)
        return TorchEncoder(twin, encoder.scale, encoder.zero_point)
    if stage == "graph":
        return GraphEncoder(networks)
    return open_stage(networks.package, stage)


def _queries(
    stage: str, runtime: EncoderRuntime, inputs: NDArray[np.float32], progress: Progress | None
) -> NDArray[np.generic]:
    """inputs: (M, C, T) -> (M, D) int8 codes, or float32 embeddings of a float stage."""
    one = runtime.codes if _gallery(stage) in INT8_STAGES else runtime.embed
    found = []
    for number, window in enumerate(inputs):
        if progress and number % REPORT_EVERY == 0:
            progress(number, len(inputs), f"{stage}, one window at a time")
        found.append(one(window))
    if progress:
        progress(len(inputs), len(inputs), f"{stage}, one window at a time")
    return np.stack(found)


class GraphEncoder(TorchEncoder):
    """The exported graph, run by torch."""

    def __init__(self, networks: Networks) -> None:
        encoder = networks.encoder
        super().__init__(encoder.twin, encoder.scale, encoder.zero_point)
        self._graph = networks.program.module()
        spec = networks.package.manifest.embedding
        self._output = (spec.queries, spec.dim) if spec.queries > 1 else (spec.dim,)

    def embed(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """window: (C, T) float32 -> (D,) or (M, D) float32, dequantized."""
        with torch.inference_mode():
            embedding = self._graph(torch.from_numpy(window)[None, :, None])  # 1 C 1 T
        return np.asarray(embedding.numpy().reshape(self._output))


def with_held_weights(twin: WatchEncoder | WindowEncoder) -> WatchEncoder | WindowEncoder:
    """A copy that computes its quantized weights once instead of at every call: half the time.

    They do not depend on the input, so embeddings stay equal to the bit.
    """
    held = copy.deepcopy(twin).eval()
    for layer in held.modules():
        if isinstance(layer, (qnn.QuantConv2d, qnn.QuantLinear)):
            with torch.inference_mode():
                layer.quant_weight = partial(_held, layer.quant_weight())
    return held


def _held(weight: object, *inputs: object) -> object:
    return weight

"""`embridge parity`: float -> fake quantization -> exported graph -> each artefact."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.benchmarks.first_divergence import Networks, first_diverging_layer
from embridge.benchmarks.parity_pairs import Pair, StageOutput, compare, excesses, pair_names
from embridge.benchmarks.parity_report import SCHEMA, failure_line, pair_json
from embridge.benchmarks.parity_stages import SLOW_STAGES, SLOW_WINDOWS, Opener, run_stages
from embridge.benchmarks.parity_windows import WINDOWS, ParityWindows, parity_windows
from embridge.device.package import read_package
from embridge.quantize.errors import LoweringError
from embridge.quantize.export import export_graph
from embridge.quantize.stages import quantized_encoder
from embridge.training.study import Progress


def parity(
    path: Path,
    data: Path | None = None,
    *,
    count: int = WINDOWS,
    tier: str = "T1",
    layers: bool = False,
    slow: Mapping[str, Opener] = SLOW_STAGES,
    slow_windows: int = SLOW_WINDOWS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Hold every stage of a package against the one before it; the limits are the package's.

    layers: walk through the layers of every pair that differs, not only of one beyond a limit
    slow: how to open stages that take long; they see only `slow_windows` windows
    Raises a leaf of EmbridgeError; a limit that is not kept is a result: see `passed`.
    """
    package = read_package(path)
    windows = parity_windows(package, data, count, tier, progress)
    encoder = quantized_encoder(package)
    networks = Networks(package, encoder, export_graph(encoder.twin))
    run = run_stages(
        networks, windows.inputs, slow=slow, slow_windows=slow_windows, progress=progress
    )
    pairs, failures = compare_stages(networks, windows, run.outputs, layers, progress)
    failures += [f"{stage}: {reason}" for stage, reason in run.refused.items()]
    return {
        "schema": SCHEMA,
        "package": path.name,
        "sha256": package.sha256,
        "source": windows.source,
        "tier": windows.tier,
        "windows": len(windows.inputs),
        "windows_available": windows.available,
        "users": list(dict.fromkeys(windows.users)),
        "gestures": list(dict.fromkeys(windows.gestures)),
        "stages": {stage: len(output.windows) for stage, output in run.outputs.items()},
        "stages_skipped": run.skipped,
        "pairs": pairs,
        "limits": package.manifest.parity.model_dump(),
        "failures": failures,
        "passed": not failures,
    }


def compare_stages(
    networks: Networks,
    windows: ParityWindows,
    outputs: dict[str, StageOutput],
    layers: bool,
    progress: Progress | None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """All pairs as JSON, and a line for each limit that is not kept."""
    manifest, names = networks.package.manifest, pair_names(list(outputs))
    rows, failures = [], []
    for number, (a, b) in enumerate(names):
        if progress:
            progress(number, len(names), f"compare {a} with {b}")
        pair = compare(outputs[a], outputs[b])
        beyond = excesses(pair, manifest.parity)
        found = _divergence(networks, pair, windows.inputs) if beyond or layers else None
        failures += [failure_line(excess, found) for excess in beyond]
        labels = tuple(manifest.labels)
        rows.append(pair_json(pair, windows.users, windows.gestures, labels, found))
    if progress:
        progress(len(names), len(names), "compare")
    return rows, failures


def _divergence(
    networks: Networks, pair: Pair, inputs: NDArray[np.float32]
) -> dict[str, Any] | None:
    """The layer where a pair parts, on its worst windows; the reason when no layer can be named."""
    worst = pair.worst()
    if not len(worst):
        return None
    try:
        numbers = pair.a.windows[worst]
        found = first_diverging_layer(networks, pair.a.stage, pair.b.stage, inputs[numbers])
    except LoweringError as error:
        return {"layer": None, "reason": str(error)}
    if found.layer is None:
        return found.json() | {"reason": "no layer differs by more than rounding"}
    return found.json()

"""`embridge quantize` and `embridge lower`: from a run's folder to a model package."""

from pathlib import Path
from typing import Any

import numpy as np

from embridge.quantize.lower import lower_all
from embridge.quantize.pack import build_package, load_quantized, quantize_run
from embridge.training.evaluate import cosine
from embridge.training.models import batched
from embridge.training.run import open_study
from embridge.training.run_folder import open_run
from embridge.training.study import Progress


def quantize_folder(path: Path, recipe: str, progress: Progress | None = None) -> dict[str, Any]:
    """Quantize a run; how far embeddings moved is measured on windows of the validation users."""
    run = open_run(path)
    study = open_study(run, progress)
    quantized = quantize_run(run, study, recipe, progress)
    windows = study.validation_windows()
    index = np.arange(0, len(windows), max(1, len(windows) // 512))
    inputs = windows.encoder_input(index, study.plan.front_end, study.profiles)
    moved = cosine(quantized.codes(inputs), batched(quantized.float_encoder.embed, inputs))
    return {"run": str(path), "recipe": recipe, "cosine": moved, "windows": len(index)}


def lower_folder(
    path: Path, targets: list[str], output: Path | None, progress: Progress | None = None
) -> dict[str, Any]:
    """Lower a quantized run to NAME.embridge; raises LoweringError when an operator stays float."""
    run = open_run(path)
    quantized = load_quantized(run)
    artefacts = lower_all(quantized, targets, progress=progress)
    target = output or path / f"{run.config.name}.embridge"
    package = build_package(run, open_study(run), quantized, artefacts, target)
    return {
        "package": str(target),
        "sha256": package.sha256,
        "stages": package.manifest.stages,
        "macs": package.manifest.results["macs"],
        "operators": package.manifest.results["operators"],
        "bytes": {stage: len(artefact.data) for stage, artefact in artefacts.items()},
    }

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


def quantize_folder(
    path: Path, recipe: str, progress: Progress | None = None, encoder: str = "watch"
) -> dict[str, Any]:
    """Quantize an encoder of a run; how far embeddings moved is measured on validation users.

    encoder: "watch" or "base"; `cosine` is over embeddings, M of them in a window for `base`
    """
    run = open_run(path)
    study = open_study(run, progress)
    quantized = quantize_run(run, study, recipe, progress, encoder)
    windows = study.validation_windows()
    index = np.arange(0, len(windows), max(1, len(windows) // 512))
    inputs = windows.encoder_input(index, study.plan.front_end, study.profiles)
    dim = run.config.embedding(run.plan.channels)
    codes, floats = quantized.codes(inputs), batched(quantized.float_encoder.embed, inputs)
    moved = cosine(codes.reshape(-1, dim), floats.reshape(-1, dim))
    facts = {"run": str(path), "encoder": encoder, "recipe": recipe}
    return facts | {"cosine": moved, "windows": len(index)}


def lower_folder(
    path: Path,
    targets: list[str],
    output: Path | None,
    progress: Progress | None = None,
    encoder: str = "watch",
) -> dict[str, Any]:
    """Lower a quantized run to NAME.embridge, or NAME-base.embridge.

    Raises LoweringError when an operator stays float that is integer by the encoder's contract.
    """
    run = open_run(path)
    quantized = load_quantized(run, encoder)
    artefacts = lower_all(quantized, targets, progress=progress)
    name = run.config.name if encoder == "watch" else f"{run.config.name}-{encoder}"
    target = output or path / f"{name}.embridge"
    package = build_package(run, open_study(run), quantized, artefacts, target)
    return {
        "package": str(target),
        "encoder": encoder,
        "sha256": package.sha256,
        "stages": package.manifest.stages,
        **package.manifest.results,
        "bytes": {stage: len(artefact.data) for stage, artefact in artefacts.items()},
    }

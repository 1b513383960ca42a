"""A trained run -> quantized run -> model package."""

import json
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load, save

from embridge.device.decision import DecisionRule, Gallery, Voter, decide
from embridge.device.errors import ConfigError
from embridge.device.manifest import STAGE_FILES, EmbeddingSpec, InputSpec, Manifest
from embridge.device.package import GALLERY, GOLDEN, Package, read_package, write_npz, write_package
from embridge.device.recordings import REST
from embridge.quantize.lower import Artefact
from embridge.quantize.quantizer import (
    QuantizedEncoder,
    from_state,
    quantize_encoder,
    state_for_file,
)
from embridge.quantize.stages import HOST_STAGES, open_stage, queries
from embridge.training.gallery import PoseGallery, build_gallery
from embridge.training.models import load_models
from embridge.training.run_folder import RunFolder, git_commit, write_atomic
from embridge.training.study import Progress, Study
from embridge.training.windows import balanced_batch

QUANTIZED = "quantized.safetensors"
QUANTIZED_INFO = "quantized.json"
CALIBRATION_WINDOWS = 1024
GOLDEN_WINDOWS = 64
RUNTIMES = ("ai-edge-litert", "executorch")


def quantize_run(
    run: RunFolder, study: Study, recipe: str, progress: Progress | None = None
) -> QuantizedEncoder:
    """Quantize a run's `watch` encoder on training windows of both tiers; written into the run."""
    models = load_models(run)
    windows = calibration_windows(study, run.config.optim.seed)
    quantized = quantize_encoder(
        models.watch, windows, recipe, seed=run.config.optim.seed, progress=progress
    )
    write_atomic(run.path / QUANTIZED, save(state_for_file(quantized)))
    write_atomic(run.path / QUANTIZED_INFO, json.dumps({"recipe": recipe}).encode())
    return quantized


def load_quantized(run: RunFolder) -> QuantizedEncoder:
    """What `quantize_run` wrote; ConfigError when the run is not quantized."""
    if not (run.path / QUANTIZED).is_file():
        raise ConfigError(
            f"{run.path}: not quantized yet; run `embridge quantize {run.path}` first"
        )
    recipe = json.loads((run.path / QUANTIZED_INFO).read_text())["recipe"]
    plan, config = run.plan, run.config
    shape = config.watch.shape(plan.channels, plan.window, config.base.dim)
    return from_state(shape, recipe, load((run.path / QUANTIZED).read_bytes()))


def calibration_windows(study: Study, seed: int) -> NDArray[np.float32]:
    """(N, C, T) windows of all training users, half in tier T1 and half in T0."""
    windows = study.training_windows()
    index = balanced_batch(windows, CALIBRATION_WINDOWS, np.random.default_rng(seed))
    half = CALIBRATION_WINDOWS // 2
    front_end = study.plan.front_end
    return np.concatenate(
        [
            windows.encoder_input(index[:half], front_end, study.profiles),
            windows.encoder_input(index[half:], front_end, {}),
        ]
    )


def build_package(
    run: RunFolder,
    study: Study,
    quantized: QuantizedEncoder,
    artefacts: dict[str, Artefact],
    path: Path,
) -> Package:
    """Write NAME.embridge with gallery, decision rule and golden windows, and read it back."""
    models, config, seed = load_models(run), run.config, run.config.optim.seed
    gallery = build_gallery(study, models.pose, config.gallery.per_gesture, seed)
    codes = gallery_codes(gallery)
    rule = fit_rule(
        study, quantized, Gallery(codes.astype(np.float64), gallery.labels, gallery.names), run
    )
    measured = {
        "macs": quantized.float_encoder.shape.macs(),
        "operators": {s: [asdict(row) for row in a.audit] for s, a in artefacts.items()},
        "facts": {s: a.facts for s, a in artefacts.items()},
    }
    manifest = _manifest(run, study, quantized, rule, path.stem, measured)
    state = state_for_file(quantized)
    files = {STAGE_FILES[stage]: artefact.data for stage, artefact in artefacts.items()}
    for stage, prefix in (("float", "float."), ("fakequant", "twin.")):
        part = {key: tensor for key, tensor in state.items() if key.startswith(prefix)}
        files[STAGE_FILES[stage]] = save(part)
    files[GALLERY] = write_npz(
        codes=codes,
        embeddings=gallery.embeddings,
        labels=gallery.labels.astype(np.int16),
        scale=np.abs(gallery.embeddings).max(axis=1) / 127,
    )
    files[GOLDEN] = b""
    golden = _golden(Package(path, _with_files(manifest, files), files, ""), study, seed)
    write_package(path, manifest, files | {GOLDEN: golden})
    return read_package(path)


def gallery_codes(gallery: PoseGallery) -> NDArray[np.int8]:
    """(G, D) int8, each row scaled to its own largest value: cosine does not see the scale."""
    largest = np.abs(gallery.embeddings).max(axis=1, keepdims=True)
    return np.asarray(np.rint(gallery.embeddings / largest * 127), np.int8)


def fit_rule(
    study: Study, quantized: QuantizedEncoder, gallery: Gallery, run: RunFolder
) -> DecisionRule:
    """Choose the similarity below which a live window is rejected.

    On validation users (seen gestures and rest, tier T1): the threshold that costs
    `reject_quantile` of the decisions that were right.
    """
    config = run.config.gallery
    windows = study.validation_windows()
    index = balanced_batch(windows, 512, np.random.default_rng(run.config.optim.seed))
    inputs = windows.encoder_input(index, study.plan.front_end, study.profiles)
    voter = Voter(gallery, config.k)
    votes = [voter.vote(code) for code in quantized.codes(inputs)]
    right = [v.similarity for v, i in zip(votes, index, strict=True) if v.label == windows.label[i]]
    threshold = float(np.quantile(right, config.reject_quantile)) if right else 0.0
    return DecisionRule(
        k=config.k,
        min_similarity=round(threshold, 6),
        min_vote=config.min_vote,
        debounce_ms=config.debounce_ms,
        null_gesture=REST,
    )


def _manifest(
    run: RunFolder,
    study: Study,
    quantized: QuantizedEncoder,
    rule: DecisionRule,
    name: str,
    measured: dict[str, Any],
) -> Manifest:
    plan = study.plan
    packages = ("embridge", "torch", "executorch", "brevitas", "litert-torch", "ai-edge-litert")
    versions = {package: metadata.version(package) for package in packages}
    return Manifest(
        name=name,
        created_by=versions | {"python": platform.python_version()},
        git=git_commit(),
        config={
            "recipe": quantized.recipe,
            "watch": run.config.watch.model_dump(mode="json"),
            "plan": plan.model_dump(mode="json"),
            "run": run.config.model_dump(mode="json", exclude={"data": {"path"}}),
        },
        input=InputSpec(
            channels=plan.channels,
            rate_hz=plan.rate_hz,
            window=plan.window,
            hop=plan.hop,
            unit=plan.unit,
            is_envelope=plan.is_envelope,
        ),
        front_end=plan.front_end,
        embedding=EmbeddingSpec(
            dim=run.config.base.dim, scale=quantized.scale, zero_point=quantized.zero_point
        ),
        decision=rule,
        labels=list(plan.labels),
        unseen=list(plan.unseen),
        files={},
        runtime={runtime: versions[runtime] for runtime in RUNTIMES},
        results=measured,
    )


def _with_files(manifest: Manifest, files: dict[str, bytes]) -> Manifest:
    table: dict[str, Any] = {name: {"sha256": "", "bytes": len(b)} for name, b in files.items()}
    return Manifest.model_validate(manifest.model_dump() | {"files": table})


def _golden(package: Package, study: Study, seed: int) -> bytes:
    """Real windows of the validation users and what every stage that runs here makes of them.

    windows (N, C, T), labels (N,), and for each stage `query.STAGE` (N, D) and `decision.STAGE`
    (N,), an index into the manifest's labels, -1 when rejected
    """
    windows = study.validation_windows()
    index = balanced_batch(windows, GOLDEN_WINDOWS, np.random.default_rng(seed + 1))
    inputs = windows.encoder_input(index, study.plan.front_end, study.profiles)
    arrays: dict[str, NDArray[Any]] = {"windows": inputs, "labels": windows.label[index]}
    names = tuple(package.manifest.labels)
    for stage in (s for s in package.manifest.stages if s in HOST_STAGES):
        found = queries(stage, open_stage(package, stage), inputs)
        voter = Voter(package.gallery(stage), package.manifest.decision.k)
        decisions = [decide(voter, names, package.manifest.decision, 0, q).gesture for q in found]
        arrays[f"query.{stage}"] = found
        arrays[f"decision.{stage}"] = np.array(
            [names.index(d) if d is not None else -1 for d in decisions], np.int16
        )
    return write_npz(**arrays)

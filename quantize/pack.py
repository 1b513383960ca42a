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
from embridge.device.gallery_codes import row_codes
from embridge.device.manifest import STAGE_FILES, EmbeddingSpec, InputSpec, Manifest, ParityLimits
from embridge.device.package import GALLERY, GOLDEN, Package, read_package, write_npz, write_package
from embridge.device.recordings import REST
from embridge.quantize.base_layers import BaseShape
from embridge.quantize.base_quantizer import (
    Quantized,
    base_from_state,
    encoder_name,
    quantize_base,
)
from embridge.quantize.contract import CONTRACTS, arithmetic
from embridge.quantize.export import export_graph
from embridge.quantize.lower import Artefact
from embridge.quantize.quantizer import from_state, quantize_encoder, state_for_file
from embridge.quantize.stages import HOST_STAGES, open_stage, queries
from embridge.training.gallery import build_gallery
from embridge.training.material import balanced_batch
from embridge.training.models import load_models
from embridge.training.run_folder import RunFolder, git_commit, write_atomic
from embridge.training.study import Progress, Study

QUANTIZED = {"watch": "quantized", "base": "quantized-base"}  # .safetensors and .json
CALIBRATION_WINDOWS = 1024
GOLDEN_WINDOWS = 64
GALLERY_BITS = 8
# Between its integer linears `base` computes in float, where backends differ and rounding grows.
BASE_PARITY = ParityLimits(
    graph_max_lsb=16, graph_same_top1=0.95, backends_max_lsb=16, backends_same_top1=0.95
)
RUNTIMES = ("ai-edge-litert", "executorch")


def quantize_run(
    run: RunFolder,
    study: Study,
    recipe: str,
    progress: Progress | None = None,
    encoder: str = "watch",
) -> Quantized:
    """Quantize a run's encoder on training windows of both tiers; written into the run."""
    stem, models, seed = _stem(run, encoder), load_models(run), run.config.optim.seed
    windows = calibration_windows(study, seed)
    quantized: Quantized
    if encoder == "base":
        quantized = quantize_base(models.base, _base_shape(run), windows, recipe, seed=seed)
    else:
        quantized = quantize_encoder(
            models.watch, windows, recipe, seed=seed, folder=run.path, progress=progress
        )
    write_atomic(stem.with_suffix(".safetensors"), save(state_for_file(quantized)))
    write_atomic(stem.with_suffix(".json"), json.dumps({"recipe": recipe}).encode())
    return quantized


def load_quantized(run: RunFolder, encoder: str = "watch") -> Quantized:
    """What `quantize_run` wrote; ConfigError when this encoder of the run is not quantized."""
    stem = _stem(run, encoder)
    stored = stem.with_suffix(".safetensors")
    if not stored.is_file():
        which = "" if encoder == "watch" else f" --encoder {encoder}"
        raise ConfigError(
            f"{run.path}: encoder {encoder!r} is not quantized yet; "
            f"run `embridge quantize {run.path}{which}` first"
        )
    recipe = json.loads(stem.with_suffix(".json").read_text())["recipe"]
    state = load(stored.read_bytes())
    if encoder == "base":
        return base_from_state(_base_shape(run), recipe, state)
    plan, config = run.plan, run.config
    shape = config.watch.shape(plan.channels, plan.window, config.embedding(plan.channels))
    return from_state(shape, recipe, state)


def _stem(run: RunFolder, encoder: str) -> Path:
    if encoder not in QUANTIZED:
        raise ConfigError(f"unknown encoder {encoder!r}; choose one of {', '.join(QUANTIZED)}")
    return run.path / QUANTIZED[encoder]


def _base_shape(run: RunFolder) -> BaseShape:
    plan, config = run.plan, run.config
    size = config.embedding(plan.channels)
    return BaseShape(config.base, plan.channels, plan.window, plan.rate_hz, size)


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
    quantized: Quantized,
    artefacts: dict[str, Artefact],
    path: Path,
) -> Package:
    """Write NAME.embridge with gallery, decision rule and golden windows, and read it back."""
    models, config, seed = load_models(run), run.config, run.config.optim.seed
    gallery = build_gallery(study, models.pose, config.gallery.per_gesture, seed)
    codes = row_codes(gallery.embeddings, GALLERY_BITS)
    rule = fit_rule(
        study, quantized, Gallery(codes.astype(np.float64), gallery.labels, gallery.names), run
    )
    contract = CONTRACTS[encoder_name(quantized)]
    measured = arithmetic(export_graph(quantized.twin), contract) | {
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


def fit_rule(study: Study, quantized: Quantized, gallery: Gallery, run: RunFolder) -> DecisionRule:
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
    quantized: Quantized,
    rule: DecisionRule,
    name: str,
    measured: dict[str, Any],
) -> Manifest:
    plan, encoder = study.plan, encoder_name(quantized)
    section = run.config.base if encoder == "base" else run.config.watch
    packages = ("embridge", "torch", "executorch", "brevitas", "litert-torch", "ai-edge-litert")
    versions = {package: metadata.version(package) for package in packages}
    return Manifest(
        name=name,
        created_by=versions | {"python": platform.python_version()},
        git=git_commit(),
        encoder=encoder,
        config={
            "recipe": quantized.recipe,
            encoder: section.model_dump(mode="json"),
            "plan": plan.model_dump(mode="json", exclude={"files"}),
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
            dim=run.config.embedding(plan.channels),
            queries=run.config.base.queries if encoder == "base" else 1,
            scale=quantized.scale,
            zero_point=quantized.zero_point,
        ),
        decision=rule,
        parity=BASE_PARITY if encoder == "base" else ParityLimits(),
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

    windows (N, C, T), labels (N,), and for each stage `query.STAGE` (N, D) or (N, M, D) and
    `decision.STAGE` (N,), an index into the manifest's labels, -1 when rejected
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

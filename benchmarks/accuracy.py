"""Every stage of a package on the same windows: accuracy, fidelity to float, latency, bytes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embridge.benchmarks.latency import Latency, measure
from embridge.device.manifest import STAGE_FILES
from embridge.device.package import Package
from embridge.quantize.stages import HOST_STAGES, open_stage, queries
from embridge.training.baselines import ridge_to_pose
from embridge.training.evaluate import Score, TestSet, cosine, predict, zero_shot
from embridge.training.gallery import build_gallery
from embridge.training.models import batched, load_models
from embridge.training.run_folder import RunFolder
from embridge.training.study import Progress, Study


@dataclass(frozen=True)
class StageResult:
    """One row of the table; cosine and decisions are compared with the `float` stage.

    cosine: mean, p01, min over windows; same_decision: share of windows with the same gesture when
    all gestures compete; None where a comparison has no meaning
    """

    scores: dict[str, Score]
    cosine: dict[str, float] | None
    same_decision: float | None
    bytes: int | None
    latency: Latency | None

    def json(self) -> dict[str, Any]:
        """The stage as DESIGN section 4 writes it."""
        row: dict[str, Any] = {"zero_shot": {g: s.json() for g, s in self.scores.items()}}
        row["cosine_to_float"] = self.cosine
        row["same_decision"] = self.same_decision
        row["bytes"] = self.bytes
        row["latency"] = self.latency.json() if self.latency else None
        return row


def compare_stages(
    package: Package, test: TestSet, *, runs: int, progress: Progress | None = None
) -> dict[str, StageResult]:
    """Evaluate every stage of a package that runs here; all are held against the first, `float`."""
    k = package.manifest.decision.k
    stages = [stage for stage in package.manifest.stages if stage in HOST_STAGES]
    results: dict[str, StageResult] = {}
    reference: tuple[NDArray[np.generic], NDArray[np.int64]] | None = None
    for number, stage in enumerate(stages):
        if progress:
            progress(number, len(stages), f"evaluate {stage}")
        runtime = open_stage(package, stage)
        found = queries(stage, runtime, test.inputs)
        gallery = package.gallery(stage)
        decisions = predict(found, gallery.subset(test.groups["all"]), k)
        reference = reference or (found, decisions)
        results[stage] = StageResult(
            scores=zero_shot(test, found, gallery, k),
            cosine=cosine(found, reference[0]),
            same_decision=float((decisions == reference[1]).mean()),
            bytes=len(package.files[STAGE_FILES[stage]]),
            latency=measure(runtime.embed, test.inputs, runs),
        )
        runtime.close()
    if progress:
        progress(len(stages), len(stages), "evaluate")
    return results


def reference_rows(
    run: RunFolder, study: Study, test: TestSet, *, runs: int
) -> dict[str, StageResult]:
    """`base` in float, and the ridge regression from EMG features to pose."""
    models, seed, k = load_models(run), run.config.optim.seed, run.config.gallery.k
    gallery = build_gallery(study, models.pose, run.config.gallery.per_gesture, seed)
    ridge = ridge_to_pose(study, seed)

    def encode(window: NDArray[np.float32]) -> object:
        with torch.inference_mode():
            return models.base(torch.from_numpy(window)[None])

    base = zero_shot(test, batched(models.base, test.inputs), gallery.embedded(), k)
    parameters = sum(p.numel() for p in models.base.parameters())
    return {
        "base-float": StageResult(
            base, None, None, 4 * parameters, measure(encode, test.inputs, runs)
        ),
        "ridge": StageResult(
            zero_shot(test, ridge(test.inputs), gallery.posed(), k), None, None, None, None
        ),
    }

"""`embridge eval`: one stage of a run or package on recordings of users it was not trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.device.decision import Gallery
from embridge.device.errors import ConfigError
from embridge.device.manifest import INT8_STAGES
from embridge.device.package import Package, read_package, write_npz
from embridge.device.recordings import Recording
from embridge.quantize.stages import open_stage, queries
from embridge.training.evaluate import Score, TestSet, make_test_set, zero_shot
from embridge.training.gallery import build_gallery
from embridge.training.models import batched, load_models
from embridge.training.plan import StudyPlan
from embridge.training.run_folder import RunFolder, open_run, write_atomic
from embridge.training.study import Study, apply_plan, read_all, users_of

RUN_STAGES = ("float", "base")


@dataclass(frozen=True)
class Evaluation:
    """One stage's scores, and the windows and embeddings they were computed from.

    embeddings: (N, D) float32, dequantized, as `embridge embed` gives them; (N, M, D) for `base`
    """

    stage: str
    test: TestSet
    embeddings: NDArray[np.float32]
    scores: dict[str, Score]

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "stage": self.stage,
            "tier": self.test.tier,
            "test_users": list(self.test.windows.users),
            "zero_shot": {group: score.json() for group, score in self.scores.items()},
        }

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"{self.stage}, tier {self.test.tier}, users {', '.join(self.test.windows.users)}"]
        for group, score in self.scores.items():
            low, high = score.ci95
            lines.append(
                f"{group:7} {score.balanced_accuracy:.3f} [{low:.3f}, {high:.3f}]  "
                f"chance {score.chance:.3f}  {score.windows} windows"
            )
            lines += [f"  {name:28} {recall:.3f}" for name, recall in score.per_class.items()]
        return "\n".join(lines)

    def dump(self, path: Path) -> None:
        """Write windows, embeddings, labels and users as .npz."""
        windows = self.test.windows
        arrays: dict[str, NDArray[Any]] = {
            "windows": self.test.inputs,
            "embeddings": self.embeddings,
            "labels": np.array([self.test.labels[label] for label in windows.label]),
            "users": np.array([windows.users[user] for user in windows.user]),
        }
        write_atomic(path, write_npz(**arrays))


def evaluate(target: Path, data: Path, stage: str, tier: str, limit: int | None) -> Evaluation:
    """Evaluate a run's folder or a package file; raises a leaf of EmbridgeError."""
    if target.is_dir():
        return _evaluate_run(open_run(target), data, stage, tier, limit)
    return _evaluate_package(read_package(target), data, stage, tier, limit)


def study_of(plan: StudyPlan, recordings: list[Recording]) -> Study:
    """The plan on these recordings; users not trained or validated on are test users."""
    known = {*plan.train_users, *plan.val_users}
    others = tuple(u for u in users_of(recordings) if u not in known)
    return apply_plan(plan.model_copy(update={"test_users": others}), recordings)


def _evaluate_package(
    package: Package, data: Path, stage: str, tier: str, limit: int | None
) -> Evaluation:
    plan = StudyPlan.model_validate(package.manifest.config["plan"])
    test = make_test_set(study_of(plan, read_all(data)), tier, limit)
    runtime = open_stage(package, stage)
    found = queries(stage, runtime, test.inputs)
    scores = zero_shot(test, found, package.gallery(stage), package.manifest.decision.k)
    embeddings = found.astype(np.float32)
    if stage in INT8_STAGES:
        spec = package.manifest.embedding
        embeddings = (embeddings - np.float32(spec.zero_point)) * np.float32(spec.scale)
    return Evaluation(stage, test, embeddings, scores)


def _evaluate_run(
    run: RunFolder, data: Path, stage: str, tier: str, limit: int | None
) -> Evaluation:
    if stage not in RUN_STAGES:
        raise ConfigError(
            f"stage {stage!r}: a run has {' and '.join(RUN_STAGES)}; "
            "the others are evaluated on a package"
        )
    models, config = load_models(run), run.config
    gallery = _gallery(run)
    test = make_test_set(study_of(run.plan, read_all(data)), tier, limit)
    encoder = models.base if stage == "base" else models.watch.embed
    found = batched(encoder, test.inputs)
    return Evaluation(stage, test, found, zero_shot(test, found, gallery, config.gallery.k))


def _gallery(run: RunFolder) -> Gallery:
    """The gallery comes from the training users' poses, so from the data the run was made of."""
    study = apply_plan(run.plan, read_all(Path(run.config.data.path)))
    pose = load_models(run).pose
    seed = run.config.optim.seed
    return build_gallery(study, pose, run.config.gallery.per_gesture, seed).embedded()

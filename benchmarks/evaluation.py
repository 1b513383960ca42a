"""`embridge eval`: one stage of a run or package on recordings of users it was not trained on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.device.decision import Gallery
from embridge.device.errors import ConfigError
from embridge.device.manifest import INT8_STAGES
from embridge.device.outline import Outline
from embridge.device.package import Package, read_package, write_npz
from embridge.device.recordings import Recording
from embridge.quantize.stages import open_stage, queries
from embridge.training.baselines import ridge_to_pose
from embridge.training.evaluate import (
    Score,
    TestSet,
    known_users_test_set,
    make_test_set,
    zero_shot,
)
from embridge.training.gallery import PoseGallery, build_gallery
from embridge.training.models import Embed, Models, batched, load_models
from embridge.training.paper.confusion import cautions
from embridge.training.paper.zero_shot import ZeroShot, measure_zero_shot
from embridge.training.plan import StudyPlan
from embridge.training.run import open_study
from embridge.training.run_folder import RunFolder, open_run, write_atomic
from embridge.training.study import Study, apply_plan, read_all, users_of

RUN_STAGES = ("float", "base")
RIDGE = "ridge"  # what a run must beat: regression from EMG features to pose on the same windows
TIERS = {
    "T0": "nothing from the user",
    "T1": "unlabelled EMG of the user's seen gestures, to normalise with",
}


@dataclass(frozen=True, slots=True)
class DataName:
    """What was evaluated on: name of the folder or file, and whether any of it is synthetic."""

    name: str
    synthetic: bool

    @classmethod
    def of(cls, path: Path, recordings: Iterable[Outline]) -> "DataName":
        """Of recordings read from a path."""
        return cls(path.resolve().name, any(r.head.synthetic for r in recordings))

    def __str__(self) -> str:
        """Name and kind."""
        return f"{self.name} ({'synthetic' if self.synthetic else 'real'})"


@dataclass(frozen=True)
class Evaluation:
    """One stage's figures, and the windows and embeddings they were computed from.

    embeddings: (N, D) float32, dequantized, as `embridge embed` gives them; (N, M, D) for `base`
    scores: of all users' windows together, as the report of a demo has them
    known_users: held-out gestures of users trained on, where an official split tests them
    """

    target: str
    stage: str
    data: DataName
    test: TestSet
    gallery: Gallery
    embeddings: NDArray[np.float32]
    scores: dict[str, Score]
    figures: ZeroShot
    known_users: ZeroShot | None = None

    @property
    def users(self) -> list[str]:
        """Users that were tested."""
        windows = self.test.windows
        return [windows.users[user] for user in np.unique(windows.user)]

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "target": self.target,
            "stage": self.stage,
            "tier": self.test.tier,
            "data": {"name": self.data.name, "synthetic": self.data.synthetic},
            "test_users": self.users,
            "zero_shot": {group: score.json() for group, score in self.scores.items()},
            "by_user": self.figures.json(),
            "known_users": self.known_users.json() if self.known_users else None,
        }

    def text(self) -> str:
        """What was run on what, and two tables."""
        tier, users = self.test.tier, self.users
        lines = [
            f"{self.target}, {self.stage}, on {self.data}: {len(self.test.windows)} windows of "
            f"{len(users)} users never trained or validated on ({', '.join(users)})",
            f"tier {tier}: {TIERS[tier]}. Balanced accuracy per user, averaged [95 % over users]; "
            "a repetition is decided by vote of its windows.",
            *cautions(len(users)),
        ]
        text = "\n".join([*lines, "", self.figures.text()])
        if not self.known_users:
            return text
        return f"{text}\n\nHeld-out gestures of users trained on:\n{self.known_users.text()}"

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
        return evaluate_run(open_run(target), data, stage, tier, limit)
    return _evaluate_package(read_package(target), data, stage, tier, limit)


def study_of(plan: StudyPlan, recordings: Sequence[Recording | Outline]) -> Study:
    """The plan on these recordings, those of users not trained or validated on as the test.

    An official split by files holds where any of the files is in it; other data goes by users.
    """
    if any(recording.name in plan.files for recording in recordings):
        return apply_plan(plan, recordings)
    known = {*plan.train_users, *plan.val_users}
    others = tuple(user for user in users_of(recordings) if user not in known)
    changes = {"test_users": others, "files": {}}
    return apply_plan(plan.model_copy(update=changes), recordings)


def read_for(run: RunFolder, data: Path) -> list[Outline]:
    """Read recordings as the run's own were; its official split stays with its own data."""
    options = run.config.data
    if data.resolve() != Path(options.path).resolve():
        options = options.model_copy(update={"split": "users"})
    return read_all(data, data=options)


def _evaluate_package(
    package: Package, data: Path, stage: str, tier: str, limit: int | None
) -> Evaluation:
    plan = StudyPlan.model_validate(package.manifest.config["plan"])
    recordings = read_all(data)
    test = make_test_set(study_of(plan, recordings), tier, limit)
    runtime = open_stage(package, stage)
    found = test.embedded(lambda windows: queries(stage, runtime, windows))
    embeddings = found.astype(np.float32)
    if stage in INT8_STAGES:
        spec = package.manifest.embedding
        embeddings = (embeddings - np.float32(spec.zero_point)) * np.float32(spec.scale)
    gallery, k = package.gallery(stage), package.manifest.decision.k
    return Evaluation(
        package.path.name,
        stage,
        DataName.of(data, recordings),
        test,
        gallery,
        embeddings,
        zero_shot(test, found, gallery, k),
        measure_zero_shot(test, found, gallery, k),
    )


def evaluate_run(
    run: RunFolder, data: Path, stage: str, tier: str, limit: int | None = None
) -> Evaluation:
    """Evaluate `base` or `watch` ("float") of a run in float, or the ridge on its data."""
    check_run_stage(stage, (*RUN_STAGES, RIDGE))
    k = run.config.gallery.k
    embed, gallery = _ridge(run) if stage == RIDGE else _encoder(run, stage)
    recordings = read_for(run, data)
    study = study_of(run.plan, recordings)
    test, known = make_test_set(study, tier, limit), known_users_test_set(study, tier, limit)
    found = test.embedded(embed)
    return Evaluation(
        run.path.name,
        stage,
        DataName.of(data, recordings),
        test,
        gallery,
        found,
        zero_shot(test, found, gallery, k),
        measure_zero_shot(test, found, gallery, k),
        measure_zero_shot(known, known.embedded(embed), gallery, k) if known else None,
    )


def check_run_stage(stage: str, known: tuple[str, ...] = RUN_STAGES) -> None:
    """ConfigError for a stage that only packages have."""
    if stage not in known:
        raise ConfigError(
            f"stage {stage!r}: a run has {', '.join(known)}; the others are evaluated on a package"
        )


def _encoder(run: RunFolder, stage: str) -> tuple[Embed, Gallery]:
    models = load_models(run)
    encoder: Callable[[Any], Any] = models.base if stage == "base" else models.watch.embed
    gallery = _pose_gallery(run, open_study(run), models).embedded()
    return lambda windows: batched(encoder, windows), gallery


def _ridge(run: RunFolder) -> tuple[Embed, Gallery]:
    study = open_study(run)
    fitted = ridge_to_pose(study, run.config.optim.seed)
    gallery = _pose_gallery(run, study, load_models(run)).posed()
    return lambda windows: np.asarray(fitted(windows), np.float32), gallery


def _pose_gallery(run: RunFolder, study: Study, models: Models) -> PoseGallery:
    """Of the training users' poses, so from `study`, the data that the run was made of."""
    return build_gallery(study, models.pose, run.config.gallery.per_gesture, run.config.optim.seed)

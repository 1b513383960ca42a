"""The recipe: which phases a method goes through, what each is fed and what it minimises."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embridge.training.align import Alignment, fix_pose_space
from embridge.training.augment import jitter, mixtures, rotate
from embridge.training.base import QFormerBase
from embridge.training.config import Config
from embridge.training.distil import watch_losses
from embridge.training.distributed import device_of, on_first
from embridge.training.encoders import PatchEncoder
from embridge.training.loader import Batch
from embridge.training.mae import MaskedAutoencoder
from embridge.training.material import Balanced, Material, balanced_batch
from embridge.training.method import PhaseName
from embridge.training.models import Models, build_models
from embridge.training.part import Part
from embridge.training.pose_to_emg import PoseToEmg, emg_features
from embridge.training.run_folder import BEST, RunFolder, save_weights
from embridge.training.study import Progress, Study
from embridge.training.supervised import PoseRegression
from embridge.training.trainer import Losses, Phase, Trainer

VALIDATION_WINDOWS = 256
POSES_FOR_CLUSTERS = 2000
WINDOWS_FOR_PRIOR = 20_000


def train(
    run: RunFolder, study: Study, *, resume: bool = False, progress: Progress | None = None
) -> None:
    """Train the encoders of a run's method and write best.safetensors.

    Raises Interrupted (a KeyboardInterrupt) when stopped; call again with resume=True.
    """
    torch.set_num_threads(run.config.optim.threads)
    models = build_models(run.config, study.plan)
    recipe = Recipe(run.config, study.material(), models)
    trainer = Trainer(recipe.phases(), recipe.modules(), run.config.optim, run.path)
    trainer.fit(resume=resume, progress=progress)
    on_first(lambda: _save_best(run.path / BEST, models))


def _save_best(path: Path, models: Models) -> None:
    save_weights(path, {name: module.state_dict() for name, module in models.parts.items()})


class Recipe:
    """The phases of a run's method, over its windows; parts that no phase needs are not made."""

    def __init__(self, config: Config, material: Material, models: Models) -> None:
        self._config, self._material, self._models = config, material, models
        self._device = device_of(config.optim.device)
        self._train, self._val = material.train, material.val
        self._balanced = Balanced(self._train)
        rng = np.random.default_rng(config.optim.seed)
        self._val_index = balanced_batch(self._val, VALIDATION_WINDOWS, rng)
        makers: dict[PhaseName, Callable[[], Phase]] = {
            "pose_mae": self._pose_mae,
            "emg_mae": self._emg_mae,
            "supervised": self._supervised,
            "align": self._align,
            "watch": self._watch,
        }
        self._phases = [makers[name]() for name in config.method.phases]

    def phases(self) -> list[Phase]:
        """In the order they are trained."""
        return self._phases

    def modules(self) -> dict[str, nn.Module]:
        """Everything a checkpoint must hold: what is trained, and the pose space it leads into."""
        space = {name: part for name, part in self._models.parts.items() if name == "pose"}
        return space | {phase.name: phase.module for phase in self._phases}

    def _pose_mae(self) -> Phase:
        """Stage 1 of the pose encoder."""
        module = self._autoencoder(self._models.pose.encoder)
        return Phase(
            "pose_mae",
            self._config.optim.pose_mae_steps,
            module,
            lambda rng, part: (self._train.pose(part.of(self._draw(rng))),),
            lambda pose: {"loss": module(pose)},
            lambda: float(module(self._validation()[1])),
        )

    def _emg_mae(self) -> Phase:
        """Stage 1 of the EMG encoder."""
        module = self._autoencoder(self._models.base.encoder)
        return Phase(
            "emg_mae",
            self._config.optim.emg_mae_steps,
            module,
            lambda rng, part: (self._emg(self._draw(rng), rng, part),),
            lambda emg: {"loss": module(emg)},
            lambda: float(module(self._validation()[0])),
        )

    def _supervised(self) -> Phase:
        """EMG -> pose by regression, in place of alignment."""
        joints = self._val.pose(self._val_index[:1]).shape[1]
        module = PoseRegression(self._models.base, joints)
        return self._paired(
            "supervised",
            self._config.optim.align_steps,
            module,
            lambda emg, pose: {"loss": module(emg, pose)},
        )

    def _align(self) -> Phase:
        """Stage 2: alignment to the frozen pose encoder."""
        module, models = self._alignment, self._models
        return self._paired(
            "align",
            self._config.optim.align_steps,
            module,
            lambda emg, pose: module.losses(models.pose, emg, pose),
            self._begin_align,
        )

    def _watch(self) -> Phase:
        """Distillation of the encoder for microcontrollers."""
        models, teacher, config = self._models, self._alignment, self._config
        return self._paired(
            "watch",
            config.optim.watch_steps,
            models.watch,
            lambda *batch: watch_losses(models.watch, teacher, models.pose, config.loss, *batch),
            mixed=config.loss.mixed > 0,
        )

    @cached_property
    def _alignment(self) -> Alignment:
        config = self._config
        return Alignment(
            self._models.base, config.loss, config.base.mask_ratio, config.prior.weight
        )

    def _begin_align(self) -> None:
        """Fix the pose space (prior, mean, centroids), start a Q-Former from the pose encoder."""
        pose, base, seed = self._models.pose, self._models.base, self._config.optim.seed
        if pose.prior:
            self._fit_prior(pose.prior, np.random.default_rng(seed))
        index = balanced_batch(self._train, POSES_FOR_CLUSTERS, np.random.default_rng(seed))
        fix_pose_space(pose, self._train.pose(index), self._config.loss, seed)
        if isinstance(base, QFormerBase):
            base.qformer.start_from(pose.encoder)

    def _fit_prior(self, prior: PoseToEmg, rng: np.random.Generator) -> None:
        """On a balanced sample of the training windows, by their users' profiles."""
        index = balanced_batch(self._train, WINDOWS_FOR_PRIOR, rng)
        emg, pose = [], []
        for part in np.array_split(index, WINDOWS_FOR_PRIOR // 500):
            windows = self._train.inputs(part, np.zeros(len(part), np.bool_))
            emg.append(emg_features(torch.from_numpy(windows), prior.kind).numpy())
            pose.append(self._train.pose(part).mean(axis=2))
        prior.fit(
            np.concatenate(emg), np.concatenate(pose), self._train.label[index].astype(np.int64)
        )

    def _autoencoder(self, encoder: PatchEncoder) -> MaskedAutoencoder:
        base = self._config.base
        return MaskedAutoencoder(encoder, base.decoder_dim, base.mask_ratio)

    def _paired(
        self,
        name: PhaseName,
        steps: int,
        module: nn.Module,
        losses: Callable[..., Losses],
        begin: Callable[[], None] = lambda: None,
        *,
        mixed: bool = False,
    ) -> Phase:
        """A phase on EMG (B, C, T) with its pose (B, J, T), and mixtures where it takes them."""
        return Phase(
            name,
            steps,
            module,
            self._pairs_and_mixtures if mixed else self._pairs,
            losses,
            lambda: float(losses(*self._validation())["loss"]),
            begin,
        )

    def _pairs(self, rng: np.random.Generator, part: Part) -> Batch:
        index = self._draw(rng)
        return self._emg(index, rng, part), self._train.pose(part.of(index))

    def _pairs_and_mixtures(self, rng: np.random.Generator, part: Part) -> Batch:
        """EMG and pose, and the EMG mixed with that of other windows, (B, C, T)."""
        emg, pose = self._pairs(rng, part)
        others = self._emg(self._draw(rng), rng, part)
        return emg, pose, mixtures(emg, others, rng, part)

    def _draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        return self._balanced.draw(self._config.optim.batch, rng)

    def _emg(
        self, index: NDArray[np.int64], rng: np.random.Generator, part: Part
    ) -> NDArray[np.float32]:
        """This part of the batch `index`, (B, C, T), varied as wearers and wearings vary."""
        optim, material = self._config.optim, self._material
        population = rng.random(len(index)) < optim.population_share
        emg = self._train.inputs(part.of(index), part.of(population))
        emg = jitter(emg, optim.jitter, rng, part)
        if optim.rotation:
            whole = not material.is_envelope
            emg = rotate(emg, material.ring, optim.rotation, rng, part, whole=whole)
        return emg

    def _validation(self) -> tuple[Tensor, Tensor]:
        """The fixed validation batch, with user profiles."""
        everyone = np.zeros(len(self._val_index), np.bool_)
        emg = self._val.inputs(self._val_index, everyone)
        return self._tensor(emg), self._tensor(self._val.pose(self._val_index))

    def _tensor(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)

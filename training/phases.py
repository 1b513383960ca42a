"""The recipe: pose MAE, EMG MAE, alignment (EMBridge stage 2), distillation of `watch`."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor, nn

from embridge.training import losses as L
from embridge.training.augment import jitter, rotate
from embridge.training.config import Config
from embridge.training.disturb import disturbed_embedding
from embridge.training.encoders import BaseEncoder, MaskedAutoencoder
from embridge.training.material import Material, PairedWindows, balanced_batch
from embridge.training.models import Models, batched, build_models
from embridge.training.run_folder import BEST, RunFolder, save_weights
from embridge.training.study import Progress, Study
from embridge.training.trainer import Batch, Losses, Phase, Trainer, device_of

VALIDATION_WINDOWS = 256
POSES_FOR_CLUSTERS = 2000


def train(
    run: RunFolder, study: Study, *, resume: bool = False, progress: Progress | None = None
) -> None:
    """Train all encoders of a run and write best.safetensors.

    Raises Interrupted (a KeyboardInterrupt) when stopped; call again with resume=True.
    """
    torch.set_num_threads(run.config.optim.threads)
    models = build_models(run.config, study.plan)
    recipe = Recipe(run.config, study.material(), models)
    trainer = Trainer(recipe.phases(), recipe.modules(), run.config.optim, run.path)
    trainer.fit(resume=resume, progress=progress)
    _save_best(run.path / BEST, models)


def _save_best(path: Path, models: Models) -> None:
    save_weights(path, {name: module.state_dict() for name, module in models.named().items()})


class Recipe:
    """The phases of one run, over its windows."""

    def __init__(self, config: Config, material: Material, models: Models) -> None:
        self._config, self._material, self._models = config, material, models
        self._device = device_of(config.optim.device)
        self._train, self._val = material.train, material.val
        rng = np.random.default_rng(config.optim.seed)
        self._val_index = balanced_batch(self._val, VALIDATION_WINDOWS, rng)
        base, depth = config.base, config.base.decoder_dim
        self._pose_mae = MaskedAutoencoder(models.pose.encoder, depth, base.mask_ratio)
        self._emg_mae = MaskedAutoencoder(models.base.encoder, depth, base.mask_ratio)
        self._align = _Aligned(models.base, config.loss.tau)

    def modules(self) -> dict[str, nn.Module]:
        """Everything a checkpoint must hold."""
        return {
            "pose": self._models.pose,
            "pose_mae": self._pose_mae,
            "emg_mae": self._emg_mae,
            "align": self._align,
            "watch": self._models.watch,
        }

    def phases(self) -> list[Phase]:
        """Pose MAE and EMG MAE, then alignment with a frozen pose encoder, then distillation."""
        optim = self._config.optim
        return [
            Phase(
                "pose_mae",
                optim.pose_mae_steps,
                self._pose_mae,
                lambda rng: self._batch(rng)[1:],
                lambda pose: {"loss": self._pose_mae(pose)},
                lambda: float(self._pose_mae(self._validation()[1])),
            ),
            Phase(
                "emg_mae",
                optim.emg_mae_steps,
                self._emg_mae,
                lambda rng: self._batch(rng)[:1],
                lambda emg: {"loss": self._emg_mae(emg)},
                lambda: float(self._emg_mae(self._validation()[0])),
            ),
            Phase(
                "align",
                optim.align_steps,
                self._align,
                self._batch,
                self._align_losses,
                lambda: float(self._align_losses(*self._validation())["loss"]),
                self._begin_align,
            ),
            Phase(
                "watch",
                optim.watch_steps,
                self._models.watch,
                self._batch,
                self._watch_losses,
                lambda: float(self._watch_losses(*self._validation())["loss"]),
            ),
        ]

    def _begin_align(self) -> None:
        """Fix the pose space (mean, centroids) and start the Q-Former from the pose encoder."""
        pose, seed = self._models.pose.eval(), self._config.optim.seed
        windows = _poses(self._train, POSES_FOR_CLUSTERS, seed)
        to_device = self._device
        cls = batched(lambda p: pose.encoder(p.to(to_device))[:, 0].cpu(), windows)
        pose.mean.copy_(torch.from_numpy(cls.mean(axis=0)))
        vectors = F.normalize(torch.from_numpy(cls) - pose.mean.cpu(), dim=1).numpy()
        clusters = min(len(pose.centroids), len(vectors))
        found = KMeans(clusters, n_init=1, random_state=seed).fit(vectors).cluster_centers_
        pose.centroids[:clusters] = F.normalize(torch.from_numpy(found).float(), dim=1)
        self._models.base.qformer.start_from(pose.encoder)

    def _align_losses(self, emg: Tensor, pose: Tensor) -> Losses:
        """InfoNCE + alpha CASCLe + lambda MPRL; emg: (B, C, T), pose: (B, J, T)."""
        config, embedder, base = self._config.loss, self._models.pose.eval(), self._models.base
        with torch.no_grad():
            v = embedder(pose)  # B D
            patches = embedder.encoder.embed_patch(embedder.encoder.tokens(pose))  # B P D
        hidden, queries = base.queries(emg)
        log_q = L.log_match(L.best_query(queries, v), v, self._align.tau())
        affinity = L.community_affinity(v, embedder.centroids, config.top_clusters, config.tau_soft)
        nce, soft = L.info_nce(log_q), L.cascle(log_q, affinity)
        position = embedder.encoder.position[:, 1:].detach()
        masked = base.qformer.masked_pose_loss(
            hidden, patches, position, self._config.base.mask_ratio
        )
        total = nce + config.alpha * soft + config.lambda_ * masked
        return {"loss": total, "info_nce": nce, "cascle": soft, "mprl": masked}

    def _watch_losses(self, emg: Tensor, pose: Tensor) -> Losses:
        """Match the pose and the teacher's view of the whole batch of poses.

        Cosine does not see the length of an embedding, but its int8 codes do: one scale serves all
        windows, so a short embedding would have few levels. `length` keeps them near 1, and
        `unsteady` keeps them where they are when codes are rounded.
        """
        config, watch = self._config.loss, self._models.watch
        tau = self._align.tau().detach()
        with torch.no_grad():
            v = self._models.pose.eval()(pose)
            queries = self._models.base.eval()(emg)  # B M D
            teacher = torch.einsum("bmd,nd->bmn", queries, v).amax(dim=1)  # B B
        embedding = watch.embed(emg)
        log_q = L.log_match(F.normalize(embedding, dim=1), v, config.tau_watch)
        affinity = L.community_affinity(
            v, self._models.pose.centroids, config.top_clusters, config.tau_soft
        )
        nce, soft = L.info_nce(log_q), L.cascle(log_q, affinity)
        distil = L.match_distillation(log_q, teacher, tau)
        length = (embedding.norm(dim=1) - 1).square().mean()
        moved = disturbed_embedding(watch, emg, config.input_noise, config.act_noise)
        unsteady = L.unsteadiness(embedding, moved)
        total = nce + config.alpha * soft + distil
        return {
            "loss": total + config.length * length + config.steady * unsteady,
            "info_nce": nce,
            "cascle": soft,
            "distil": distil,
            "length": length,
            "unsteady": unsteady,
        }

    def _batch(self, rng: np.random.Generator) -> Batch:
        """A training batch: emg (B, C, T), varied as wearers and wearings vary; pose (B, J, T)."""
        optim, material = self._config.optim, self._material
        index = balanced_batch(self._train, optim.batch, rng)
        emg = self._train.inputs(index, rng.random(len(index)) < optim.population_share)
        emg = jitter(emg, optim.jitter, rng)
        if optim.rotation:
            emg = rotate(emg, material.ring, optim.rotation, rng, whole=not material.is_envelope)
        return emg, self._train.pose(index)

    def _validation(self) -> tuple[Tensor, Tensor]:
        """The fixed validation batch, with user profiles."""
        everyone = np.zeros(len(self._val_index), np.bool_)
        emg = self._val.inputs(self._val_index, everyone)
        return self._tensor(emg), self._tensor(self._val.pose(self._val_index))

    def _tensor(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


class _Aligned(nn.Module):
    """What the alignment phase trains: `base` and the temperature."""

    def __init__(self, base: BaseEncoder, tau: float) -> None:
        super().__init__()
        self.base = base
        self.log_tau = nn.Parameter(torch.tensor(tau).log())

    def tau(self) -> Tensor:
        """Temperature of the contrastive softmax, learned."""
        return self.log_tau.exp()


def _poses(windows: PairedWindows, count: int, seed: int) -> NDArray[np.float32]:
    index = balanced_batch(windows, count, np.random.default_rng(seed))
    return windows.pose(index)

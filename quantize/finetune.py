"""Fine-tuning with fake quantization, towards the float encoder's embeddings.

Never on a task loss alone: an embedding that drifts ruins zero-shot while accuracy on the trained
gestures looks perfect.
"""

import hashlib
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embridge.device.errors import ConfigError
from embridge.quantize.calibration import BATCH
from embridge.quantize.recipes import Recipe
from embridge.training.config import OptimConfig
from embridge.training.loader import Batch
from embridge.training.part import Part
from embridge.training.study import Progress
from embridge.training.trainer import Losses, Phase, Trainer
from embridge.training.watch import WatchEncoder

HELD_SHARE = 0.2  # of the calibration windows, kept from fine-tuning to choose its best step


def finetune(
    twin: WatchEncoder,
    float_encoder: WatchEncoder,
    windows: Tensor,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Train a calibrated `twin`, in place, to give the float encoder's embeddings.

    windows: (N, C, T), the first HELD_SHARE is held out. The state kept is the one with the best
    mean cosine on the held windows, the calibrated one included.
    folder: where checkpoints go; the same call after an interruption goes on from there, and they
    are removed at the end
    Raises ConfigError when there are too few windows to hold any out, Interrupted when stopped.
    """
    held_count = int(len(windows) * HELD_SHARE)
    if held_count < 2:
        raise ConfigError(
            f"{len(windows)} windows are too few to fine-tune on, expected at least "
            f"{int(2 / HELD_SHARE)}; add recordings, or use the recipe w8a8"
        )
    held, train = windows[:held_count], windows[held_count:]

    def batch(rng: np.random.Generator, part: Part) -> Batch:
        return (train[part.of(rng.integers(len(train), size=BATCH))].numpy(),)  # B C T

    def losses(windows: Tensor) -> Losses:
        with torch.no_grad():
            target = float_encoder.embed(windows)
        return {"loss": distillation_loss(twin.embed(windows), target)}

    def lost() -> float:
        return 1 - mean_cosine(twin, float_encoder, held)

    calibrated, before = _copy(twin), lost()
    place = folder / f"qat-{_digest(calibrated, windows, recipe, seed)}"
    place.mkdir(parents=True, exist_ok=True)
    phase = Phase("fine-tune", recipe.qat_steps, twin, batch, losses, lost)
    Trainer([phase], {"twin": twin}, _optim(recipe, seed), place).fit(
        resume=True, progress=progress
    )
    if lost() > before:
        twin.load_state_dict(calibrated)
    twin.eval()
    shutil.rmtree(place)


def _optim(recipe: Recipe, seed: int) -> OptimConfig:
    return OptimConfig(
        seed=seed,
        device="cpu",
        learning_rate=recipe.learning_rate,
        weight_decay=0,
        validate_every=20,
        pose_mae_steps=0,
        emg_mae_steps=0,
        align_steps=0,
        watch_steps=0,
    )


def _digest(state: dict[str, Tensor], windows: Tensor, recipe: Recipe, seed: int) -> str:
    """Of everything a checkpoint depends on, so that none is taken up by another fine-tuning."""
    sums = {name: float(value.double().sum()) for name, value in state.items()}
    text = repr((sums, tuple(windows.shape), float(windows.double().sum()), asdict(recipe), seed))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def distillation_loss(embedding: Tensor, target: Tensor) -> Tensor:
    """How far embeddings (B, D) are from `target`: 1 - cosine, plus the mean squared difference
    of the two matrices of pairwise cosines (relational distillation, Park et al. 2019).
    """
    student, teacher = F.normalize(embedding, dim=1), F.normalize(target, dim=1)
    direct = 1 - (student * teacher).sum(dim=1).mean()
    return direct + F.mse_loss(student @ student.T, teacher @ teacher.T)


def mean_cosine(twin: WatchEncoder, float_encoder: WatchEncoder, windows: Tensor) -> float:
    """Mean cosine between both embeddings of windows (N, C, T)."""
    with torch.no_grad():
        return float(F.cosine_similarity(twin.embed(windows), float_encoder.embed(windows)).mean())


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}

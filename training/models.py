"""All encoders of a run, built from its configuration and plan."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embridge.device.errors import ConfigError
from embridge.training.config import Config
from embridge.training.encoders import BaseEncoder, PatchEncoder, PoseEmbedder, QFormer
from embridge.training.plan import StudyPlan, samples
from embridge.training.run_folder import RunFolder, submodule
from embridge.training.watch import WatchEncoder

Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Models:
    """The trained parts: pose side, `base` and `watch` EMG encoders."""

    pose: PoseEmbedder
    base: BaseEncoder
    watch: WatchEncoder

    def named(self) -> dict[str, nn.Module]:
        """Modules by the names their weights are stored under."""
        return {"pose": self.pose, "base": self.base, "watch": self.watch}


def build_models(config: Config, plan: StudyPlan) -> Models:
    """Fresh encoders; the same seed gives the same weights. ConfigError when shapes do not fit."""
    torch.manual_seed(config.optim.seed)
    patch = samples(config.base.patch_ms, plan.rate_hz)
    if plan.window < 2 * patch:
        raise ConfigError(
            f"base.patch_ms={config.base.patch_ms:g}: expected at least two patches in a window of "
            f"{config.data.window_ms:g} ms"
        )
    base = config.base
    size = (base.dim, base.depth, base.heads, base.feed_forward)
    pose_encoder = PatchEncoder(plan.joints, plan.window, patch, *size)
    emg_encoder = PatchEncoder(
        plan.channels, plan.window, patch, *size, base.instance_norm, base.features
    )
    try:
        watch = WatchEncoder(config.watch.shape(plan.channels, plan.window, base.dim))
    except ValueError as error:
        raise ConfigError(f"watch: {error}") from error
    return Models(
        pose=PoseEmbedder(pose_encoder, config.loss.clusters),
        base=BaseEncoder(emg_encoder, QFormer(pose_encoder, base.queries)),
        watch=watch,
    )


def load_models(run: RunFolder) -> Models:
    """The best encoders of a finished run, in eval mode."""
    models = build_models(run.config, run.plan)
    weights = run.best()
    for name, module in models.named().items():
        load_weights(module, submodule(weights, name), f"{run.path.name}: {name}")
        module.eval()
    return models


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """load_state_dict with one clear line when the weights are of another architecture."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:160]
        raise ConfigError(f"{what}: weights of another architecture ({detail})") from error


@torch.inference_mode()
def batched(
    module: Callable[[Tensor], Tensor], windows: NDArray[np.float32], size: int = 64
) -> NDArray[np.float32]:
    """Apply a module to windows (N, ...) in batches of `size`."""
    parts = [_apply(module, part) for part in _batches(windows, size)]
    return np.concatenate(parts)


def _batches(windows: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(windows), size):
        yield windows[start : start + size]


def _apply(module: Callable[[Tensor], Tensor], part: NDArray[np.float32]) -> NDArray[np.float32]:
    return module(torch.from_numpy(np.ascontiguousarray(part))).float().numpy()

"""All encoders of a run, built from its configuration and plan."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embridge.device.errors import ConfigError
from embridge.training.base import BaseEncoder, ProjectedBase, QFormerBase
from embridge.training.config import Config
from embridge.training.encoders import PatchEncoder, PoseEmbedder
from embridge.training.plan import Geometry, samples
from embridge.training.pose_to_emg import Features, PoseToEmg
from embridge.training.qformer import QFormer
from embridge.training.run_folder import RunFolder, submodule
from embridge.training.watch import WatchEncoder

Embed = Callable[[NDArray[np.float32]], NDArray[np.float32]]


Part = TypeVar("Part", bound=nn.Module)


@dataclass(frozen=True)
class Models:
    """The parts that a method trains; asking for one that it does not train is a ConfigError.

    parts: by the names their weights are stored under
    """

    method: str
    parts: dict[str, nn.Module]

    @property
    def pose(self) -> PoseEmbedder:
        """The pose side."""
        return self._part("pose", PoseEmbedder)

    @property
    def base(self) -> BaseEncoder:
        """The EMG side, with the head of the method."""
        return self._part("base", BaseEncoder)

    @property
    def watch(self) -> WatchEncoder:
        """The EMG side for microcontrollers."""
        return self._part("watch", WatchEncoder)

    def _part(self, name: str, kind: type[Part]) -> Part:
        part = self.parts.get(name)
        if not isinstance(part, kind):
            raise ConfigError(
                f"method {self.method} trains no encoder {name!r}, only {', '.join(self.parts)}; "
                "use a run of an aligned method, such as embridge or cpep"
            )
        return part


def build_models(config: Config, plan: Geometry) -> Models:
    """Fresh encoders; the same seed gives the same weights. ConfigError when shapes do not fit."""
    torch.manual_seed(config.optim.seed)
    phases = config.method.phases
    parts: dict[str, nn.Module] = {}
    if "pose_mae" in phases:
        encoder = PatchEncoder(plan.joints, *_size(config, plan))
        parts["pose"] = PoseEmbedder(
            encoder, config.loss.clusters, _prior(config, plan), config.prior.share
        )
    if {"emg_mae", "supervised", "align"} & {*phases}:
        parts["base"] = _base(config, plan)
    if "watch" in phases:
        parts["watch"] = _watch(config, plan)
    return Models(config.method.name, parts)


def _base(config: Config, plan: Geometry) -> BaseEncoder:
    base = config.base
    encoder = PatchEncoder(plan.channels, *_size(config, plan), base.instance_norm, base.features)
    if base.head == "qformer":
        return QFormerBase(encoder, QFormer(encoder, base.queries), config.embedding(plan.channels))
    if base.head == "projection":
        return ProjectedBase(encoder, config.embedding(plan.channels))
    return BaseEncoder(encoder)


def _prior(config: Config, plan: Geometry) -> PoseToEmg | None:
    if not config.prior.share:
        return None
    kind: Features = "rms" if config.base.features == "rms" else "mean"
    return PoseToEmg(plan.joints, plan.channels, config.prior, kind)


def _size(config: Config, plan: Geometry) -> tuple[int, int, int, int, int, int]:
    """What E_x and E_p share: window and patch in samples, width, depth, heads, feed-forward."""
    base, patch = config.base, samples(config.base.patch_ms, plan.rate_hz)
    if plan.window < 2 * patch:
        raise ConfigError(
            f"base.patch_ms={base.patch_ms:g}: expected at least two patches in a window of "
            f"{config.data.window_ms:g} ms"
        )
    return plan.window, patch, base.dim, base.depth, base.heads, base.feed_forward


def _watch(config: Config, plan: Geometry) -> WatchEncoder:
    try:
        size = config.embedding(plan.channels)
        return WatchEncoder(config.watch.shape(plan.channels, plan.window, size))
    except ValueError as error:
        raise ConfigError(f"watch: {error}") from error


def load_models(run: RunFolder) -> Models:
    """The best encoders of a finished run, in eval mode."""
    models = build_models(run.config, run.plan)
    weights = run.best()
    for name, module in models.parts.items():
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

"""Training configuration: a TOML file with `key=value` overrides, typed, unknown keys refused."""

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embridge.device.errors import ConfigError
from embridge.device.frontend import FilterDesign
from embridge.training.watch import Stage, WatchShape

PRESETS = Path(__file__).parent / "configs"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(_Section):
    """Which recordings, and how they are cut and split."""

    path: str = ""
    window_ms: float
    hop_ms: float  # between live decisions, and between test windows
    train_hop_ms: float
    unseen_gestures: tuple[str, ...] = ()  # left out of training; chosen evenly when empty
    unseen_count: int = Field(4, ge=2)
    val_users: int = Field(1, ge=1)
    test_users: int = Field(0, ge=0)  # 0: a third of the users
    pose_scaling: Literal["global", "user"] = "global"  # "user" for uncalibrated gloves


class BaseConfig(_Section):
    """The `base` encoder: Transformer over patches and Q-Former (EMBridge)."""

    dim: int = 64
    depth: int = 4
    heads: int = 4
    feed_forward: int = 128
    patch_ms: float
    queries: int = 16
    mask_ratio: float = 0.5
    decoder_dim: int = 64
    instance_norm: Literal["none", "window", "channel"] = "window"


class WatchConfig(_Section):
    """The `watch` encoder: (width, kernel, stride) of the stem and of each block, in samples."""

    stem: tuple[int, int, int]
    blocks: tuple[tuple[int, int, int], ...] = Field(min_length=1)

    def shape(self, channels: int, window: int, embedding: int) -> WatchShape:
        """The network for (C, T) windows."""
        return WatchShape(
            channels, window, embedding, Stage(*self.stem), tuple(Stage(*b) for b in self.blocks)
        )


class LossConfig(_Section):
    """Weights and temperatures of L = InfoNCE + alpha CASCLe + lambda MPRL."""

    alpha: float = 1.0
    lambda_: float = 1.0
    tau: float = 0.07
    clusters: int = 64  # N_c
    top_clusters: int = 5  # k_c
    tau_soft: float = 0.1  # tau_s


class OptimConfig(_Section):
    """Steps of each phase and how they are taken."""

    seed: int = 0
    threads: int = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of a phase's steps
    clip_norm: float = 1.0
    pose_mae_steps: int
    emg_mae_steps: int
    align_steps: int
    watch_steps: int
    validate_every: int = 50
    checkpoint_every: int = 100
    population_share: float = 0.25  # of windows normalised without their user's profile
    jitter: float = 0.1  # per-channel gain and offset noise, in standard deviations


class GalleryConfig(_Section):
    """The pose gallery and the live decision rule."""

    per_gesture: int = 48
    k: int = 10
    debounce_ms: float = 300.0
    min_vote: float = 0.5
    reject_quantile: float = 0.05  # of right validation decisions that the threshold may cost


class Config(_Section):
    """Everything a run is made from."""

    name: str
    data: DataConfig
    front_end: FilterDesign = FilterDesign()
    base: BaseConfig
    watch: WatchConfig
    loss: LossConfig = LossConfig()
    optim: OptimConfig
    gallery: GalleryConfig = GalleryConfig()


def load_config(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a TOML file and apply `section.key=value` overrides.

    Values are TOML (`optim.seed=3`, `data.unseen_gestures=["fist"]`); bare words are strings.
    Raises ConfigError for a missing file, bad TOML, an unknown key or a value of the wrong type.
    """
    if not path.is_file():
        known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.toml")))
        raise ConfigError(f"{path}: no such configuration; presets are {known}")
    try:
        tree = tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path.name}: not valid TOML ({error})") from error
    for override in overrides or []:
        _apply(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path.name}: {where}: {first['msg'].lower()} (got {first['input']!r}); "
            "see training/config.py for the keys"
        ) from error


def preset_path(rate_hz: float, is_envelope: bool) -> Path:
    """The preset for a kind of recording."""
    if is_envelope:
        return PRESETS / "envelope.toml"
    return PRESETS / ("raw.toml" if rate_hz >= 500 else "raw_slow.toml")


def _apply(tree: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign:
        raise ConfigError(f"override {override!r}: expected section.key=value")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    *sections, leaf = key.strip().split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"override {override!r}: {section} is a value, not a section")
    tree[leaf] = value

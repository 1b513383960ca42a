"""Training configuration: a TOML file with `key=value` overrides, typed, unknown keys refused."""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from embridge.device.errors import ConfigError
from embridge.device.frontend import FilterDesign
from embridge.training.watch import Stage, WatchShape

PRESETS = Path(__file__).parent / "configs"

ConvStage = tuple[PositiveInt, PositiveInt, PositiveInt]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(_Section):
    """Which recordings, and how they are cut and split."""

    path: str = ""
    window_ms: PositiveFloat
    hop_ms: PositiveFloat  # between live decisions, and between test windows
    train_hop_ms: PositiveFloat
    unseen_gestures: tuple[str, ...] = ()  # left out of training; chosen evenly when empty
    unseen_count: int = Field(4, ge=2)
    val_users: int = Field(1, ge=1)
    test_users: int = Field(0, ge=0)  # the last so many; 0: a third of the users
    user_rotation: Literal[0, 1, 2] | None = None  # test every third user instead, from this one on
    pose_scaling: Literal["auto", "global", "user"] = "auto"  # auto: per user for raw gloves


class BaseConfig(_Section):
    """The `base` encoder: Transformer over patches and Q-Former (EMBridge)."""

    dim: PositiveInt = 64
    depth: PositiveInt = 4
    heads: PositiveInt = 4
    feed_forward: PositiveInt = 128
    patch_ms: PositiveFloat
    queries: PositiveInt = 16
    mask_ratio: float = Field(0.5, gt=0, lt=1)
    decoder_dim: int = Field(64, gt=0, multiple_of=4)  # the decoder has 4 heads
    instance_norm: Literal["none", "window", "channel"] = "window"
    features: Literal["waveform", "power"] = "waveform"

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        return self


class WatchConfig(_Section):
    """The `watch` encoder: (width, kernel, stride) of the stem and of each block, in samples."""

    stem: ConvStage
    blocks: tuple[ConvStage, ...] = Field(min_length=1)

    def shape(self, channels: int, window: int, embedding: int) -> WatchShape:
        """The network for (C, T) windows."""
        return WatchShape(
            channels, window, embedding, Stage(*self.stem), tuple(Stage(*b) for b in self.blocks)
        )


class LossConfig(_Section):
    """Weights and temperatures of L = InfoNCE + alpha CASCLe + lambda MPRL, and of `watch`."""

    alpha: NonNegativeFloat = 1.0
    lambda_: NonNegativeFloat = 1.0
    tau: PositiveFloat = 0.07
    clusters: PositiveInt = 64  # N_c
    top_clusters: PositiveInt = 5  # k_c
    tau_soft: PositiveFloat = 0.1  # tau_s
    # `watch` only. Its own temperature: a small one lets embeddings of hard data point away from
    # every pose, where noise decides between the nearest ones; a large one pulls them to the poses
    # of seen gestures.
    tau_watch: PositiveFloat = 0.15
    length: NonNegativeFloat = 0.1  # weight of the penalty on (|embedding| - 1)^2
    steady: NonNegativeFloat = 30.0  # weight of how far noise moves an embedding
    input_noise: NonNegativeFloat = 0.05  # that noise: standard deviations of the input
    act_noise: NonNegativeFloat = 0.04  # and shares of each layer's largest value


class OptimConfig(_Section):
    """Steps of each phase and how they are taken."""

    seed: NonNegativeInt = 0
    threads: PositiveInt = 2
    device: Literal["auto", "cpu", "cuda"] = "auto"
    batch: int = Field(128, ge=2)  # a window is told apart from the others of its batch
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05
    warmup: float = Field(0.05, ge=0, le=1)  # share of a phase's steps
    clip_norm: PositiveFloat = 1.0
    pose_mae_steps: NonNegativeInt
    emg_mae_steps: NonNegativeInt
    align_steps: NonNegativeInt
    watch_steps: NonNegativeInt
    validate_every: PositiveInt = 50
    checkpoint_every: PositiveInt = 100
    population_share: float = Field(0.25, ge=0, le=1)  # of windows without their user's profile
    rotation: NonNegativeFloat = 0.0  # largest turn of the band, in electrodes
    jitter: NonNegativeFloat = 0.1  # per-channel gain and offset noise, in standard deviations


class GalleryConfig(_Section):
    """The pose gallery and the live decision rule."""

    per_gesture: PositiveInt = 48
    k: PositiveInt = 10
    debounce_ms: NonNegativeFloat = 300.0
    min_vote: float = Field(0.5, ge=0, le=1)
    reject_quantile: float = Field(0.05, ge=0, le=1)  # of right decisions a threshold may cost


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
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
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
    *sections, leaf = (part.strip() for part in key.split("."))
    if not sign or not all((*sections, leaf)):
        raise ConfigError(f"override {override!r}: expected section.key=value")
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"override {override!r}: {section} is a value, not a section")
    tree[leaf] = value

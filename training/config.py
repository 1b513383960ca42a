"""Training configuration: a TOML file with `key=value` overrides, typed, unknown keys refused."""

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
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
from embridge.training.encoders import PatchFeatures
from embridge.training.method import Head, LossConfig, MethodConfig, contradiction, with_method
from embridge.training.pose_to_emg import PriorConfig
from embridge.training.precision import Precision
from embridge.training.section import Section as _Section
from embridge.training.watch import Stage, WatchShape, WatchSize, sized

PRESETS = Path(__file__).parent / "configs"

ConvStage = tuple[PositiveInt, PositiveInt, PositiveInt]


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
    # "users", "official" (metadata.csv beside the files), or a split file of emg2pose (.yaml)
    split: str = "users"
    allow_missing: bool = False  # files that the split names and the folder lacks
    share: float = Field(1.0, gt=0, le=1)  # of each training user's paired windows; see less_data
    mirror_left_arms: bool = True  # see ReadOptions
    glove_sensors: Literal[18] | None = None
    # electrodes are brought together by what wearers' profiles tell: see device/electrodes.py
    align: Literal["none", "rotation", "reflection"] = "none"
    cache: str = ""  # folder for outlines and converted files; the user's cache folder when empty
    cache_mb: PositiveInt = 512  # of filtered samples, in each process that reads windows


class BaseConfig(_Section):
    """The `base` encoder: Transformer over patches and its head.

    head: "qformer" (EMBridge), "projection" of [CLS] (CPEP), or "none" for what is not aligned
    """

    head: Head = "qformer"
    dim: PositiveInt = 64
    depth: PositiveInt = 4
    heads: PositiveInt = 4
    feed_forward: PositiveInt = 128
    patch_ms: PositiveFloat
    queries: PositiveInt = 16
    mask_ratio: float = Field(0.5, gt=0, lt=1)
    decoder_dim: int = Field(64, gt=0, multiple_of=4)  # the decoder has 4 heads
    instance_norm: Literal["none", "window", "channel"] = "window"
    features: PatchFeatures = "waveform"

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        return self


class WatchConfig(_Section):
    """The `watch` encoder: (width, kernel, stride) of the stem and of each block, in samples.

    size: "m" has the widths given, "s" half and "l" twice of them (our own choice)
    """

    size: WatchSize = "m"
    stem: ConvStage
    blocks: tuple[ConvStage, ...] = Field(min_length=1)

    def shape(self, channels: int, window: int, embedding: int) -> WatchShape:
        """The network for (C, T) windows."""
        stem, *blocks = (sized(Stage(*stage), self.size) for stage in (self.stem, *self.blocks))
        return WatchShape(channels, window, embedding, stem, tuple(blocks))


class OptimConfig(_Section):
    """Steps of each phase and how they are taken."""

    seed: NonNegativeInt = 0
    threads: PositiveInt = 2  # of each process
    workers: NonNegativeInt = 0  # processes that draw batches ahead, for each training process
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"  # auto: bf16 on CUDA
    batch: int = Field(128, ge=2)  # of all processes; windows are told apart from its others
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.05
    warmup: float = Field(0.05, ge=0, le=1)  # share of a phase's steps
    clip_norm: PositiveFloat = 1.0
    pose_mae_steps: NonNegativeInt
    emg_mae_steps: NonNegativeInt
    align_steps: NonNegativeInt  # also of `supervised`, which takes its place
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
    method: MethodConfig = MethodConfig()
    data: DataConfig
    front_end: FilterDesign = FilterDesign()
    base: BaseConfig
    watch: WatchConfig
    loss: LossConfig = LossConfig()
    prior: PriorConfig = PriorConfig()
    optim: OptimConfig
    gallery: GalleryConfig = GalleryConfig()

    def embedding(self, channels: int) -> int:
        """D of the pose space: the encoders' width, and with a prior one more for each channel."""
        return self.base.dim + (channels if self.prior.share else 0)

    @model_validator(mode="after")
    def _flags_agree(self) -> Self:
        if problem := contradiction(self.method, self.base.head, self.loss):
            raise ValueError(problem)
        return self


def load_config(
    path: Path, overrides: list[str] | None = None, method: str | None = None
) -> Config:
    """Read a TOML file, lay a method's flags over it, then apply `section.key=value` overrides.

    Values are TOML (`optim.seed=3`, `data.unseen_gestures=["fist"]`); bare words are strings.
    method: a name of configs/methods; the configuration is then called NAME-METHOD
    Raises ConfigError for a missing file, bad TOML, an unknown key or method, a value of the wrong
    type, or flags that contradict each other.
    """
    if not path.is_file():
        known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.toml")))
        raise ConfigError(f"{path}: no such configuration; presets are {known}")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name}: not valid TOML ({error})") from error
    if method:
        tree = with_method(tree, method)
    for override in overrides or []:
        _apply(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{path.name}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    if not first["loc"]:  # of the whole, and it names its keys itself
        return first["msg"].removeprefix("Value error, ")
    where = ".".join(map(str, first["loc"]))
    got = f"{first['msg'].lower()} (got {first['input']!r})"
    return f"{where}: {got}; see training/config.py for the keys"


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

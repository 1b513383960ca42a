"""Which method is trained: every row of the paper's tables is a setting of the one trainer.

configs/methods/NAME.toml holds each row's flags; it is laid over any preset.
"""

import tomllib
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from embridge.device.errors import ConfigError
from embridge.training.section import Section

METHODS = Path(__file__).parent / "configs" / "methods"

PhaseName = Literal["pose_mae", "emg_mae", "supervised", "align", "watch"]
Head = Literal["qformer", "projection", "none"]
_ORDER: tuple[str, ...] = get_args(PhaseName)


class MethodConfig(Section):
    """The phases that are trained; parts that no phase needs are not made."""

    name: str = "embridge"
    phases: tuple[PhaseName, ...] = ("pose_mae", "emg_mae", "align", "watch")

    @property
    def aligned(self) -> bool:
        """Whether EMG is embedded among poses: zero-shot and `watch` need it."""
        return "align" in self.phases


class LossConfig(Section):
    """Weights and temperatures of L = InfoNCE + alpha CASCLe + lambda MPRL, and of `watch`.

    query: whose cosine counts: "own", the query closest to the window's own pose, against all poses
    (fact), or "each", the one closest to each pose, as BLIP-2 trains and retrieval decides (ours)
    symmetric: InfoNCE from pose to EMG as well, averaged (CPEP)
    targets: what stands beside InfoNCE's hard targets; label smoothing softens those themselves
    renormalise: CASCLe's q over j != i (ours; as written, q counts the own pose)
    """

    query: Literal["own", "each"] = "own"
    symmetric: bool = False
    targets: Literal["none", "cascle", "label-smoothing", "softclip"] = "cascle"
    renormalise: bool = False
    alpha: NonNegativeFloat = 1.0  # of CASCLe or SoftCLIP
    lambda_: NonNegativeFloat = 1.0  # of MPRL; 0: no such part
    tau: PositiveFloat = 0.07
    clusters: PositiveInt = 64  # N_c
    top_clusters: PositiveInt = 5  # k_c
    tau_soft: PositiveFloat = 0.1  # tau_s
    smoothing: float = Field(0.1, gt=0, lt=1)  # eps
    # `watch` only. Its own temperature: a small one lets embeddings of hard data point away from
    # every pose, where noise decides between the nearest ones; a large one pulls them to the poses
    # of seen gestures.
    tau_watch: PositiveFloat = 0.15
    direct: NonNegativeFloat = 1.0  # weight of 1 - cosine to the mean of `base`'s vectors
    mixed: NonNegativeFloat = 0.0  # weight of the same on mixtures of windows, see `mixtures`
    length: NonNegativeFloat = 0.1  # weight of the penalty on (|embedding| - 1)^2
    steady: NonNegativeFloat = 30.0  # weight of how far noise moves an embedding
    input_noise: NonNegativeFloat = 0.05  # that noise: standard deviations of the input
    act_noise: NonNegativeFloat = 0.04  # and shares of each layer's largest value


def contradiction(method: MethodConfig, head: Head, loss: LossConfig) -> str | None:
    """What does not go together, in one line; None when all is well."""
    phases = method.phases
    if not phases or list(phases) != [name for name in _ORDER if name in phases]:
        return f"method.phases={list(phases)}: expected some of {', '.join(_ORDER)}, in this order"
    if method.aligned and "supervised" in phases:
        return "method.phases: align and supervised both train the EMG encoder; leave one out"
    if method.aligned and "pose_mae" not in phases:
        return "method.phases: align needs the pose encoder that pose_mae trains; add it"
    if "watch" in phases and not method.aligned:
        return (
            "method.phases: watch is distilled from what align trains; leave it out, or add align"
        )
    if method.aligned and head == "none":
        return "base.head=none: align needs qformer or projection"
    if not method.aligned and head != "none":
        return f"base.head={head}: align alone trains it; set base.head=none, or add align"
    if not method.aligned:
        return None
    if loss.lambda_ and head != "qformer":
        return f"loss.lambda_={loss.lambda_:g}: MPRL needs base.head=qformer; set loss.lambda_=0"
    if loss.renormalise and loss.targets != "cascle":
        return f"loss.renormalise: it is CASCLe's, and loss.targets is {loss.targets}"
    return None


def method_names() -> list[str]:
    """The methods that `--method` knows."""
    return sorted(path.stem for path in METHODS.glob("*.toml"))


def with_method(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """A configuration with the flags of a method laid over it, and its name after its own.

    Raises ConfigError for an unknown method.
    """
    if name not in method_names():
        raise ConfigError(f"method {name!r}: no such method; they are {', '.join(method_names())}")
    flags = tomllib.loads((METHODS / f"{name}.toml").read_text(encoding="utf-8"))
    laid: dict[str, Any] = _laid_over(tree, flags)
    return laid | ({"name": f"{laid['name']}-{name}"} if "name" in laid else {})


def _laid_over(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _laid_over(below.get(key), value) for key, value in above.items()}

"""How an encoder may be quantized, by short name."""

from dataclasses import dataclass
from typing import Literal

from embridge.device.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Recipe:
    """Bits, how activation ranges are measured, and the training steps after it.

    weight_bits, act_bits: bits of every layer's weights and of every activation
    ranges: "percentile" takes `percentile` of |activation|, "mse" the smallest squared error
    percentile: share of |activation| values, in percent, that a range covers (the rest clips)
    qat_steps: optimiser steps of distillation with fake quantization; 0 = calibration only
    weight_budget: weights of some layers at 8 bits, chosen by sensitivity, such that all weights
        take at most this share of the bytes they take at 8 bits; None = `weight_bits` everywhere
    """

    weight_bits: int = 8
    act_bits: int = 8
    ranges: Literal["percentile", "mse"] = "percentile"
    percentile: float = 99.999
    qat_steps: int = 0
    learning_rate: float = 1e-4
    weight_budget: float | None = None


RECIPES = {
    "w8a8": Recipe(),
    "w8a8-mse": Recipe(ranges="mse"),
    "w8a8-qat": Recipe(ranges="mse", qat_steps=200),
    "w4a8-qat": Recipe(weight_bits=4, qat_steps=300, learning_rate=3e-4),
    "auto": Recipe(weight_bits=4, qat_steps=300, learning_rate=3e-4, weight_budget=0.7),
}


def recipe_of(name: str) -> Recipe:
    """The recipe of this name; ConfigError with the known ones otherwise."""
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; choose one of {', '.join(sorted(RECIPES))}")
    return RECIPES[name]

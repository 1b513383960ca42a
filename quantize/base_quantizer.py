"""Trained `base` encoder -> its form with integer linears, by calibration alone.

Calibration keeps the query vectors within about 1 degree of the float ones, so there is no
fine-tuning here.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from embridge.device.errors import ConfigError
from embridge.quantize.base_layers import (
    BaseShape,
    WindowEncoder,
    float_form,
    integer_form,
    linears_of,
)
from embridge.quantize.calibration import calibration_data, load_forms, set_ranges
from embridge.quantize.export import plain_copy
from embridge.quantize.quantizer import QuantizedEncoder
from embridge.quantize.recipes import RECIPES, Recipe
from embridge.quantize.settle import act_scale
from embridge.training.base import BaseEncoder, QFormerBase


@dataclass(frozen=True, slots=True)
class QuantizedBase:
    """`base` with integer linears in fake-quantized form, and the float encoder it came from.

    twin, float_encoder: (B, C, 1, T) float32 -> (B, M * D); the twin's are codes * scale
    """

    twin: WindowEncoder
    float_encoder: WindowEncoder
    recipe: str

    @property
    def scale(self) -> float:
        """Size of one code of the query vectors; a float32 value."""
        return act_scale(self._output)

    @property
    def zero_point(self) -> int:
        """Code of zero."""
        return int(self._output.act_quant.zero_point())

    @property
    def _output(self) -> Any:
        project: Any = self.twin.base.project
        return project.leave

    def codes(self, windows: NDArray[np.float32]) -> NDArray[np.int8]:
        """windows: (N, C, T) float32 -> (N, M, D) int8 by fake quantization, one at a time."""
        plain = plain_copy(self.twin)
        with torch.no_grad():
            parts = [plain.embed(window) for window in torch.split(torch.from_numpy(windows), 1)]
        codes = torch.round(torch.cat(parts) / self.scale) + self.zero_point
        return codes.to(torch.int8).numpy()


Quantized = QuantizedEncoder | QuantizedBase


def encoder_name(quantized: Quantized) -> Literal["watch", "base"]:
    """Which of a run's encoders it is a form of."""
    return "base" if isinstance(quantized, QuantizedBase) else "watch"


def quantize_base(
    encoder: BaseEncoder, shape: BaseShape, windows: NDArray[np.float32], recipe: str, *, seed: int
) -> QuantizedBase:
    """Quantize the linears of a trained encoder by one of the `RECIPES` without fine-tuning.

    windows: (N, C, T) float32, normalised as the device will normalise them
    Raises ConfigError for another recipe, a base without a Q-Former, and for windows that cannot
    calibrate.
    """
    if not isinstance(encoder, QFormerBase):
        raise ConfigError(
            f"base.head={shape.config.head}: only a `base` with a Q-Former is quantized; "
            "quantize `watch`, or a run with base.head=qformer"
        )
    chosen = calibrating_recipe(recipe)
    data = calibration_data(windows, shape.channels, shape.window, seed)
    twin = integer_form(shape, encoder, chosen)
    set_ranges(twin, data)
    settle_biases(twin)
    return QuantizedBase(twin, float_form(shape, encoder), recipe)


def calibrating_recipe(name: str) -> Recipe:
    """The recipe of this name; ConfigError when it is unknown or fine-tunes."""
    names = sorted(known for known, recipe in RECIPES.items() if not recipe.qat_steps)
    if name not in names:
        raise ConfigError(
            f"recipe {name!r}: `base` is quantized by calibration alone; "
            f"choose one of {', '.join(names)}"
        )
    return RECIPES[name]


def settle_biases(twin: WindowEncoder) -> None:
    """Round each bias to a multiple of input scale x weight scale: the kernels' int32 grid."""
    for layer in linears_of(twin):
        with torch.no_grad():
            step = act_scale(layer.enter) * layer.linear.quant_weight().scale.flatten().double()
            layer.linear.bias.copy_(torch.round(layer.linear.bias / step) * step)  # D


def base_from_state(shape: BaseShape, recipe: str, state: dict[str, Tensor]) -> QuantizedBase:
    """Rebuild a saved encoder from `twin.*` and `float.*`; codes are equal to the bit.

    Raises ConfigError when the state is of another shape or recipe.
    """
    modules = {
        "twin": integer_form(shape, shape.untrained(), calibrating_recipe(recipe)),
        "float": float_form(shape, shape.untrained()),
    }
    load_forms(modules, state, f"recipe {recipe} and {shape}")
    return QuantizedBase(modules["twin"], modules["float"], recipe)

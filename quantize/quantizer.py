"""Float encoder -> quantized encoder: calibration, and distillation with fake quantization.

The embedding space is the product (a pose gallery is searched in it), so both steps are judged by
how far embeddings move, never by a classification loss.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embridge.quantize.calibration import calibration_data, load_forms, set_ranges
from embridge.quantize.finetune import finetune
from embridge.quantize.layers import (
    QuantLayers,
    conv_names,
    folded_encoder,
    quantized_twin,
)
from embridge.quantize.mixed import choose_bits
from embridge.quantize.recipes import recipe_of
from embridge.quantize.settle import act_scale, settle
from embridge.training.study import Progress
from embridge.training.watch import FloatLayers, WatchEncoder, WatchShape, fold_batch_norm

MIXED_WINDOWS = 256  # to measure how sensitive each layer is


@dataclass(frozen=True, slots=True)
class QuantizedEncoder:
    """An encoder in fake-quantized form, and the float encoder that it came from.

    twin: brevitas layers; (B, C, 1, T) float32 -> (B, D, 1, 1), real = codes * scale
    float_encoder: the same network in float32, batch norm folded
    """

    twin: WatchEncoder
    float_encoder: WatchEncoder
    recipe: str

    @property
    def weight_bits(self) -> dict[str, int]:
        """Bits of each convolution's weights, by path."""
        layers = dict(self.twin.named_modules())
        return {n: int(layers[n].weight_bits) for n in conv_names(self.twin.shape)}

    @property
    def scale(self) -> float:
        """Size of one code of the embedding; a float32 value."""
        return act_scale(self.twin.output)

    @property
    def zero_point(self) -> int:
        """Code of the embedding's zero."""
        return int(self.twin.output.act_quant.zero_point())  # type: ignore[union-attr,operator]

    def codes(self, windows: NDArray[np.float32]) -> NDArray[np.int8]:
        """windows: (N, C, T) float32 -> (N, D) int8, the embedding by fake quantization.

        One window at a time: in a batch torch sums in another order, and 1 code in 1000 moves.
        """
        with torch.no_grad():
            parts = [
                self.twin.embed(window) for window in torch.split(torch.from_numpy(windows), 1)
            ]
        codes = torch.round(torch.cat(parts) / self.scale) + self.zero_point
        return codes.to(torch.int8).numpy()


def quantize_encoder(
    encoder: WatchEncoder,
    windows: NDArray[np.float32],
    recipe: str,
    *,
    seed: int,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> QuantizedEncoder:
    """Quantize a trained encoder by one of the `RECIPES`.

    windows: (N, C, T) float32, normalised as the device will normalise them
    folder: where fine-tuning keeps its checkpoints, so that it can be resumed
    Raises ConfigError for an unknown recipe and for windows that cannot calibrate, Interrupted
    when fine-tuning is stopped.
    """
    chosen = recipe_of(recipe)
    data = calibration_data(windows, encoder.shape.channels, encoder.shape.window, seed)
    float_encoder = fold_batch_norm(encoder)
    twin = quantized_twin(float_encoder, chosen)
    calibrate(twin, data)
    if chosen.weight_budget is not None:
        bits = choose_bits(float_encoder, chosen, data[:MIXED_WINDOWS])
        twin = quantized_twin(float_encoder, chosen, bits)
        calibrate(twin, data)
    if chosen.qat_steps:
        with _place(folder) as place:
            finetune(twin, float_encoder, data, chosen, place, seed=seed, progress=progress)
    settle(twin)
    return QuantizedEncoder(twin, float_encoder, recipe)


@contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    if folder:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="embridge-") as temporary:
        yield Path(temporary)


def calibrate(twin: WatchEncoder, data: Tensor) -> None:
    """Set the activation ranges of `twin`, in place, from windows (N, C, T)."""
    with _pool_unobserved(twin):
        set_ranges(twin, data)


@contextmanager
def _pool_unobserved(twin: WatchEncoder) -> Iterator[None]:
    """Hide the pooled means from the quantizer they share: they would narrow its range."""
    shared = twin.pooled
    twin.pooled = nn.Identity()
    try:
        yield
    finally:
        twin.pooled = shared


class TwoForms(Protocol):
    """A quantized encoder: its fake-quantized and its float form."""

    @property
    def twin(self) -> nn.Module:
        """Fake-quantized."""

    @property
    def float_encoder(self) -> nn.Module:
        """In float32."""


def state_for_file(encoder: TwoForms) -> dict[str, Tensor]:
    """Both forms as plain tensors for safetensors; the recipe's name goes beside them."""
    parts = {"twin": encoder.twin, "float": encoder.float_encoder}
    return {
        f"{part}.{name}": value.detach().clone()  # the pool shares a quantizer: it is there twice
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }


def from_state(shape: WatchShape, recipe: str, state: dict[str, Tensor]) -> QuantizedEncoder:
    """Rebuild what `state_for_file` saved; codes are equal to the bit.

    Raises ConfigError when the state is of another shape or recipe.
    """
    stored = [state.get(f"twin.{name}.weight_bits") for name in conv_names(shape)]
    bits = tuple(int(b) for b in stored if b is not None)
    modules = {
        "twin": folded_encoder(shape, QuantLayers(recipe_of(recipe), bits)),
        "float": folded_encoder(shape, FloatLayers()),
    }
    load_forms(modules, state, f"recipe {recipe} and {shape}")
    return QuantizedEncoder(modules["twin"], modules["float"], recipe)

"""Float encoder -> quantized encoder: calibration, and distillation with fake quantization.

The embedding space is the product (a pose gallery is searched in it), so both steps are judged by
how far embeddings move, never by a classification loss.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from embridge.device.errors import ConfigError
from embridge.quantize.layers import (
    RECIPES,
    QuantLayers,
    Recipe,
    calibration_mode,
    folded_encoder,
    quantized_twin,
)
from embridge.quantize.settle import act_scale, settle
from embridge.training.study import Progress
from embridge.training.watch import FloatLayers, WatchEncoder, WatchShape, fold_batch_norm

BATCH = 64  # windows
HELD_SHARE = 0.2  # of the calibration windows, kept from fine-tuning to choose its best step
STEPS_BETWEEN_CHECKS = 20


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
    progress: Progress | None = None,
) -> QuantizedEncoder:
    """Quantize a trained encoder by one of the `RECIPES`.

    windows: (N, C, T) float32, normalised as the device will normalise them
    Raises ConfigError for an unknown recipe and for windows that cannot calibrate.
    """
    if recipe not in RECIPES:
        raise ConfigError(f"unknown recipe {recipe!r}; choose one of {', '.join(sorted(RECIPES))}")
    expected = (encoder.shape.channels, encoder.shape.window)
    if windows.ndim != 3 or windows.shape[1:] != expected:
        raise ConfigError(
            f"calibration windows have shape {windows.shape}, the encoder takes (N, C, T) with "
            f"(C, T) = {expected}; cut them with the encoder's own configuration"
        )
    order = np.random.default_rng(seed).permutation(len(windows))
    data = torch.from_numpy(np.ascontiguousarray(windows[order], dtype=np.float32))
    float_encoder = fold_batch_norm(encoder)
    twin = quantized_twin(encoder, RECIPES[recipe])
    batches = torch.split(data, BATCH) if len(data) else ()
    calibrate(twin, batches)
    if RECIPES[recipe].qat_steps:
        finetune(twin, float_encoder, data, RECIPES[recipe], seed=seed, progress=progress)
    settle(twin)
    return QuantizedEncoder(twin, float_encoder, recipe)


def calibrate(twin: WatchEncoder, windows: Iterable[Tensor]) -> None:
    """Set the activation ranges of `twin`, in place, from batches (B, C, T) of windows.

    Each range is the mean over batches of the recipe's percentile. Raises ConfigError when there
    are no windows, a value is not finite, or an electrode never changes.
    """
    low, high = torch.tensor(torch.inf), torch.tensor(-torch.inf)
    done = 0
    with torch.no_grad(), calibration_mode(twin), _pool_unobserved(twin):
        for batch in windows:
            if not bool(torch.isfinite(batch).all()):
                raise ConfigError(
                    "calibration windows hold NaN or infinity; remove those windows: "
                    "`embridge data check` finds them"
                )
            low = torch.minimum(low, batch.amin(dim=(0, 2)))  # C
            high = torch.maximum(high, batch.amax(dim=(0, 2)))  # C
            twin.embed(batch)
            done += len(batch)
    if not done:
        raise ConfigError("no calibration windows; give at least one recording of the train split")
    constant = torch.nonzero(low == high).flatten().tolist()
    if constant:
        raise ConfigError(
            f"channels {constant} are constant in the calibration windows, expected EMG; "
            "check the electrodes or choose other recordings"
        )
    twin.eval()


@contextmanager
def _pool_unobserved(twin: WatchEncoder) -> Iterator[None]:
    """Hide the pooled means from the quantizer they share: they would narrow its range."""
    shared = twin.pooled
    twin.pooled = nn.Identity()
    try:
        yield
    finally:
        twin.pooled = shared


def finetune(
    twin: WatchEncoder,
    float_encoder: WatchEncoder,
    windows: Tensor,
    recipe: Recipe,
    *,
    seed: int,
    progress: Progress | None = None,
) -> None:
    """Train a calibrated `twin`, in place, to give the float encoder's embeddings.

    windows: (N, C, T), the first HELD_SHARE is held out. The state kept is the one with the best
    mean cosine on the held windows, the calibrated one included. Raises ConfigError when there are
    too few windows to hold any out.
    """
    held_count = int(len(windows) * HELD_SHARE)
    if held_count < 2:
        raise ConfigError(
            f"{len(windows)} windows are too few to fine-tune on, expected at least "
            f"{int(2 / HELD_SHARE)}; add recordings, or use the recipe w8a8"
        )
    held, train = windows[:held_count], windows[held_count:]
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(twin.parameters(), recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.qat_steps)
    best, kept = mean_cosine(twin, float_encoder, held), _copy_state(twin)
    for step in range(1, recipe.qat_steps + 1):
        batch = train[torch.randint(len(train), (BATCH,), generator=generator)]  # B C T
        with torch.no_grad():
            target = float_encoder.embed(batch)
        loss = distillation_loss(twin.train().embed(batch), target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % STEPS_BETWEEN_CHECKS == 0 or step == recipe.qat_steps:
            cosine = mean_cosine(twin.eval(), float_encoder, held)
            if cosine > best:
                best, kept = cosine, _copy_state(twin)
        if progress:
            progress(step, recipe.qat_steps, f"fine-tune, loss {loss.item():.4f}")
    twin.load_state_dict(kept)
    twin.eval()


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


def _copy_state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def state_for_file(encoder: QuantizedEncoder) -> dict[str, Tensor]:
    """Everything to save, as plain tensors for safetensors; the recipe's name goes beside it."""
    parts = {"twin": encoder.twin, "float": encoder.float_encoder}
    return {f"{p}.{k}": v for p, module in parts.items() for k, v in _copy_state(module).items()}


def from_state(shape: WatchShape, recipe: str, state: dict[str, Tensor]) -> QuantizedEncoder:
    """Rebuild what `state_for_file` saved; codes are equal to the bit.

    Raises ConfigError when the state is of another shape or recipe.
    """
    modules = {
        "twin": folded_encoder(shape, QuantLayers(RECIPES[recipe])),
        "float": folded_encoder(shape, FloatLayers()),
    }
    for part, module in modules.items():
        mine = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
        try:
            module.load_state_dict(mine)
        except RuntimeError as error:
            raise ConfigError(
                f"saved weights do not fit recipe {recipe} and {shape}: "
                f"{' '.join(str(error).split())}; quantize the run again"
            ) from error
    return QuantizedEncoder(modules["twin"], modules["float"], recipe)

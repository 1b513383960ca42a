"""Windows that calibrate, and the ranges that they give: the same for every encoder."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embridge.device.errors import ConfigError
from embridge.quantize.layers import calibration_mode

BATCH = 64  # windows


def calibration_data(windows: NDArray[np.float32], channels: int, window: int, seed: int) -> Tensor:
    """windows: (N, C, T) -> the same in random order.

    Raises ConfigError for another shape, no windows, a value that is not finite, and an electrode
    that never changes.
    """
    if windows.ndim != 3 or windows.shape[1:] != (channels, window):
        raise ConfigError(
            f"calibration windows have shape {windows.shape}, the encoder takes (N, C, T) with "
            f"(C, T) = {(channels, window)}; cut them with the encoder's own configuration"
        )
    if not len(windows):
        raise ConfigError("no calibration windows; give at least one recording of the train split")
    if not np.isfinite(windows).all():
        raise ConfigError(
            "calibration windows hold NaN or infinity; remove those windows: "
            "`embridge data check` finds them"
        )
    constant = np.flatnonzero(windows.min(axis=(0, 2)) == windows.max(axis=(0, 2)))
    if len(constant):
        raise ConfigError(
            f"channels {constant.tolist()} are constant in the calibration windows, expected EMG; "
            "check the electrodes or choose other recordings"
        )
    order = np.random.default_rng(seed).permutation(len(windows))
    return torch.from_numpy(np.ascontiguousarray(windows[order], dtype=np.float32))


def set_ranges(twin: nn.Module, data: Tensor) -> None:
    """Set the activation ranges of a twin with `embed`, in place; data: (N, C, T).

    Each range is the mean over batches of what the recipe measures.
    """
    with torch.no_grad(), calibration_mode(twin):
        for batch in torch.split(data, BATCH):
            twin.embed(batch)  # type: ignore[operator]
    twin.eval()


def load_forms(modules: Mapping[str, nn.Module], state: Mapping[str, Tensor], what: str) -> None:
    """Load `twin.*` and `float.*` of a saved state; ConfigError when it does not fit `what`."""
    for part, module in modules.items():
        mine = {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(f"{part}.")}
        try:
            module.load_state_dict(mine)
        except RuntimeError as error:
            raise ConfigError(
                f"saved weights do not fit {what}: {' '.join(str(error).split())[:200]}; "
                "quantize the run again"
            ) from error

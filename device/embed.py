"""Windows in, embeddings out: `embridge embed`."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge.device.errors import ConfigError
from embridge.device.runtimes import EncoderRuntime


def embed_windows(runtime: EncoderRuntime, windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """windows: (N, C, T) float32, encoder input -> (N, D) float32, dequantized, not unit length.

    One window at a time, as on the device. Raises ConfigError for windows of another shape.
    """
    if windows.ndim != 3 or not len(windows):
        raise ConfigError(f"expected windows of shape (N, C, T) with N > 0, got {windows.shape}")
    return np.stack([runtime.embed(window) for window in windows])


def embed_file(runtime: EncoderRuntime, source: Path, target: Path) -> list[int]:
    """Read windows.npy, write embeddings as .npy in full or not at all, return their shape."""
    try:
        windows = np.load(source, allow_pickle=False)
    except FileNotFoundError as error:
        raise ConfigError(f"{source}: no such file; expected windows (N, C, T) as .npy") from error
    except (ValueError, EOFError) as error:
        raise ConfigError(f"{source}: not a .npy of numbers ({error})") from error
    if not isinstance(windows, np.ndarray) or not np.issubdtype(windows.dtype, np.floating):
        raise ConfigError(f"{source}: expected one float32 array (N, C, T), as np.save writes it")
    embeddings = embed_windows(runtime, windows.astype(np.float32))
    temporary = target.with_name(target.name + ".part")
    with temporary.open("wb") as file:
        np.save(file, embeddings)
    os.replace(temporary, target)
    return list(embeddings.shape)

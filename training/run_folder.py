"""A run on disk: configuration, plan, environment, metrics, weights. No pickles.

runs/NAME/ config.json, plan.json, env.json, metrics.jsonl, best.safetensors, and
last.ckpt, which is read with weights_only
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from embridge.device.errors import ConfigError
from embridge.training.config import Config
from embridge.training.plan import StudyPlan

BEST = "best.safetensors"
LAST = "last.ckpt"
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class RunFolder:
    """A run's folder with its configuration and plan."""

    path: Path
    config: Config
    plan: StudyPlan

    def best(self) -> dict[str, Tensor]:
        """Weights of all encoders, keys prefixed by module; ConfigError before training is done."""
        file = self.path / BEST
        if not file.is_file():
            raise ConfigError(
                f"{self.path}: training has not finished; go on with `embridge train --resume`"
            )
        try:
            return dict(load_tensors(file.read_bytes()))
        except SafetensorError as error:
            raise ConfigError(f"{file}: damaged ({error}); train again") from error


def create_run(path: Path, config: Config, plan: StudyPlan) -> RunFolder:
    """Make the folder; ConfigError when it already holds a run."""
    if (path / "config.json").exists():
        raise ConfigError(
            f"{path} already holds a run; go on with --resume, or choose another with --out"
        )
    path.mkdir(parents=True, exist_ok=True)
    write_atomic(path / "plan.json", plan.model_dump_json(indent=1).encode())
    write_atomic(path / "env.json", json.dumps(environment(), indent=1).encode())
    write_atomic(path / "config.json", config.model_dump_json(indent=1).encode())
    return RunFolder(path, config, plan)


def open_run(path: Path) -> RunFolder:
    """Open a run's folder; ConfigError when it is none."""
    if not (path / "config.json").is_file():
        raise ConfigError(f"{path}: no run here (no config.json); make one with `embridge train`")
    try:
        config = Config.model_validate_json((path / "config.json").read_text())
        plan = StudyPlan.model_validate_json((path / "plan.json").read_text())
    except (ValidationError, OSError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{path}: config.json or plan.json cannot be used ({first})") from error
    return RunFolder(path, config, plan)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there in full or not at all, also after a loss of power."""
    with _replacing(path) as file:
        file.write(data)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside `path` that takes its place once all of it is on the disk."""
    temporary = path.with_name(path.name + ".part")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)


def save_weights(path: Path, modules: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write {module: state} as safetensors, keys joined by a dot."""
    flat = {
        f"{m}.{k}": t.contiguous().cpu() for m, state in modules.items() for k, t in state.items()
    }
    write_atomic(path, save_tensors(flat))


def submodule(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights of one module, its prefix removed."""
    return {k[len(name) + 1 :]: t for k, t in weights.items() if k.startswith(name + ".")}


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; it holds tensors and plain values only."""
    with _replacing(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint with weights_only; ConfigError when it is damaged."""
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises many kinds on damaged files
        raise ConfigError(f"{path}: damaged checkpoint; delete it to begin again") from error
    return state


def environment() -> dict[str, str]:
    """Versions and machine, for the record."""
    packages = (
        "embridge",
        "torch",
        "brevitas",
        "executorch",
        "litert-torch",
        "ai-edge-litert",
        "numpy",
    )
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions | {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu_count": str(os.cpu_count()),
        "system": platform.platform(terse=True),
        "git": git_commit(),
    }


def git_commit() -> str:
    """Commit of the checkout this code runs from, or "unknown" outside one."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=Path(__file__).resolve().parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"

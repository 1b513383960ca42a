"""Synthetic sessions in emg2pose's layout, made by the forward model of `synth_model`.

One file per user and stage, `<session>_<stage>_left.hdf5`. Every file depends only on the seed, the
user and the stage, so a set that was interrupted is completed, not made again.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embridge.device.emg2pose import write_emg2pose
from embridge.device.errors import ConfigError
from embridge.device.recordings import Recording
from embridge.training.synth_model import (
    CONTROL_HZ,
    Anatomy,
    Band,
    draw_anatomy,
    draw_band,
    simulate,
)
from embridge.training.synth_poses import STAGES, movement
from embridge.training.synth_split import Entry, write_metadata

MARK = "synth.json"  # in the folder: these files are ours, and made with these arguments
VERSION = 1  # of the model; raise it whenever the same arguments give other samples
UV_PER_COUNT = 0.25  # a power of two, so counts times it are exact in float32
_START_S = 1_700_000_000.0


def synthesize(
    out: Path,
    *,
    users: int = 10,
    seconds_per_stage: float = 8.0,
    seed: int = 0,
    rate_hz: int = 2000,
    with_metadata: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write `users` sessions of 12 gestures and rest into the folder `out`; return the files.

    with_metadata: also metadata.csv and split files, see `synth_split`
    Files that are already there from the same arguments are kept. `progress` gets (files done,
    files in all). Raises ConfigError on unusable arguments, or when `out` holds anything else.
    """
    _check_arguments(users, seconds_per_stage, seed, rate_hz)
    claim_folder(
        out,
        {
            "version": VERSION, "users": users, "seconds_per_stage": float(seconds_per_stage),
            "seed": seed, "rate_hz": rate_hz,
        },
    )  # fmt: skip
    samples = round(seconds_per_stage * rate_hz)
    files, entries = [], []
    for user in range(users):
        session = f"synth-seed{seed}-user{user:02d}"
        anatomy, band = _user(seed, user)
        for number, stage in enumerate(STAGES):
            path = out / f"{session}_{stage}_left.hdf5"
            if not path.exists():
                random = np.random.default_rng([seed, user, 1 + number])
                pose = movement(stage, samples, rate_hz, random)
                emg = simulate(pose.astype(np.float64), rate_hz, anatomy, band, random)
                recording = _recording(
                    path.stem, f"synth{user:02d}", session, stage, rate_hz, pose, emg
                )
                write_emg2pose(path, recording, start_s=_START_S)
            files.append(path)
            entries.append(Entry(path.stem, f"synth{user:02d}", session, stage))
            if progress:
                progress(len(files), users * len(STAGES))
    if with_metadata:
        write_metadata(out, entries, _START_S)
    return files


def _check_arguments(users: int, seconds_per_stage: float, seed: int, rate_hz: int) -> None:
    for name, value, low, high in (
        ("users", users, 1, 1000),
        ("seconds_per_stage", seconds_per_stage, 1, 600),
        ("seed", seed, 0, 2**31),
        ("rate_hz", rate_hz, 1000, 8000),  # EMG reaches 450 Hz
    ):
        if not low <= value <= high:
            raise ConfigError(f"expected {name} from {low} to {high}, got {value}")
    if rate_hz % CONTROL_HZ:
        raise ConfigError(f"expected rate_hz as a multiple of {CONTROL_HZ}, got {rate_hz}")


def claim_folder(out: Path, arguments: Mapping[str, object]) -> None:
    """Mark the folder as made with these arguments; raise ConfigError if it holds anything else."""
    mark, wanted = out / MARK, json.dumps(arguments)
    if mark.exists():
        found = mark.read_text()
        if found != wanted:
            raise ConfigError(
                f"{out}: expected an empty folder or a set made with {wanted}, got one made with "
                f"{found}: choose another folder or delete this one"
            )
        return
    if out.exists() and (not out.is_dir() or any(not _hidden(file) for file in out.iterdir())):
        raise ConfigError(
            f"{out}: expected an empty or new folder, got one with other files: choose another"
        )
    out.mkdir(parents=True, exist_ok=True)
    partial = out / f".{MARK}.partial"
    partial.write_text(wanted)
    os.replace(partial, mark)


def _hidden(file: Path) -> bool:
    return file.name.startswith(".")


def _user(seed: int, user: int) -> tuple[Anatomy, Band]:
    """The forearm and the band of a user; the mains are 50 Hz for one half of them, else 60 Hz."""
    random = np.random.default_rng([seed, user, 0])
    anatomy = draw_anatomy(random)
    return anatomy, draw_band(random, hum_hz=(50.0, 60.0)[user % 2])


def _recording(
    name: str,
    user: str,
    session: str,
    stage: str,
    rate_hz: float,
    pose: NDArray[np.float32],
    emg: NDArray[np.float32],
) -> Recording:
    counts = np.clip(np.round(emg / UV_PER_COUNT), -(2**15), 2**15 - 1)  # T C, as a 16-bit ADC
    samples = len(counts)
    return Recording(
        name=name,
        source="synthetic",
        user=user,
        session=session,
        rate_hz=float(rate_hz),
        emg=(counts * UV_PER_COUNT).astype(np.float32),
        emg_unit="uV",
        is_envelope=False,
        pose=pose,
        pose_unit="rad",
        pose_valid=np.ones(samples, bool),
        gestures=(stage,),
        gesture=np.zeros(samples, np.int16),
        trial=np.ones(samples, np.int32),
        repetition=np.ones(samples, np.int16),
        emg_unit_per_count=UV_PER_COUNT,
        synthetic=True,
    )

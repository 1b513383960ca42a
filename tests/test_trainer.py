"""Training can be stopped anywhere and resumed to the same result."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from embridge.device.errors import ConfigError
from embridge.training.run import train_run
from embridge.training.synth import synthesize
from embridge.training.trainer import Interrupted

SMALL = [
    "optim.pose_mae_steps=12",
    "optim.emg_mae_steps=6",
    "optim.align_steps=10",
    "optim.watch_steps=14",
    "optim.batch=8",
    "optim.validate_every=4",
    "optim.checkpoint_every=5",
    "optim.threads=1",
    "data.train_hop_ms=200",
    "loss.clusters=8",
]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    synthesize(folder, users=3, seconds_per_stage=2.0)
    return folder


@pytest.fixture(scope="module")
def whole(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return train_run(Path("raw"), SMALL, recordings, out).path


def same_weights(a: Path, b: Path) -> bool:
    first, second = load_file(a / "best.safetensors"), load_file(b / "best.safetensors")
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    whole: Path, recordings: Path, tmp_path: Path
) -> None:
    again = train_run(Path("raw"), SMALL, recordings, tmp_path / "again").path
    other = train_run(Path("raw"), [*SMALL, "optim.seed=1"], recordings, tmp_path / "other").path
    assert same_weights(whole, again)
    assert not same_weights(whole, other)


@pytest.mark.parametrize("stop_after", [1, 12, 15, 23, 36])
def test_a_run_stopped_at_any_step_resumes_to_the_same_result(
    whole: Path, recordings: Path, tmp_path: Path, stop_after: int
) -> None:
    """Steps 12 and others are phase boundaries or lie between two checkpoints."""
    steps = 0

    def interrupt(done: int, total: int, text: str) -> None:
        nonlocal steps
        if " loss " in text:
            steps += 1
            if steps == stop_after:
                os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "run"
    with pytest.raises(Interrupted, match="--resume"):
        train_run(Path("raw"), SMALL, recordings, out, progress=interrupt)
    train_run(Path("raw"), [], None, out, resume=True)
    assert same_weights(whole, out)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows == [json.loads(x) for x in (whole / "metrics.jsonl").read_text().splitlines()]


def test_a_killed_process_loses_nothing_that_was_saved(
    whole: Path, recordings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "embridge", "train", "raw", *SMALL]
    process = subprocess.Popen(
        [*command, "--data", str(recordings), "--out", str(out)], stderr=subprocess.DEVNULL
    )
    while not (out / "last.ckpt").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.wait()
    train_run(Path("raw"), [], None, out, resume=True)
    assert same_weights(whole, out)


def test_losses_fall_and_are_logged(whole: Path) -> None:
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert {row["phase"] for row in rows} == {"pose_mae", "emg_mae", "align", "watch"}
    pose = [row["validation"] for row in rows if row["phase"] == "pose_mae"]
    assert pose[-1] < pose[0]
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_an_existing_run_is_not_overwritten(whole: Path, recordings: Path) -> None:
    with pytest.raises(ConfigError, match="--resume"):
        train_run(Path("raw"), SMALL, recordings, whole)


def test_a_damaged_checkpoint_is_refused_in_one_line(
    recordings: Path, whole: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "plan.json"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    (tmp_path / "last.ckpt").write_bytes((whole / "last.ckpt").read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"damaged checkpoint") as error:
        train_run(Path("raw"), [], None, tmp_path, resume=True)
    assert "\n" not in str(error.value)

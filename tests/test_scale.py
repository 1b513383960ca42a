"""Several processes, worker processes and bf16 change how fast training is, not what it gives."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from embridge.benchmarks.scale_bench import Contestant, bench_train, text
from embridge.device.errors import ConfigError, RecordingError
from embridge.training.augment import jitter, rotate
from embridge.training.loader import Batch, batches
from embridge.training.part import Part
from embridge.training.run import train_run
from embridge.training.synth import synthesize

STEPS = 6
SMALL = [
    *(f"optim.{name}_steps={STEPS}" for name in ("pose_mae", "emg_mae", "align", "watch")),
    "optim.batch=8",
    "optim.validate_every=1",
    "optim.checkpoint_every=4",
    "optim.threads=1",
    "optim.warmup=0.9",  # large first steps of Adam make a difference of mere rounding
    "data.train_hop_ms=200",
    "loss.clusters=8",
    "loss.symmetric=true",  # so that gradients have to cross from process to process
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    synthesize(folder, users=3, seconds_per_stage=2.0)
    return folder


@pytest.fixture(scope="module")
def alone(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run by one process without workers."""
    return train_run(Path("raw"), SMALL, recordings, tmp_path_factory.mktemp("runs") / "one").path


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def same_bits(a: Path, b: Path) -> bool:
    first, second = load_file(a / "best.safetensors"), load_file(b / "best.safetensors")
    weights = first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    return weights and (a / "metrics.jsonl").read_bytes() == (b / "metrics.jsonl").read_bytes()


def assert_same_curve(run: Path, other: Path) -> None:
    """Losses to rounding; of `watch`, validation less so.

    Convolution biases before a batch norm have no gradient but rounding noise, which Adam makes
    steps of; a training loss does not see them, running means see them late.
    """
    for a, b in zip(metrics(run), metrics(other), strict=True):
        assert a.keys() == b.keys()
        assert (a["phase"], a["step"]) == (b["phase"], b["step"])
        for name in a.keys() - {"phase", "step"}:
            loose = a["phase"] == "watch" and name == "validation"
            expected = pytest.approx(a[name], rel=2e-3 if loose else 1e-4, abs=2e-6)
            assert b[name] == expected, (a["phase"], a["step"], name)


@given(world=st.integers(1, 8), each=st.integers(1, 5))
def test_the_parts_of_all_processes_are_the_whole_batch(world: int, each: int) -> None:
    batch = np.arange(world * each)
    parts = [Part(rank, world).of(batch) for rank in range(world)]
    assert np.array_equal(np.concatenate(parts), batch)


def test_a_batch_that_cannot_be_shared_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"multiple of 3") as error:
        Part(0, 3).rows(8)
    assert "\n" not in str(error.value)


def test_augmentation_of_the_parts_is_that_of_the_whole_batch() -> None:
    emg = np.random.default_rng(0).standard_normal((6, 8, 50), np.float32)

    def varied(part: Part) -> np.ndarray:
        rng = np.random.default_rng(1)
        noisy = jitter(part.of(emg), 0.3, rng, part)
        return rotate(noisy, 8, 1, rng, part, whole=False)

    assert np.array_equal(np.concatenate([varied(Part(r, 3)) for r in range(3)]), varied(Part()))


def draw(step: int) -> Batch:
    return (np.random.default_rng(step).standard_normal((4, 3), np.float32),)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_draw_the_batches_that_this_process_would_draw(workers: int) -> None:
    steps = range(3, 9)
    ours = list(batches(draw, steps, workers=0, pin=False))
    theirs = list(batches(draw, steps, workers=workers, pin=False))
    assert [len(batch) for batch in theirs] == [1] * len(steps)
    assert all(torch.equal(a, b) for (a,), (b,) in zip(ours, theirs, strict=True))


def test_closing_the_batches_ends_their_workers() -> None:
    source = batches(draw, range(100), workers=2, pin=False)
    next(source)
    assert len(multiprocessing.active_children()) == 2
    source.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_keeps_its_one_line(workers: int) -> None:
    def damaged(step: int) -> Batch:
        if step == 2:
            raise RecordingError("a.hdf5: emg is damaged")
        return draw(step)

    source = batches(damaged, range(5), workers=workers, pin=False)
    with pytest.raises(RecordingError) as error:
        list(source)
    assert str(error.value) == "a.hdf5: emg is damaged"


def test_workers_do_not_change_the_result(alone: Path, recordings: Path, tmp_path: Path) -> None:
    other = train_run(Path("raw"), [*SMALL, "optim.workers=2"], recordings, tmp_path / "run").path
    assert same_bits(alone, other)


def test_bf16_gives_finite_losses_close_to_those_of_fp32(
    alone: Path, recordings: Path, tmp_path: Path
) -> None:
    extra = ["optim.precision=bf16"]
    other = train_run(Path("raw"), [*SMALL, *extra], recordings, tmp_path / "run").path
    exact, half = ([row["loss"] for row in metrics(run)] for run in (alone, other))
    assert exact != half
    assert half == pytest.approx(exact, rel=0.05)


def test_two_processes_give_the_loss_curve_of_one(
    alone: Path, recordings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = [*TORCHRUN, "-m", "embridge", "train", "raw", *SMALL, "optim.workers=1"]
    done = subprocess.run(
        [*command, "--data", str(recordings), "--out", str(out)],
        env=ONE_THREAD, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out)  # said once
    assert_same_curve(alone, out)


@pytest.mark.slow
def test_one_process_goes_on_where_two_were_stopped(
    alone: Path, recordings: Path, tmp_path: Path
) -> None:
    """The signal reaches the second process only; both stop at the same step, the first saves."""
    out = tmp_path / "run"
    command = [*TORCHRUN, "-m", "embridge", "train", "raw", *SMALL]
    process = subprocess.Popen(
        [*command, "--data", str(recordings), "--out", str(out)],
        env=ONE_THREAD, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_rows(out, 2 * STEPS + 2, process)
    (second,) = [pid for pid in descendants(process.pid) if b"RANK=1" in environment(pid)]
    os.kill(second, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "embridge: stopped in align at step" in said, said
    train_run(Path("raw"), [], None, out, resume=True)
    assert_same_curve(alone, out)


@pytest.mark.slow
def test_ctrl_c_ends_workers_too_and_loses_nothing(
    alone: Path, recordings: Path, tmp_path: Path
) -> None:
    """Ctrl-C goes to every process of the terminal's group."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "embridge", "train", "raw", *SMALL, "optim.workers=2"]
    process = subprocess.Popen(
        [*command, "--data", str(recordings), "--out", str(out)],
        env=ONE_THREAD, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for_rows(out, 2, process)
    workers = list(descendants(process.pid))
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.splitlines()[-1].startswith("embridge: stopped in")
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    train_run(Path("raw"), [], None, out, resume=True)
    assert same_bits(alone, out)


@pytest.mark.slow
def test_the_others_end_when_one_process_is_killed(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [*TORCHRUN, "-m", "embridge", "train", "raw", *SMALL, "optim.pose_mae_steps=5000"]
    process = subprocess.Popen(
        [*command, "--data", str(recordings), "--out", str(out)],
        env=ONE_THREAD, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_rows(out, 2, process)
    (second,) = [pid for pid in descendants(process.pid) if b"RANK=1" in environment(pid)]
    os.kill(second, signal.SIGKILL)
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "embridge: expected all processes of this training" in said


@pytest.mark.slow
def test_the_bench_times_every_phase(recordings: Path) -> None:
    overrides = tuple(x for x in SMALL if "_steps" not in x and "validate" not in x)
    found = bench_train(
        Path("raw"), recordings,
        contestants=(Contestant(1, 0),), steps=10, rounds=1, overrides=overrides,
    )  # fmt: skip
    (row,) = found["contestants"]
    assert list(row["windows_per_s"]) == ["pose_mae", "emg_mae", "align", "watch"]
    assert all(rate > 0 for rate in row["windows_per_s"].values())
    assert "1.00x" in text(found)


KILLED_AT = """
import os, signal, sys, threading
from pathlib import Path
from embridge.training.run import train_run

step, delay_s, data, out, *overrides = sys.argv[1:]
done = 0

def progress(_done, _total, text):
    global done
    done += " loss " in text
    if done == int(step):
        threading.Timer(float(delay_s), os.kill, (os.getpid(), signal.SIGKILL)).start()

resume = Path(out, "config.json").exists()
train_run(
    Path("raw"), [] if resume else overrides, None if resume else Path(data), Path(out),
    resume=resume, progress=progress,
)
"""


@pytest.mark.slow
def test_killed_at_random_steps_the_run_ends_as_if_it_never_was(
    alone: Path, recordings: Path, tmp_path: Path
) -> None:
    """Also in the middle of a step, of a checkpoint and before the first one."""
    out, random = tmp_path / "run", np.random.default_rng(0)
    left = 4 * STEPS
    for first in (1, *random.integers(2, 9, 2)):
        arguments = [str(first), str(random.uniform(0, 0.1)), str(recordings), str(out), *SMALL]
        killed = subprocess.run(
            [sys.executable, "-c", KILLED_AT, *arguments],
            env=ONE_THREAD, capture_output=True, check=False, timeout=120,
        )  # fmt: skip
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        left -= first
    assert left > 0
    train_run(Path("raw"), [], None, out, resume=True)
    assert same_bits(alone, out)


def wait_for_rows(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    file = run / "metrics.jsonl"
    while not file.exists() or file.read_bytes().count(b"\n") < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            yield child
            yield from descendants(child)


def environment(pid: int) -> set[bytes]:
    return set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))

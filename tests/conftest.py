"""Shared: one small pass of the main job, made once, that end-to-end tests look at."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from embridge.training.watch import Stage, WatchEncoder, WatchShape

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

TINY = (
    "optim.pose_mae_steps=40",
    "optim.emg_mae_steps=10",
    "optim.align_steps=40",
    "optim.watch_steps=80",
    "optim.batch=32",
    "optim.threads=1",
    "optim.validate_every=20",
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with real recordings, read in place."""
    if not SHARED_DATA.is_dir():
        pytest.skip("no ../shared/data beside the checkout: real recordings are tested there only")
    return SHARED_DATA


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny demo: synthetic/, run/, raw.embridge, report.json, live-*.hdf5."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is missing: ExecuTorch's runtime library cannot be built")
    from embridge.benchmarks.demo import DemoSize, demo

    out = tmp_path_factory.mktemp("demo")
    size = DemoSize(
        overrides=TINY,
        synthetic_users=4,
        synthetic_seconds=4.0,
        test_windows=200,
        latency_runs=50,
        live_seconds=8.0,
    )
    demo(out, size=size)
    return out


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Outlines of recordings go to a folder of this run, not to the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Small nets on a busy machine are many times slower with two threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_windows() -> Callable[..., NDArray[np.float32]]:
    """(seed, count) -> (count, 8, 200): half noise, half sines."""

    def make(seed: int, count: int = 64) -> NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        shape = (count // 2, 8, 1)
        phase = rng.uniform(1, 20, shape) * np.arange(200) / 200 + rng.uniform(0, 1, shape)
        sines = rng.uniform(0.3, 2, shape) * np.sin(2 * np.pi * phase)
        noise = rng.standard_normal((count // 2, 8, 200))
        return np.concatenate([noise, sines]).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def encoder(make_windows: Callable[..., NDArray[np.float32]]) -> WatchEncoder:
    """A small `watch` encoder with the batch-norm statistics of some windows."""
    torch.manual_seed(0)
    shape = WatchShape(8, 200, 16, Stage(16, 9, 2), (Stage(24, 9, 2), Stage(32, 5, 2)))
    encoder = WatchEncoder(shape).train()
    with torch.no_grad():
        for seed in range(20):
            encoder.embed(torch.from_numpy(make_windows(seed)))
    return encoder.eval()


@pytest.fixture
def cli(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Call the command line in this process: (exit status, stdout, stderr)."""

    from embridge.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["embridge", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call

"""Shared: one small pass of the main job, made once, that end-to-end tests look at."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

TINY = (
    "optim.pose_mae_steps=40",
    "optim.emg_mae_steps=10",
    "optim.align_steps=40",
    "optim.watch_steps=80",
    "optim.batch=32",
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

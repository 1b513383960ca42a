"""One tiny pass of the main job, looked at from every side a user would."""

import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embridge.benchmarks.demo import DemoSize, demo
from embridge.benchmarks.evaluation import evaluate
from embridge.benchmarks.live_check import virtual_wrist
from embridge.device.embed import embed_windows
from embridge.device.emg2pose import write_emg2pose
from embridge.device.live import run_live
from embridge.device.manifest import INT8_STAGES, RUNTIME_STAGES
from embridge.device.package import read_package
from embridge.device.pipeline import Pipeline, decide_recording, open_model
from embridge.device.recordings import read_recording
from embridge.device.sessions import calibrate_user, run_session
from embridge.device.sources import open_source
from embridge.quantize.stages import open_stage, queries

STAGES = ("float", "fakequant", *RUNTIME_STAGES)
TINY = (
    "optim.pose_mae_steps=20",
    "optim.emg_mae_steps=5",
    "optim.align_steps=20",
    "optim.watch_steps=30",
    "optim.threads=1",
)


@pytest.fixture(scope="module")
def report(made: Path) -> dict[str, Any]:
    return dict(json.loads((made / "report.json").read_text()))


@pytest.fixture(scope="module")
def excerpt(made: Path) -> Path:
    (path,) = made.glob("live-*.hdf5")
    return path


@pytest.fixture(scope="module")
def package_path(made: Path) -> Path:
    return made / "raw.embridge"


def test_the_report_has_the_core_that_other_tools_read(report: dict[str, Any]) -> None:
    assert report["schema"] == 1
    assert set(report["stages"]) == set(STAGES)
    assert report["data"]["synthetic"] is True
    assert not set(report["data"]["train_users"]) & set(report["data"]["test_users"])
    for stage in report["stages"].values():
        for group in ("seen", "unseen"):
            score = stage["zero_shot"][group]
            assert score["ci95"][0] <= score["balanced_accuracy"] <= score["ci95"][1]
            assert set(score["per_class"]) <= {
                *report["data"]["seen_gestures"],
                *report["data"]["unseen_gestures"],
            }
        assert {"mean", "p01", "min"} == set(stage["cosine_to_float"])
        assert 0 <= stage["same_decision"] <= 1
        assert stage["latency"]["threads"] == 1
        assert stage["bytes"] > 0


def test_live_decisions_equal_the_offline_ones(report: dict[str, Any]) -> None:
    live = report["live"]
    assert live["decisions_equal_offline"] == 1.0
    assert live["decisions"] == live["decisions_offline"] > 0
    assert (live["frames_lost"], live["frames_corrupt"]) == (0, 0)
    assert live["frames_sent"] == live["frames_received"]


def test_int8_stages_agree_with_each_other_and_stay_close_to_float(report: dict[str, Any]) -> None:
    stages = report["stages"]
    for stage in {*INT8_STAGES} & {*STAGES}:
        assert stages[stage]["cosine_to_float"]["mean"] > 0.99
    for stage in ("executorch-fp32", "tflite-fp32"):
        assert stages[stage]["cosine_to_float"]["min"] > 0.9999
        assert stages[stage]["same_decision"] == 1.0
    assert stages["tflite-int8"]["bytes"] < 0.6 * stages["tflite-fp32"]["bytes"]


@pytest.mark.parametrize("stage", STAGES)
def test_embed_gives_the_embeddings_that_eval_used(
    made: Path, package_path: Path, stage: str
) -> None:
    result = evaluate(package_path, made / "synthetic", stage, "T1", limit=20)
    embedded = embed_windows(open_stage(read_package(package_path), stage), result.test.inputs)
    np.testing.assert_array_equal(embedded, result.embeddings)


@pytest.mark.parametrize("stage", STAGES)
def test_golden_windows_give_what_the_package_says(package_path: Path, stage: str) -> None:
    package = read_package(package_path)
    golden = package.golden()
    assert len(golden["windows"]) >= 64
    found = queries(stage, open_stage(package, stage), golden["windows"].astype(np.float32))
    np.testing.assert_array_equal(found, golden[f"query.{stage}"])


def test_the_gallery_holds_unseen_gestures_and_their_emg_was_never_used(
    package_path: Path,
) -> None:
    package = read_package(package_path)
    held = {package.manifest.labels[label] for label in package.gallery("tflite-int8").labels}
    assert set(package.manifest.unseen) <= held


def test_lowering_the_same_run_again_gives_the_same_package(
    made: Path, package_path: Path, tmp_path: Path
) -> None:
    from embridge.quantize.run import lower_folder

    again = lower_folder(made / "run", ["executorch", "tflite"], tmp_path / "raw.embridge")
    assert again["sha256"] == read_package(package_path).sha256


def test_the_stream_in_any_chunking_decides_as_the_whole_recording(
    package_path: Path, excerpt: Path
) -> None:
    model = open_model(read_package(package_path), "tflite-int8")
    emg = read_recording(excerpt).emg
    whole = decide_recording(model, emg)
    for chunk in (1, 7, 333):
        pipeline = Pipeline(model)
        limit = 4000 if chunk == 1 else len(emg)
        parts = [emg[i : min(i + chunk, limit)] for i in range(0, limit, chunk)]
        streamed = [decision for part in parts for decision in pipeline.push(part)]
        assert streamed == whole[: len(streamed)]
        assert len(streamed) > 5


def test_a_recording_with_holes_decides_live_as_offline_and_bridges_none(
    package_path: Path, excerpt: Path, tmp_path: Path
) -> None:
    model = open_model(read_package(package_path), "tflite-int8")
    whole = read_recording(excerpt)
    kept = np.r_[0:5000, 5007 : len(whole.emg)]
    rows = ("emg", "pose_valid", "gesture", "trial", "repetition")
    holed = replace(
        whole,
        sample_index=1_000_003 + kept,
        **{name: getattr(whole, name)[kept] for name in rows},
    )
    path = tmp_path / "holed.h5"
    write_emg2pose(path, holed)
    with open_source(f"replay://{path}?speed=0") as source:
        live = run_live(model, source, lambda line: None)
    read = read_recording(path)
    assert [(gap.first_sample, gap.samples) for gap in live.gaps] == [(1_005_003, 7)]
    assert live.decisions == decide_recording(model, read.emg, read.sample_index)
    window = model.package.manifest.input.window
    assert not any(d.start < 1_005_003 < d.start + window for d in live.decisions)


def test_a_port_that_goes_away_is_waited_for_and_its_gap_counted(
    package_path: Path, excerpt: Path, tmp_path: Path
) -> None:
    """The wrist keeps its time: after the gap, windows lie on the same grid and none spans it."""
    events: list[dict[str, Any]] = []
    messages: list[str] = []
    path = tmp_path / "decisions.jsonl"
    with virtual_wrist(excerpt, "--drop", "2:1") as url:
        summary = run_session(
            package_path, url, on_event=events.append, decisions=path, log=messages.append
        )
    assert summary["reconnects"] == 1
    (gap,) = summary["gap_list"]
    assert summary["samples_lost"] == gap["samples"] > 0
    assert (
        summary["frames_received"] + summary["frames_lost"]
        == summary["frames_sent"] + (summary["frames_dropped_by_wrist"])
    )
    assert any("port back" in message for message in messages)
    starts = [json.loads(line)["start"] for line in path.read_text().splitlines()]
    window = read_package(package_path).manifest.input.window
    first, last = gap["first_sample"], gap["first_sample"] + gap["samples"]
    assert all(start + window <= first or start >= last for start in starts)
    assert any(start >= last for start in starts)
    assert_every_gesture_ends(events)


def assert_every_gesture_ends(events: list[dict[str, Any]]) -> None:
    """On and off of the same gesture in turn, nothing left on at a gap or at the end."""
    assert len(events) % 2 == 0
    for on, off in zip(events[::2], events[1::2], strict=True):
        assert (on["state"], off["state"]) == ("on", "off")
        assert on["gesture"] == off["gesture"]


def test_a_run_that_is_stopped_early_ends_its_gesture_and_claims_no_final_count(
    package_path: Path, excerpt: Path
) -> None:
    url = f"replay://{excerpt}?speed=0"
    for seconds in (1.5, 2.0, 3.0, 4.5):
        events: list[dict[str, Any]] = []
        summary = run_session(package_path, url, on_event=events.append, seconds=seconds)
        assert_every_gesture_ends(events)
        assert summary["frames_sent"] is None
        assert summary["frames_received"] > 0


def test_calibrate_writes_a_profile_that_run_uses(
    package_path: Path, excerpt: Path, tmp_path: Path
) -> None:
    profile = tmp_path / "me.profile.json"
    url = f"replay://{excerpt}?speed=0"
    made = calibrate_user(package_path, url, profile, "me", seconds=4)
    assert len(made["scale"]) == 16
    summary = run_session(package_path, url, user=profile)
    assert summary["tier"] == "T1"
    assert run_session(package_path, url)["tier"] == "T0"


ABSENT = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("torch", "brevitas", "sklearn", "safetensors", "litert_torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from embridge.cli import main
main()
"""


@pytest.mark.parametrize("stage", ["tflite-int8", "executorch-int8"])
def test_run_needs_no_torch(package_path: Path, excerpt: Path, stage: str) -> None:
    url = f"replay://{excerpt}?speed=0"
    command = [sys.executable, "-c", ABSENT, "run", str(package_path), "--source", url]
    done = subprocess.run(
        [*command, "--stage", stage, "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["summary"]["decisions"] > 10
    assert all({"gesture", "state", "latency_ms", "t"} <= set(line) for line in lines[:-1])


@pytest.mark.slow
def test_a_clean_install_of_the_device_side_runs_a_recording(
    package_path: Path, excerpt: Path, tmp_path: Path
) -> None:
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    command = [str(python), "-m", "pip", "install", "-q", "-c", str(root / "constraints.txt")]
    done = subprocess.run([*command, str(root)], capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    code = "import embridge.device, importlib.util as u; assert u.find_spec('torch') is None"
    subprocess.run([str(python), "-c", code], check=True, cwd=tmp_path)
    url = f"replay://{excerpt}?speed=0"
    ran = subprocess.run(
        [str(python), "-m", "embridge", "run", str(package_path), "--source", url, "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert json.loads(ran.stdout.splitlines()[-1])["summary"]["decisions"] > 10


@pytest.mark.slow
def test_the_main_job_on_real_recordings(shared_data: Path, tmp_path: Path) -> None:
    """Whole path on real envelopes; what it is worth is for the report to say, not for a test."""
    size = DemoSize(overrides=TINY, test_windows=200, latency_runs=50, live_seconds=6.0)
    report = demo(tmp_path, shared_data / "ninapro_db1_e1", size=size)
    assert report["data"]["synthetic"] is False
    assert report["data"]["channels"] == 10
    assert len(report["data"]["unseen_gestures"]) == 4
    assert report["live"]["decisions_equal_offline"] == 1.0
    assert report["live"]["user"] in report["data"]["test_users"]


def test_the_package_holds_no_pickle_and_no_machine_path(package_path: Path, made: Path) -> None:
    with zipfile.ZipFile(package_path) as archive:
        assert not [name for name in archive.namelist() if name.endswith((".pkl", ".pt", ".ckpt"))]
        assert str(made).encode() not in archive.read("manifest.json")

"""The main job end to end: recordings in, live int8 zero-shot gestures out, and the proof."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embridge.benchmarks.accuracy import compare_stages, reference_rows
from embridge.benchmarks.live_check import live_against_offline, write_excerpt
from embridge.benchmarks.report import make_report, markdown
from embridge.device.executorch_library import load_library
from embridge.device.outline import Outline
from embridge.device.package import Package
from embridge.device.pipeline import open_model
from embridge.quantize.lower import lower_all
from embridge.quantize.pack import build_package, quantize_run
from embridge.quantize.stages import open_stage, queries
from embridge.training.config import Config, load_config, preset_path
from embridge.training.evaluate import make_test_set, zero_shot
from embridge.training.phases import train
from embridge.training.run_folder import RunFolder, create_run, open_run, write_atomic
from embridge.training.study import Progress, Study, make_study, read_all
from embridge.training.synth import synthesize

SYNTHETIC_USERS = 9
LIVE_STAGE = "tflite-int8"


@dataclass(frozen=True)
class DemoSize:
    """How much a demo does; the defaults fit its 12 minutes on two cores."""

    recipe: str = "w8a8"
    overrides: tuple[str, ...] = ()
    synthetic_users: int = SYNTHETIC_USERS
    synthetic_seconds: float = 8.0
    test_windows: int = 3000
    latency_runs: int = 1000
    live_seconds: float = 60.0


@dataclass
class Clock:
    """Seconds spent in each step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        began_s = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - began_s


def demo(
    out: Path,
    data: Path | None = None,
    *,
    size: DemoSize | None = None,
    progress: Progress | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run everything into the folder `out` and return the report (also report.json, report.md)."""
    size, clock = size or DemoSize(), Clock()
    out.mkdir(parents=True, exist_ok=True)
    load_library()  # a missing compiler is better known now than after training
    with clock.step("data"):
        recordings, folder = _recordings(out, data, size, progress)
    with clock.step("train"):
        run, study = _trained(out / "run", recordings, folder, size, progress, log)
    with clock.step("quantize and lower"):
        package = _package(out, run, study, size, progress)
        log(f"model package: {package.path}")
    with clock.step("evaluate"):
        test = make_test_set(study, "T1", size.test_windows)
        stages = compare_stages(package, test, runs=size.latency_runs, progress=progress)
        references = reference_rows(run, study, test, runs=min(200, size.latency_runs))
        without = _without_profile(package, study, size)
    with clock.step("live"):
        live = _live(out, package, study, recordings, size, log)
    report = make_report(
        study.plan,
        "T1",
        {name: result.json() for name, result in stages.items()},
        {name: result.json() for name, result in references.items()},
        without,
        live,
        clock.seconds,
    )
    write_atomic(out / "report.json", json.dumps(report, indent=1).encode())
    write_atomic(out / "report.md", (markdown(report) + "\n").encode())
    return report


def _recordings(
    out: Path, data: Path | None, size: DemoSize, progress: Progress | None
) -> tuple[list[Outline], Path]:
    folder = data or out / "synthetic"
    if data is None:
        synthesize(
            folder,
            users=size.synthetic_users,
            seconds_per_stage=size.synthetic_seconds,
            progress=lambda done, total: progress(done, total, "synthesize") if progress else None,
        )
    return read_all(folder, progress), folder


def _trained(
    path: Path,
    recordings: list[Outline],
    folder: Path,
    size: DemoSize,
    progress: Progress | None,
    log: Callable[[str], None],
) -> tuple[RunFolder, Study]:
    """Train, or go on with an interrupted training of the very same configuration."""
    first = recordings[0]
    preset = preset_path(first.rate_hz, first.is_envelope)
    source = f"data.path={json.dumps(str(folder.resolve()))}"
    config = load_config(preset, [source, *size.overrides])
    study = make_study(config, recordings, folder.resolve().name, progress)
    log(f"configuration: {preset.stem}; unseen gestures: {', '.join(study.plan.unseen)}")
    run = _same_run(path, config, study)
    if run:
        log(f"going on with the run in {path}")
    else:
        shutil.rmtree(path, ignore_errors=True)
        run = create_run(path, config, study.plan)
    train(run, study, resume=True, progress=progress)
    return run, study


def _same_run(path: Path, config: Config, study: Study) -> RunFolder | None:
    if not (path / "config.json").is_file():
        return None
    run = open_run(path)
    return run if (run.config, run.plan) == (config, study.plan) else None


def _package(
    out: Path, run: RunFolder, study: Study, size: DemoSize, progress: Progress | None
) -> Package:
    quantized = quantize_run(run, study, size.recipe, progress)
    artefacts = lower_all(quantized, ["executorch", "tflite"], progress=progress)
    return build_package(run, study, quantized, artefacts, out / f"{run.config.name}.embridge")


def _without_profile(package: Package, study: Study, size: DemoSize) -> dict[str, Any]:
    """Tier T0 of the float and the int8 stage, on the same windows."""
    test = make_test_set(study, "T0", size.test_windows)
    scores = {}
    for stage in ("float", LIVE_STAGE):
        found = queries(stage, open_stage(package, stage), test.inputs)
        result = zero_shot(test, found, package.gallery(stage), package.manifest.decision.k)
        scores[stage] = {group: score.json() for group, score in result.items()}
    return scores


def _live(
    out: Path,
    package: Package,
    study: Study,
    recordings: list[Outline],
    size: DemoSize,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Stream the first test user, with the profile that `embridge calibrate` would make."""
    user = study.plan.test_users[0]
    profile = study.profiles[user]
    write_atomic(out / f"{user}.profile.json", profile.model_dump_json(indent=1).encode())
    excerpt = out / f"live-{user}.hdf5"
    write_excerpt(recordings, user, size.live_seconds, excerpt)
    log(f"streaming user {user}, never trained on, through a serial port in real time")
    result = live_against_offline(open_model(package, LIVE_STAGE, profile), excerpt)
    return result | {"user": user}

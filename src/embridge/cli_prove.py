"""`embridge parity`, `audit` and `bench ...`: what proves a package, read from the package."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from embridge.cli import DataPath, Json, Package, checked_tier, log, need_host, numbers, show
from embridge.progress import reporting

bench = typer.Typer(no_args_is_help=True, help="Measure a package: latency, accuracy, NPU ...")

Packages = Annotated[list[Path], typer.Argument(help="One or more packages, NAME.embridge.")]
Plot = Annotated[Path | None, typer.Option(help="Also draw it: FILE.png or FILE.svg.")]
Limit = Annotated[int | None, typer.Option(help="At most so many windows.")]


def parity(
    package: Package,
    data: Annotated[
        Path | None, typer.Option("--data", help="Recordings; golden windows without.")
    ] = None,
    windows: Annotated[int, typer.Option(help="How many, spread evenly.")] = 10_000,
    tier: Annotated[str, typer.Option(help="T0 or T1.")] = "T1",
    layers: Annotated[
        bool, typer.Option("--layers", help="Walk the layers of every pair that differs.")
    ] = False,
    json_: Json = False,
) -> None:
    """Hold float, fake-quant, the exported graph and each artefact against each other.

    Exit status 1 when a limit of the package's manifest is not kept.
    """
    need_host("parity")
    from embridge.benchmarks.parity import parity as compare
    from embridge.benchmarks.parity_report import text

    with reporting() as progress:
        result = compare(
            package, data, count=windows, tier=checked_tier(tier), layers=layers, progress=progress
        )
    show(result, json_, lambda: text(result))
    if not result["passed"]:
        raise typer.Exit(1)


def audit(
    package: Package,
    stage: Annotated[
        list[str] | None, typer.Option(help="Only this stage; may be given again.")
    ] = None,
    kernels: Annotated[
        bool, typer.Option("--kernels", help="Run it and name the kernels that really ran.")
    ] = False,
    json_: Json = False,
) -> None:
    """List the operators of each artefact with their types, read from its own bytes.

    Exit status 1 when an operator computes in float that the encoder's contract says is integer.
    """
    need_host("audit")
    from embridge.quantize.inspection import inspect_package, text

    result = inspect_package(package, stage or [], run=kernels)
    show(result, json_, lambda: text(result))
    if result["failures"]:
        raise typer.Exit(1)


@bench.command()
def latency(
    package: Package,
    runs: Annotated[int, typer.Option(help="Timed windows of each contestant.")] = 2000,
    rounds: Annotated[int, typer.Option(help="Rounds, in which all take turns.")] = 20,
    json_: Json = False,
) -> None:
    """Time one window in every runtime side by side, ONNX Runtime's own int8 included."""
    need_host("bench latency")
    from embridge.benchmarks.speed import speed, text
    from embridge.device.package import read_package

    with reporting() as progress:
        result = speed(read_package(package), runs=runs, rounds=rounds, progress=progress)
    show(result, json_, lambda: text(result))


@bench.command()
def accuracy(
    packages: Packages,
    data: DataPath,
    stage: Annotated[
        list[str] | None, typer.Option(help="int8 stage to judge; may be given again.")
    ] = None,
    prototypes: Annotated[int, typer.Option(help="Gallery rows kept for each gesture.")] = 1,
    limit: Limit = None,
    seed: Annotated[int, typer.Option(help="Of resampling and of `--limit`.")] = 0,
    plot: Plot = None,
    json_: Json = False,
) -> None:
    """What int8 encoder and compressed gallery keep of float's zero-shot accuracy, paired by user.

    Several packages are pooled: rotations of the test users, each user judged once.
    """
    need_host("bench accuracy")
    from embridge.benchmarks import kept_report

    with reporting() as progress:
        report = kept_report.bench_accuracy(
            packages,
            data,
            stages=stage or ["tflite-int8"],
            per_gesture=prototypes,
            limit=limit,
            seed=seed,
            progress=progress,
        )
    _draw(plot, kept_report.plot, report)
    show(report, json_, lambda: kept_report.text(report))


@bench.command()
def npu(package: Package, json_: Json = False) -> None:
    """Compilers' estimates for the Ethos-U and Cortex-M stages, both routes side by side."""
    need_host("bench npu")
    from embridge.benchmarks.npu import npu_table, text
    from embridge.device.package import read_package

    table = npu_table(read_package(package))
    show(table, json_, lambda: text(table))


@bench.command()
def sensitivity(
    package: Package, data: DataPath, limit: Limit = 2000, plot: Plot = None, json_: Json = False
) -> None:
    """What each layer's quantizer alone costs in cosine and zero-shot accuracy."""
    need_host("bench sensitivity")
    from embridge.benchmarks import sensitivity as job

    with reporting() as progress:
        report = job.bench_sensitivity(package, data, limit, progress)
    _draw(plot, job.plot, report)
    show(report, json_, lambda: job.text(report))


@bench.command()
def sizes(
    config: Annotated[
        str | None, typer.Option(help="Preset or CONFIG.toml; all presets without.")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="Electrodes of the stream.")] = None,
    rate: Annotated[float | None, typer.Option(help="Hz of the stream.")] = None,
    json_: Json = False,
) -> None:
    """What the sizes s, m and l of the `watch` encoder cost: MACs, bytes, memory when streamed."""
    need_host("bench sizes")
    from dataclasses import asdict

    from embridge.benchmarks.sizes import bench_sizes, text

    with reporting() as progress:
        rows = bench_sizes(config, channels, rate, progress)
    show([asdict(row) for row in rows], json_, lambda: text(rows))


@bench.command("train")
def train_(
    data: DataPath,
    config: Annotated[Path, typer.Option(help="CONFIG.toml or a preset.")] = Path("raw"),
    steps: Annotated[int, typer.Option(help="Of every phase.")] = 40,
    rounds: Annotated[int, typer.Option(help="Rounds, in which all take turns.")] = 3,
    json_: Json = False,
) -> None:
    """Windows/s of training by 1 and 2 processes with 0, 1 and 2 workers, side by side."""
    need_host("bench train")
    from embridge.benchmarks.scale_bench import bench_train, text

    with reporting() as progress:
        result = bench_train(config, data, steps=steps, rounds=rounds, progress=progress)
    show(result, json_, lambda: text(result))


@bench.command("data")
def data_(
    hours: Annotated[str, typer.Option(help="Of synthetic recordings, a folder each.")] = "1,20",
    config: Annotated[Path, typer.Option(help="CONFIG.toml or a preset.")] = Path("raw"),
    rounds: Annotated[int, typer.Option(help="Rounds, in which all take turns.")] = 3,
    json_: Json = False,
) -> None:
    """Windows/s of reading beside a plain h5py loop, and peak memory by hours of recordings."""
    need_host("bench data")
    from embridge.benchmarks.data_bench import bench_data, text

    lengths = numbers("hours", hours, float)
    with reporting() as progress:
        result = bench_data(lengths, config=config, rounds=rounds, progress=progress)
    show(result, json_, lambda: text(result))


def _draw(
    path: Path | None, draw: Callable[[dict[str, Any], Path], None], report: dict[str, Any]
) -> None:
    if path:
        draw(report, path)
        log(f"written: {path}")

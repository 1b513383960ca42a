"""The command line: parse, call one library function, print.

stdout carries the result (`--json` for machines), stderr log and progress. Exit status 0; 1 with
one line when something failed; 2 for a wrong call; 130 when stopped by Ctrl-C.
"""

import importlib.util
import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from embridge import __version__
from embridge.firmware_bridge.errors import EmbridgeError
from embridge.progress import reporting


class _Verbs(TyperGroup):
    """Keeps what a stopped verb has to say: typer drops the text of a KeyboardInterrupt."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; typer.Abort when it was stopped."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise typer.Abort(str(stop)) from stop


app = typer.Typer(
    cls=_Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Zero-shot sEMG gestures on watch-class hardware: train, quantize, flash, run, prove.",
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DataPath = Annotated[Path, typer.Option("--data", help="Folder or file of recordings.")]
Tier = Annotated[str, typer.Option(help="T0: no user profile; T1: profile from unlabelled EMG.")]
Package = Annotated[Path, typer.Argument(help="Model package, NAME.embridge.")]
Encoder = Annotated[str, typer.Option(help="watch, or base for Linux-class boards.")]


def main() -> None:
    """Entry point of the `embridge` command."""
    try:
        # What a verb gives typer.Exit comes back as the value; verbs return nothing else.
        sys.exit(app(standalone_mode=False))
    except EmbridgeError as error:
        _fail(str(error), 1)
    except typer.Abort as stop:
        _fail(f"stopped {stop}".strip(), 130)
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away, as `| head` does; there is nobody to tell
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "format_message"):  # a usage error of the option parser
            _fail(f"{error.format_message()} (see `embridge --help`)", 2)
        if isinstance(error, OSError):
            _fail(f"{error.filename or ''}: {error.strerror or error}", 1)
        raise


def _fail(text: str, code: int) -> None:
    rank = os.environ.get("RANK", "0")  # of several processes, which torchrun numbers
    print(f"embridge: {f'process {rank}: ' if rank != '0' else ''}{text}", file=sys.stderr)
    sys.exit(code)


def need_host(verb: str) -> None:
    """Stop with one line when training and quantization are not installed."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("sklearn") is None:
        raise EmbridgeError(
            f"`embridge {verb}` needs training and quantization, which are not installed here; "
            "run `pip install 'embridge[host]'`"
        )


def show(value: Any, as_json: bool, text: Callable[[], str]) -> None:
    """Print a result: JSON, or text for people."""
    print(json.dumps(value, default=str) if as_json else text())


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    verbose: Annotated[bool, typer.Option("-v", help="Log more.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, stream=sys.stderr)
    if version:
        print(f"embridge {__version__}")
        raise typer.Exit


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option("--data", help="Recordings to use instead of synthetic ones.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for everything made.")] = None,
    json_: Json = False,
) -> None:
    """Run the main job end to end and prove it; minutes on two cores."""
    need_host("demo")
    from embridge.benchmarks import demo as job
    from embridge.benchmarks.report import markdown

    folder = out or Path("runs") / (f"demo-{data.resolve().name}" if data else "demo")
    with reporting() as progress:
        report = job.demo(folder, data, progress=progress, log=log)
    show(report, json_, lambda: markdown(report))
    log(f"written: {folder / 'report.md'}, {folder / 'report.json'}")


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="CONFIG.toml, or a preset: raw, envelope ...")],
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value ...")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Same as data.path=...")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    method: Annotated[
        str | None, typer.Option(help="A row of the paper: cpep, qformer, no-mprl, supervised ...")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    json_: Json = False,
) -> None:
    """Train `base` and `watch` on paired recordings: embridge train raw --data FOLDER.

    Over several processes: torchrun --nproc-per-node 2 -m embridge train ...
    """
    need_host("train")
    from embridge.training.part import launched
    from embridge.training.run import train_run

    with reporting() as progress:
        run = train_run(
            config, overrides or [], data, out, method=method, resume=resume, progress=progress
        )
    if launched().first:
        show({"run": str(run.path)}, json_, lambda: str(run.path))


@app.command()
def quantize(
    run: Annotated[Path, typer.Argument(help="Folder of a trained run.")],
    recipe: Annotated[
        str, typer.Option(help="w8a8, w8a8-mse (calibration), w8a8-qat, w4a8-qat, auto (mixed).")
    ] = "w8a8",
    qat: Annotated[bool, typer.Option("--qat", help="Short for the recipe's -qat form.")] = False,
    encoder: Encoder = "watch",
    json_: Json = False,
) -> None:
    """Quantize a run's encoder to int8; stopped fine-tuning goes on when called again."""
    need_host("quantize")
    from embridge.quantize.run import quantize_folder

    with reporting() as progress:
        result = quantize_folder(
            run, f"{recipe.removesuffix('-qat')}-qat" if qat else recipe, progress, encoder
        )
    show(
        result, json_, lambda: f"{result['recipe']}: cosine to float {result['cosine']['mean']:.5f}"
    )


@app.command()
def lower(
    run: Annotated[Path, typer.Argument(help="Folder of a quantized run.")],
    to: Annotated[
        str,
        typer.Option(help="Comma-separated: executorch, tflite, onnx, ethos-u, cortex-m, a stage."),
    ] = "executorch,tflite",
    output: Annotated[Path | None, typer.Option("-o", help="NAME.embridge")] = None,
    encoder: Encoder = "watch",
    json_: Json = False,
) -> None:
    """Lower a quantized run to a model package; fails when a float operator remains."""
    need_host("lower")
    from embridge.quantize.run import lower_folder

    with reporting() as progress:
        result = lower_folder(run, to.split(","), output, progress, encoder)
    show(result, json_, lambda: f"{result['package']}  sha256 {result['sha256']}")


@app.command()
def embed(
    package: Package,
    input_: Annotated[Path, typer.Option("--input", help="windows.npy, (N, C, T) float32.")],
    output: Annotated[Path, typer.Option("-o", help="emb.npy, (N, D) float32.")],
    stage: Annotated[str, typer.Option(help="Which stage of the package.")] = "tflite-int8",
    json_: Json = False,
) -> None:
    """Embed windows as the encoder sees them (after the front-end), the numbers `eval` uses."""
    from embridge.device.embed import embed_file
    from embridge.device.manifest import RUNTIME_STAGES
    from embridge.device.package import read_package
    from embridge.device.pipeline import open_encoder

    opener = open_encoder
    if stage not in RUNTIME_STAGES:
        need_host(f"embed --stage {stage}")
        from embridge.quantize.stages import open_stage as opener
    shape = embed_file(opener(read_package(package), stage), input_, output)
    show({"output": str(output), "shape": shape}, json_, lambda: f"{output}: {shape}")


def checked_tier(text: str) -> str:
    """T0 or T1; EmbridgeError for anything else."""
    if text not in ("T0", "T1"):
        raise EmbridgeError(f"--tier {text}: expected T0 or T1")
    return text


def numbers(name: str, text: str, kind: type[Any]) -> tuple[Any, ...]:
    """The value of option `--name`: numbers with commas between them; else EmbridgeError."""
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError as error:
        raise EmbridgeError(
            f"--{name} {text}: expected numbers with commas between them ({error})"
        ) from error


def log(text: str) -> None:
    """One line on stderr."""
    print(f"embridge: {text}", file=sys.stderr, flush=True)


def _register() -> None:
    from embridge import cli_data, cli_eval, cli_link, cli_live, cli_prove, cli_table

    for verb in (cli_live.run, cli_live.calibrate, cli_live.record, cli_live.check, cli_live.scan):
        app.command()(verb)
    for figure in (cli_link.link, cli_link.faults, cli_link.codec):
        cli_prove.bench.command()(figure)
    cli_prove.bench.command()(cli_eval.methods)
    cli_prove.bench.command()(cli_table.zero_shot)
    app.command("eval")(cli_eval.eval_)
    app.command("parity")(cli_prove.parity)
    app.command("audit")(cli_prove.audit)
    app.add_typer(cli_prove.bench, name="bench")
    app.add_typer(cli_data.app, name="data")
    app.command("wrist")(cli_data.wrist)


_register()

"""`embridge eval` and `embridge bench methods`: what trained encoders reach, and on what."""

from pathlib import Path
from typing import Annotated, Any

import typer

from embridge.cli import DataPath, Json, Tier, checked_tier, log, need_host, numbers, show
from embridge.firmware_bridge.errors import EmbridgeError
from embridge.progress import reporting

Plots = Annotated[Path | None, typer.Option(help="Also draw, as .png files in this folder.")]


def eval_(
    targets: Annotated[
        list[Path], typer.Argument(help="Folder of a run, or a package; several with --table.")
    ],
    data: DataPath,
    stage: Annotated[
        str | None,
        typer.Option(help="float, base, ridge (runs); float ... tflite-int8 (packages)."),
    ] = None,
    tier: Tier = "T1",
    probe: Annotated[
        bool, typer.Option("--probe", help="Linear probe and few-shot; needs no hand pose.")
    ] = False,
    table: Annotated[
        bool, typer.Option("--table", help="The paper's table with these runs beside it.")
    ] = False,
    false_activations: Annotated[
        bool, typer.Option("--false-activations", help="Events during rest, by threshold.")
    ] = False,
    threshold: Annotated[
        list[float] | None, typer.Option(help="Of similarity, for --false-activations; again.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many windows.")] = None,
    dump: Annotated[Path | None, typer.Option(help="Write windows and embeddings, .npz.")] = None,
    plots: Plots = None,
    json_: Json = False,
) -> None:
    """Zero-shot accuracy on users never trained on, with 95 % intervals, per gesture."""
    need_host("eval")
    kind = _kind({"probe": probe, "table": table, "false-activations": false_activations})
    _refuse(kind, targets, {"limit": limit, "dump": dump}, {"threshold": threshold})
    result = _result(kind, targets, data, stage, checked_tier(tier), threshold or [], limit)
    if dump:
        result.dump(dump)
    _draw(result, plots)
    show(result.json(), json_, result.text)


def _kind(flags: dict[str, bool]) -> str:
    given = [name for name, flag in flags.items() if flag]
    if len(given) > 1:
        raise EmbridgeError(f"--{given[0]} and --{given[1]}: expected one of them, call twice")
    return given[0] if given else "zero-shot"


def _refuse(
    kind: str, targets: list[Path], zero_shot: dict[str, Any], activations: dict[str, Any]
) -> None:
    if len(targets) > 1 and kind != "table":
        raise EmbridgeError(f"{len(targets)} targets: expected one; --table takes several")
    owners = dict.fromkeys(zero_shot, "zero-shot") | dict.fromkeys(activations, "false-activations")
    for name, value in (zero_shot | activations).items():
        if value is not None and kind != owners[name]:
            raise EmbridgeError(f"--{name}: belongs to {owners[name]} alone, got {kind}: leave out")


def _result(
    kind: str,
    targets: list[Path],
    data: Path,
    stage: str | None,
    tier: str,
    thresholds: list[float],
    limit: int | None,
) -> Any:
    if kind == "probe":
        from embridge.benchmarks.probing import probe

        return probe(targets[0], data, stage or "float", tier)
    if kind == "table":
        from embridge.benchmarks.paper_rows import table_of_runs

        with reporting() as progress:
            return table_of_runs(targets, data, stage or "base", tier, progress)
    if kind == "false-activations":
        from embridge.benchmarks.activations import false_activations

        with reporting() as progress:
            return false_activations(
                targets[0],
                data,
                stage=stage or "tflite-int8",
                tier=tier,
                thresholds=thresholds,
                progress=progress,
            )
    from embridge.benchmarks.evaluation import evaluate

    return evaluate(targets[0], data, stage or "float", tier, limit)


def methods(
    data: DataPath,
    out: Annotated[Path, typer.Option(help="Folder of the runs, report.json and report.md.")],
    methods: Annotated[
        str, typer.Option(help="Comma-separated names, as of `embridge train --method`.")
    ] = "embridge,cpep,qformer,emg-mae,supervised,pose",
    shares: Annotated[
        str, typer.Option(help="Comma-separated shares of the training data.")
    ] = "1.0",
    seeds: Annotated[str, typer.Option(help="Comma-separated seeds.")] = "0",
    config: Annotated[Path, typer.Option(help="CONFIG.toml, or a preset.")] = Path("raw"),
    overrides: Annotated[list[str] | None, typer.Argument(help="section.key=value ...")] = None,
    stage: Annotated[str, typer.Option(help="base, or float for `watch`.")] = "base",
    tier: Tier = "T1",
    plots: Plots = None,
    json_: Json = False,
) -> None:
    """Train and compare methods, also with less data; finished runs are kept, others go on."""
    need_host("bench methods")
    from embridge.benchmarks.methods import Plan, compare

    plan = Plan(
        config=config,
        data=data,
        out=out,
        methods=tuple(name.strip() for name in methods.split(",")),
        shares=numbers("shares", shares, float),
        seeds=numbers("seeds", seeds, int),
        overrides=tuple(overrides or ()),
        stage=stage,
        tier=checked_tier(tier),
    )
    with reporting() as progress:
        result = compare(plan, progress=progress, log=log)
    _draw(result, plots)
    show(result.json(), json_, result.text)
    log(f"written: {out / 'report.md'}, {out / 'report.json'}")


def _draw(result: Any, folder: Path | None) -> None:
    if folder:
        from embridge.benchmarks.plots import draw

        for file in draw(result, folder):
            log(f"written: {file}")

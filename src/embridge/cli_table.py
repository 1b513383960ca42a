"""`embridge bench zero-shot`: simple methods and encoders on NinaPro DB1, by a strict referee."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from embridge.cli import DataPath, Json, log, need_host, show
from embridge.firmware_bridge.errors import EmbridgeError
from embridge.progress import reporting


def zero_shot(
    data: DataPath,
    rows: Annotated[
        str, typer.Option(help="Comma-separated, of baselines, encoders, ablations.")
    ] = "baselines",
    test_data: Annotated[
        Path | None, typer.Option(help="Train on all of --data, test on these other users.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repetitions of what is random.")] = 3,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="For finished cells and report; the same call goes on."),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Also draw, as .png files in this folder.")
    ] = None,
    json_: Json = False,
) -> None:
    """Zero-shot accuracy by user tier, on NinaPro DB1: who knows what of the test user."""
    need_host("bench zero-shot")
    from embridge.training.run_folder import write_atomic
    from embridge.training.table.data import read_users
    from embridge.training.table.encoder_entries import ROWS
    from embridge.training.table.tables import run_table

    names = [name.strip() for name in rows.split(",")]
    if unknown := [name for name in names if name not in ROWS]:
        raise EmbridgeError(f"--rows {', '.join(unknown)}: expected some of {', '.join(ROWS)}")
    with reporting() as progress:
        table = run_table(
            read_users(data),
            [entry for name in names for entry in ROWS[name](tuple(range(seeds)))],
            data=data.resolve().name,
            clock=time.monotonic,
            test_users=read_users(test_data) if test_data else None,
            store=out / "cells" if out else None,
            jobs=jobs,
            progress=progress,
        )
    if out:
        write_atomic(out / "report.json", json.dumps(table.json(), indent=1).encode())
        write_atomic(out / "report.md", table.markdown().encode())
        log(f"written: {out / 'report.md'}, {out / 'report.json'}")
    if plots:
        from embridge.benchmarks.pictures import draw_table

        for file in draw_table(table.json(), plots):
            log(f"written: {file}")
    show(table.json(), json_, table.text)

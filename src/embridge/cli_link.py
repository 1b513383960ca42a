"""`embridge bench link`, `faults`, `codec`: what proves the wire."""

from pathlib import Path
from typing import Annotated

import typer

from embridge.cli import Json, show
from embridge.cli_live import SourceUrl
from embridge.progress import reporting


def link(
    source: SourceUrl,
    seconds: Annotated[float, typer.Option(help="How long to read.")] = 10.0,
    search: Annotated[
        bool, typer.Option("--search", help="Search the largest rate that holds instead.")
    ] = False,
    json_: Json = False,
) -> None:
    """Throughput, loss, latency, jitter and CPU share of a link.

    Exit status 1 when frames were lost or came too slowly.
    """
    from embridge.benchmarks import link_bench

    with reporting() as progress:
        if search:
            found = link_bench.largest_rate(source, progress)
            show(found, json_, lambda: link_bench.search_text(found))
            held = found["largest"] is not None
        else:
            result = link_bench.bench_link(source, seconds, progress)
            show(result, json_, lambda: link_bench.text(result))
            held = result["holds"]
    if not held:
        raise typer.Exit(1)


def faults(
    frames: Annotated[int, typer.Option(help="How many at each rate.")] = 1_000_000,
    rate: Annotated[
        list[float] | None, typer.Option(help="Damaged bytes in a byte; may be given again.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed damages the same bytes.")] = 0,
    json_: Json = False,
) -> None:
    """Drop and flip bytes of a stream, and account for every frame.

    Exit status 1 when damage went undetected or a gap was not located exactly.
    """
    from embridge.benchmarks import link_faults

    with reporting() as progress:
        rates = tuple(rate or (1e-5, 1e-4, 1e-3))
        result = link_faults.bench_faults(frames, rates, seed, progress)
    show(result, json_, lambda: link_faults.text(result))
    if not result["passed"]:
        raise typer.Exit(1)


def codec(
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Recordings; a synthetic signal without.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the synthetic signal.")] = 0,
    json_: Json = False,
) -> None:
    """Frames per second of the codec, and bits per sample of each encoding beside zlib."""
    from embridge.benchmarks import codec_bench

    with reporting() as progress:
        result = codec_bench.bench_codec(data or [], seed, progress)
    show(result, json_, lambda: codec_bench.text(result))

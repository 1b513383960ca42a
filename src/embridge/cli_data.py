"""`embridge data ...` and `embridge wrist`: recordings, and a wrist that plays them."""

import signal
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from embridge.cli import Json, need_host, show
from embridge.device.errors import ConfigError
from embridge.firmware_bridge import Outage, VirtualWrist
from embridge.firmware_bridge.errors import EmbridgeError
from embridge.progress import reporting

EMG2POSE = "emg2pose"

app = typer.Typer(no_args_is_help=True, help="Recordings: make synthetic ones, look, check.")

DataArgument = Annotated[Path, typer.Argument(help="Folder or file of recordings.")]


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to write into.")],
    users: Annotated[int, typer.Option(help="How many people.")] = 10,
    seconds: Annotated[float, typer.Option(help="Length of each stage (emg2pose).")] = 8.0,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    layout: Annotated[
        str, typer.Option(help="emg2pose, or of NinaPro: db1, db2, db5, db7.")
    ] = EMG2POSE,
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Also metadata.csv and splits (emg2pose).")
    ] = False,
    json_: Json = False,
) -> None:
    """Write synthetic sessions in a data set's layout. For pipelines, never as evidence."""
    need_host("data synth")
    from embridge.training.synth import synthesize
    from embridge.training.synth_ninapro import write_ninapro

    if metadata and layout != EMG2POSE:
        raise ConfigError(f"--metadata: only emg2pose has it, got --layout {layout}: leave it out")
    with reporting() as progress:
        if layout == EMG2POSE:
            files = synthesize(
                out,
                users=users,
                seconds_per_stage=seconds,
                seed=seed,
                with_metadata=metadata,
                progress=lambda done, total: progress(done, total, "synthesize"),
            )
        else:
            files = write_ninapro(
                out,
                layout,
                range(1, users + 1),
                seed,
                progress=lambda done, total: progress(done, total, "synthesize"),
            )
    show({"folder": str(out), "files": len(files)}, json_, lambda: f"{out}: {len(files)} files")


@app.command()
def info(path: DataArgument, json_: Json = False) -> None:
    """What a folder of recordings holds."""
    from embridge.device.data_check import describe

    summary = asdict(describe(path))
    show(summary, json_, lambda: "\n".join(f"{k:18} {_short(v)}" for k, v in summary.items()))


@app.command()
def check(path: DataArgument, json_: Json = False) -> None:
    """What is wrong with a folder of recordings; exit status 1 when something makes it unusable."""
    from embridge.device.data_check import check as find_faults

    findings = find_faults(path)
    lines = [f"{f.severity}: {f.file or path}: {f.text}: {f.action}" for f in findings]
    show([asdict(f) for f in findings], json_, lambda: "\n".join(lines) or "nothing found")
    if any(finding.severity == "error" for finding in findings):
        raise typer.Exit(1)


def wrist(
    recording: Annotated[Path, typer.Argument(help="Recording to play.")],
    link: Annotated[Path | None, typer.Option(help="Stable link to the port.")] = None,
    speed: Annotated[float, typer.Option(help="Times real time.")] = 1.0,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
    drop: Annotated[
        list[str] | None, typer.Option(help="AT:FOR, unplug the port at AT s for FOR s.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Package the wrist declares it holds.")] = None,
) -> None:
    """Play a recording through a pseudo-terminal with the bytes of a wrist; prints its URL."""
    from embridge.device.package import read_package
    from embridge.device.recordings import read_recording
    from embridge.device.sources import stream_of

    outages = [_outage(text) for text in drop or []]
    held = bytes.fromhex(read_package(model).sha256) if model else bytes(32)
    counts, declared = stream_of(read_recording(recording), held)
    shown: list[Path] = []

    def on_port(path: Path) -> None:
        if not shown:
            print(f"serial://{link.absolute() if link else path}", flush=True)
        shown.append(path)

    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    player = VirtualWrist(
        counts, declared, speed=speed, loop=loop, link=link, outages=outages, on_port=on_port
    )
    player.run(stop)


def _outage(text: str) -> Outage:
    try:
        at_s, for_s = (float(part) for part in text.split(":"))
    except ValueError as error:
        raise EmbridgeError(f"--drop {text}: expected AT:FOR in seconds, as 5:1.5") from error
    return Outage(at_s, for_s)


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:.0f} s" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)

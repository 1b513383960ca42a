"""`embridge run`, `calibrate`, `record`, `check`, `scan`: what is done with a wrist on a line."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from embridge.cli import Json, Package, log, show
from embridge.firmware_bridge.ports import DEFAULT_BAUD
from embridge.progress import reporting

SOURCE_HELP = (
    "serial:///dev/ttyACM0, socket://HOST:PORT, ble://NAME, qemu://BOARD, virtual://, "
    "virtual+ble://, replay://FILE, myo://, cyton:///dev/..., brainflow://BOARD"
)
SourceUrl = Annotated[str, typer.Option("--source", help=SOURCE_HELP)]
SourceArgument = Annotated[str, typer.Argument(metavar="URL", help=SOURCE_HELP)]


def run(
    package: Package,
    source: SourceUrl,
    user: Annotated[Path | None, typer.Option(help="USER.profile.json")] = None,
    stage: Annotated[str, typer.Option(help="tflite-int8, executorch-int8 ...")] = "tflite-int8",
    sink: Annotated[
        list[str] | None,
        typer.Option(help="jsonl[:FILE], udp://HOST:PORT, libemg, lsl; may be given again."),
    ] = None,
    decisions: Annotated[Path | None, typer.Option(help="Also write every decision here.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so much EMG.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="End with a summary line.")] = False,
) -> None:
    """Live gestures: one JSON line per event, or another sink."""
    from embridge.device.sessions import run_session

    summary = run_session(
        package,
        source,
        sink or ["jsonl"],
        user=user,
        stage=stage,
        decisions=decisions,
        seconds=seconds,
        log=log,
    )
    if json_:
        print(json.dumps({"v": 1, "summary": summary}), flush=True)
    log(_session_line(summary))


def _session_line(summary: dict[str, Any]) -> str:
    latency = summary["latency_ms"]
    return (
        f"{summary['seconds']:.1f} s: {summary['decisions']} decisions, {summary['events']} "
        f"events; frames lost {summary['frames_lost']}, corrupt {summary['frames_corrupt']}; "
        f"latency p50 {latency['p50']} ms, p99 {latency['p99']} ms; tier {summary['tier']}"
    )


def calibrate(
    package: Package,
    source: SourceUrl,
    output: Annotated[Path, typer.Option("-o", help="USER.profile.json")],
    seconds: Annotated[float, typer.Option(help="How much unlabelled EMG to use.")] = 60.0,
    user: Annotated[str | None, typer.Option(help="Name; the output's name otherwise.")] = None,
    json_: Json = False,
) -> None:
    """Measure a wearer's profile (tier T1): move the hand freely for a minute."""
    from embridge.device.sessions import calibrate_user

    with reporting() as progress:
        name = user or output.name.split(".")[0]
        profile = calibrate_user(package, source, output, name, seconds, progress)
    show(profile, json_, lambda: f"{output}: {profile['seconds']:.1f} s of {name}")


def record(
    source: SourceArgument,
    output: Annotated[Path, typer.Option("-o", help="FILE.h5, emg2pose layout.")],
    script: Annotated[
        Path | None, typer.Option(help="Prompts to follow: lines gesture, seconds, times, rest.")
    ] = None,
    gestures: Annotated[
        str | None, typer.Option(help="fist,point,...: label by keys 1 to 9, 0 is rest.")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so much EMG.")] = None,
    user: Annotated[str, typer.Option(help="Who wears it.")] = "unknown",
    side: Annotated[str, typer.Option(help="left or right hand.")] = "left",
    flush_s: Annotated[float, typer.Option(help="A kill loses at most so much.")] = 1.0,
    json_: Json = False,
) -> None:
    """Write a live stream to a file that opens whatever happens; Ctrl-C ends it properly."""
    from embridge.device.sessions import record_session

    with reporting() as progress:
        summary = record_session(
            source,
            output,
            script=script,
            gestures=tuple(gestures.split(",")) if gestures else (),
            seconds=seconds,
            user=user,
            side=side,
            flush_s=flush_s,
            progress=progress,
            log=log,
        )
    show(summary, json_, lambda: _recorded(summary))


def _recorded(summary: dict[str, Any]) -> str:
    labels = ", ".join(f"{name} {s:.1f} s" for name, s in summary["gesture_seconds"].items())
    drift = summary["drift_ppm"]
    return (
        f"{', '.join(summary['paths'])}: {summary['seconds']:.1f} s, {summary['gaps']} gaps "
        f"({summary['samples_lost']} samples lost), wrist's clock "
        f"{'unknown' if drift is None else f'{drift:+.0f} ppm'}; {labels or 'no labels'}"
    )


def check(
    source: SourceArgument,
    seconds: Annotated[float, typer.Option(help="How long to look.")] = 5.0,
    limits: Annotated[Path | None, typer.Option(help="LIMITS.toml: other limits.")] = None,
    json_: Json = False,
) -> None:
    """Signal quality per channel: railed, flat, hum, RMS, dropouts.

    Exit status 1 when the signal is unfit to record.
    """
    from embridge.device.sessions import check_session

    with reporting() as progress:
        report = check_session(source, seconds, limits, progress)
    show(report.as_dict(), json_, lambda: "\n".join(report.lines()))
    if not report.fit:
        raise typer.Exit(1)


def scan(
    seconds: Annotated[float, typer.Option(help="How long to listen for BLE.")] = 5.0,
    baud: Annotated[int, typer.Option(help="Of the serial ports.")] = DEFAULT_BAUD,
    port: Annotated[
        list[str] | None, typer.Option(help="Ask this URL, too; may be given again.")
    ] = None,
    json_: Json = False,
) -> None:
    """Find wrists: say HELLO on every serial port, listen for the service over BLE.

    Opening a port resets some boards. Exit status 1 when no wrist was found.
    """
    from embridge.firmware_bridge.scan import as_json, as_text
    from embridge.firmware_bridge.scan import scan as look

    with reporting() as progress:
        found = look(port or [], seconds=seconds, baud=baud, progress=progress)
    show(as_json(found), json_, lambda: as_text(found))
    if not any(one.is_wrist for one in found):
        raise typer.Exit(1)

"""What `embridge run`, `record`, `check` and `calibrate` do with files, ports and signals."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from embridge.device.errors import ConfigError
from embridge.device.frontend import UserProfile
from embridge.device.live import Sink, announcement, calibrate, run_live
from embridge.device.package import read_package
from embridge.device.pipeline import open_model
from embridge.device.prompts import KeyLabeller, Labeller, ScriptLabeller, keyboard, read_script
from embridge.device.recorder import record
from embridge.device.recordings import REST
from embridge.device.signal_check import SignalReport, check_signal, read_limits
from embridge.device.sinks import open_sink
from embridge.device.source import Source
from embridge.device.sources import open_source
from embridge.device.stream_file import Progress, Session


def run_session(
    package: Path,
    url: str,
    sinks: Sequence[str] = (),
    *,
    on_event: Sink | None = None,
    user: Path | None = None,
    stage: str = "tflite-int8",
    decisions: Path | None = None,
    seconds: float | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Live gestures from a package and a source until the stream ends or Ctrl-C; the summary.

    sinks: where events, decisions and samples go; see `device.sinks`
    on_event: gets each event, too
    decisions: file that receives one JSON line per decision
    """
    profile = read_profile(user) if user else None
    model = open_model(read_package(package), stage, profile)
    labels = model.package.manifest.labels
    with ExitStack() as stack:
        source = stack.enter_context(open_source(url))
        stack.enter_context(stopped_by_signals(source))
        outs = [
            stack.enter_context(open_sink(spec, info=source.info, labels=labels, null_gesture=REST))
            for spec in sinks
        ]
        events = [out.events for out in outs if out.events]
        takers = [out.decisions for out in outs if out.decisions]
        if decisions:
            file = stack.enter_context(decisions.open("w"))
            takers.append(lambda line: print(json.dumps(line), file=file))
        live = run_live(
            model,
            source,
            _to_all([*events, on_event] if on_event else events),
            on_decision=_to_all(takers),
            on_samples=_to_all([out.samples.push for out in outs if out.samples]),
            on_link=log,
            seconds=seconds,
        )
    return live.summary() | {"source": url, "stage": stage, "tier": model.tier}


def _to_all(takers: Sequence[Callable[..., None]]) -> Callable[..., None]:
    """One function that hands what it gets to each of these."""

    def give(*values: Any) -> None:
        for take in takers:
            take(*values)

    return give


def record_session(
    url: str,
    output: Path,
    *,
    script: Path | None = None,
    gestures: Sequence[str] = (),
    seconds: float | None = None,
    user: str = "unknown",
    side: str = "left",
    flush_s: float = 1.0,
    progress: Progress | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Record a source, labelled by a script of prompts or by keys; plain values of its summary.

    Raises ConfigError for both or a bad script, RecordingError and LinkError as `record`.
    """
    if script and gestures:
        raise ConfigError("--script and --gestures: labels come from one of them, not from both")
    with ExitStack() as stack:
        labeller: Labeller | None = None
        if script:
            labeller = ScriptLabeller(read_script(script), log)
        if gestures:
            keys = stack.enter_context(keyboard())
            labeller = KeyLabeller(gestures, keys.pressed, log)
        source = stack.enter_context(open_source(url))
        stack.enter_context(stopped_by_signals(source))
        log(announcement(source.info))
        summary = record(
            source,
            output,
            labeller=labeller,
            session=Session(user=user, side=side),
            seconds=seconds,
            flush_s=flush_s,
            progress=progress,
            on_link=log,
        )
    return summary.as_dict() | {"source": url}


def check_session(
    url: str, seconds: float, limits: Path | None = None, progress: Progress | None = None
) -> SignalReport:
    """Look at a source's signal for a while; raises ConfigError or LinkError."""
    chosen = read_limits(limits) if limits else None
    paced = not url.startswith("replay://")
    with open_source(url) as source, stopped_by_signals(source):
        return check_signal(source, seconds, chosen, judge_rate=paced, progress=progress)


def calibrate_user(
    package: Path,
    url: str,
    output: Path,
    user: str,
    seconds: float,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a wearer's profile from a source and write it; raises ConfigError or LinkError."""
    manifest = read_package(package).manifest
    with open_source(url) as source, stopped_by_signals(source):
        profile = calibrate(manifest.front_end, manifest.input, source, user, seconds, progress)
    temporary = output.with_name(output.name + ".part")
    temporary.write_text(profile.model_dump_json(indent=1))
    os.replace(temporary, output)
    return profile.model_dump()


def read_profile(path: Path) -> UserProfile:
    """Read USER.profile.json; ConfigError with one line when it cannot be used."""
    try:
        return UserProfile.model_validate_json(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such profile; make one with `embridge calibrate`") from error
    except (ValidationError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise ConfigError(f"{path}: not a user profile ({first}); calibrate again") from error


@contextmanager
def stopped_by_signals(source: Source) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the stream, so that what was done is still reported."""
    before = {
        number: signal.signal(number, lambda *_: source.stop())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Live gestures: a source, a model, and one JSON line per event."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.device.decision import Debouncer, Decision, Event
from embridge.device.errors import ConfigError
from embridge.device.frontend import FrontEnd, UserProfile, fit_profile
from embridge.device.manifest import InputSpec
from embridge.device.pipeline import Model, Pipeline
from embridge.device.source import Source, physical
from embridge.firmware_bridge import Block, EndOfStream, Gap, Reconnected, Restarted, StreamInfo

Sink = Callable[[dict[str, Any]], None]
Samples = Callable[[Block, NDArray[np.float32]], None]


@dataclass
class LiveRun:
    """What a live run did. latency_ms: last sample's arrival to the decision, one per decision."""

    decisions: list[Decision] = field(default_factory=list)
    latency_ms: list[float] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    link: dict[str, Any] = field(default_factory=dict)
    events: int = 0
    seconds: float = 0.0
    ended: bool = False  # the wrist said that its stream is over

    def summary(self) -> dict[str, Any]:
        """Plain values: link counts, decisions, latency percentiles."""
        percentiles = np.percentile(self.latency_ms or [np.nan], [50, 95, 99])
        return {
            **self.link,
            "gap_list": [asdict(gap) for gap in self.gaps],
            "decisions": len(self.decisions),
            "events": self.events,
            "seconds": round(self.seconds, 3),
            "latency_ms": {
                name: round(float(value), 3) if self.latency_ms else None
                for name, value in zip(("p50", "p95", "p99"), percentiles, strict=True)
            },
        }


def check_stream(info: StreamInfo, spec: InputSpec) -> None:
    """Refuse a stream that the model was not trained for; ConfigError."""
    got = (info.n_ch, info.rate_hz, info.unit, info.envelope)
    want = (spec.channels, spec.rate_hz, spec.unit, spec.is_envelope)
    same_rate = abs(info.rate_hz - spec.rate_hz) < 1e-3 * spec.rate_hz
    if (got[0], *got[2:]) != (want[0], *want[2:]) or not same_rate:
        raise ConfigError(
            f"the wrist declares {_describe(*got)}, the package expects {_describe(*want)}; "
            "use a package trained for this wrist"
        )


def run_live(
    model: Model,
    source: Source,
    sink: Sink,
    *,
    on_decision: Sink | None = None,
    on_samples: Samples | None = None,
    on_link: Callable[[str], None] = lambda text: None,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], float] = time.time,
) -> LiveRun:
    """Read an opened source to its end; events go to `sink`, every decision to `on_decision`.

    on_samples: gets each block with its values (T, C) in the stream's unit
    seconds: stop after so much EMG

    Raises ConfigError when the stream is not what the model expects, LinkError when it is lost.
    """
    manifest = model.package.manifest
    check_stream(source.info, manifest.input)
    on_link(announcement(source.info))
    if source.how:
        on_link(f"samples travel as {source.how}")
    pipeline = Pipeline(model)
    debouncer = Debouncer(manifest.decision, manifest.input.hop_ms)
    run = LiveRun()

    def emit(events: list[Event]) -> None:
        for event in events:
            run.events += 1
            sink(_event_line(event, model, run.latency_ms[-1], wall_clock()))

    try:
        for item in source.blocks():
            if isinstance(item, Block):
                if not run.seconds:  # a wrist may have been streaming before: its numbers count
                    pipeline.restart(item.first_sample)
                values = physical(item.samples, source.info.scale)  # T C
                if on_samples:
                    on_samples(item, values)
                for decision in pipeline.push(values):
                    run.decisions.append(decision)
                    run.latency_ms.append(1000 * (clock() - item.arrived_s))
                    if on_decision:
                        on_decision(asdict(decision) | {"latency_ms": run.latency_ms[-1]})
                    emit(debouncer.push(decision))
                run.seconds += len(item.samples) / source.info.rate_hz
                if seconds is not None and run.seconds >= seconds:
                    break
            elif isinstance(item, Gap):
                run.gaps.append(item)
                on_link(f"lost {item.samples} samples at sample {item.first_sample}")
                pipeline.restart(item.first_sample + item.samples)
                emit(debouncer.reset())
            elif isinstance(item, Restarted):
                on_link("the wrist restarted; a new stream begins")
                pipeline.restart(0)
                emit(debouncer.reset())
            elif isinstance(item, Reconnected):
                on_link(f"port back after {item.away_s:.1f} s ({item.cause})")
            elif isinstance(item, EndOfStream):
                run.ended = True
                on_link("the wrist reached the end of its recording")
    finally:  # also when the link is lost: no gesture may stay on for ever
        emit(debouncer.reset())
    run.link = _link_counts(source, run.ended)
    return run


def calibrate(
    front_end: FrontEnd,
    spec: InputSpec,
    source: Source,
    user: str,
    seconds: float,
    progress: Callable[[int, int, str], None] | None = None,
) -> UserProfile:
    """Measure a wearer's profile (T1) on `seconds` of unlabelled EMG from an opened source.

    Raises ConfigError when the stream ends before half of it, or a channel is flat.
    """
    check_stream(source.info, spec)
    stream, done = front_end.stream(), 0
    pieces: list[list[NDArray[np.float32]]] = [[]]  # what was lost lies between two of them
    for item in source.blocks():
        if isinstance(item, Block):
            pieces[-1].append(stream.push(physical(item.samples, source.info.scale)))
            done += len(item.samples)
        elif isinstance(item, Gap | Restarted):
            stream = front_end.stream()
            pieces.append([])
        if progress:
            progress(int(done / spec.rate_hz), int(seconds), "calibrate")
        if done >= seconds * spec.rate_hz:
            break
    got_s = done / spec.rate_hz
    if got_s < seconds / 2:
        raise ConfigError(
            f"expected {seconds:g} s of EMG, the stream ended after {got_s:.1f} s; "
            "wear the band for longer or ask for less with --seconds"
        )
    return fit_profile(front_end, user, [np.concatenate(piece) for piece in pieces if piece])


def _event_line(event: Event, model: Model, latency_ms: float, t_host: float) -> dict[str, Any]:
    spec, decision = model.package.manifest.input, event.decision
    end = decision.start + spec.window
    return {
        "v": 1,
        "t": round(end / spec.rate_hz, 4),
        "t_host": round(t_host, 3),
        "gesture": event.gesture,
        "state": event.state,
        "p": round(decision.share, 3),
        "similarity": round(decision.similarity, 4),
        "latency_ms": round(latency_ms, 3),
        "sample": end,
        "tier": model.tier,
        "model": f"sha256:{model.package.sha256[:12]}",
    }


def _link_counts(source: Source, ended: bool) -> dict[str, Any]:
    """The wrist's own counts are final when its stream has ended, and unknown (None) before."""
    counts = asdict(source.stats)
    declared = (counts.pop("declared") or {}) if ended else {}
    counts.pop("declared", None)
    return counts | {
        "frames_sent": declared.get("frames_sent"),
        "frames_dropped_by_wrist": declared.get("frames_dropped"),
    }


def announcement(info: StreamInfo) -> str:
    """What a wrist says of itself, in one line."""
    held = info.model_sha256.hex()[:12] if any(info.model_sha256) else "none"
    return (
        f"wrist {info.device or '?'} (firmware {info.firmware or '?'}): {info.n_ch} channels at "
        f"{info.rate_hz:g} Hz, {info.scale:g} {info.unit} per count, model {held}"
    )


def _describe(channels: int, rate_hz: float, unit: str, envelope: bool) -> str:
    kind = "envelope" if envelope else "raw"
    return f"{channels} channels at {rate_hz:g} Hz, {kind}, in {unit}"

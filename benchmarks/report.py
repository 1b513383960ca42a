"""The report of a demo: JSON for machines, one Markdown table for people."""

from typing import Any

from embridge import __version__
from embridge.training.plan import StudyPlan
from embridge.training.run_folder import environment

SCHEMA = 1
HEADER = (
    "stage", "seen", "unseen", "all", "cosine", "p01", "min", "same", "p50 us", "p99 us", "bytes",
)  # fmt: skip


def make_report(
    plan: StudyPlan,
    tier: str,
    stages: dict[str, Any],
    references: dict[str, Any],
    without_profile: dict[str, Any],
    live: dict[str, Any],
    seconds: dict[str, float],
) -> dict[str, Any]:
    """The report as one JSON value; the core is DESIGN section 4."""
    return {
        "schema": SCHEMA,
        "embridge": __version__,
        "environment": environment(),
        "data": {
            "name": plan.data_name,
            "source": plan.source,
            "synthetic": plan.synthetic,
            "channels": plan.channels,
            "rate_hz": plan.rate_hz,
            "train_users": list(plan.train_users),
            "val_users": list(plan.val_users),
            "test_users": list(plan.test_users),
            "seen_gestures": plan.seen,
            "unseen_gestures": list(plan.unseen),
        },
        "tier": tier,
        "stages": stages,
        "references": references,
        "tiers": {"T0": without_profile},
        "live": live,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
    }


def markdown(report: dict[str, Any]) -> str:
    """The report for people: what was tested, the table of stages, the live run."""
    return "\n\n".join(
        [_heading(report), _stage_table(report), _tier_line(report), _live(report), _times(report)]
    )


def _heading(report: dict[str, Any]) -> str:
    data = report["data"]
    warning = (
        "\n\n**Synthetic data: shows that the pipeline works, says nothing of real accuracy.**"
        if data["synthetic"]
        else ""
    )
    return (
        f"# embridge {report['embridge']}: {data['name']} ({data['source']}, "
        f"{data['channels']} channels at {data['rate_hz']:g} Hz){warning}\n\n"
        f"- trained on users {', '.join(data['train_users'])}; "
        f"tested on users never trained on: {', '.join(data['test_users'])}\n"
        f"- gestures never trained on (unseen): {', '.join(data['unseen_gestures'])}\n"
        f"- tier {report['tier']}: {_TIERS[report['tier']]}"
    )


_TIERS = {
    "T0": "no user profile",
    "T1": "user profile (offset and scale per channel) from unlabelled EMG of seen gestures, "
    "which the test leaves out",
}


def _stage_table(report: dict[str, Any]) -> str:
    rows = [_row(name, stage) for name, stage in report["stages"].items()]
    rows += [_row(f"*{name}*", stage) for name, stage in report["references"].items()]
    first = next(iter(report["stages"].values()))["zero_shot"]
    chance = {group: f"{score['chance']:.3f}" for group, score in first.items()}
    rows.append(["*chance*", *(chance.get(g, "-") for g in ("seen", "unseen", "all")), *["-"] * 7])
    lines = [HEADER, ["---", *["---:"] * (len(HEADER) - 1)], *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    windows = ", ".join(f"{score['windows']} {group}" for group, score in first.items())
    return (
        "Zero-shot balanced accuracy [95 % interval over users and repetitions] of the `watch` "
        f"encoder on {windows} windows; cosine and decisions against `float`; latency of one "
        f"window on one thread of this machine.\n\n{table}"
    )


def _row(name: str, stage: dict[str, Any]) -> list[str]:
    scores, cosine, latency = stage["zero_shot"], stage["cosine_to_float"], stage["latency"]
    cells = [name]
    for group in ("seen", "unseen", "all"):
        score = scores.get(group)
        cells.append(
            f"{score['balanced_accuracy']:.3f} [{score['ci95'][0]:.2f}, {score['ci95'][1]:.2f}]"
            if score
            else "-"
        )
    cells += [f"{cosine[key]:.4f}" for key in ("mean", "p01", "min")] if cosine else ["-"] * 3
    cells.append("-" if stage["same_decision"] is None else f"{100 * stage['same_decision']:.2f} %")
    cells += [f"{latency[k]:.0f}" for k in ("p50_us", "p99_us")] if latency else ["-"] * 2
    cells.append("-" if stage["bytes"] is None else f"{stage['bytes']:,}")
    return cells


def _tier_line(report: dict[str, Any]) -> str:
    parts = [
        f"{stage}: seen {z['seen']['balanced_accuracy']:.3f}, "
        f"unseen {z['unseen']['balanced_accuracy']:.3f}"
        for stage, z in report["tiers"]["T0"].items()
    ]
    return f"Without a user profile (tier T0): {'; '.join(parts)}."


def _live(report: dict[str, Any]) -> str:
    live = report["live"]
    latency = live["latency_ms"]
    right = "-" if live["right_share"] is None else f"{100 * live['right_share']:.1f} %"
    return (
        f"Live: {live['stage']} on {live['source']}, user {live['user']}, tier {live['tier']}, "
        f"{live['seconds']:.0f} s of EMG\n\n"
        f"- frames sent {live['frames_sent']}, lost {live['frames_lost']}, "
        f"corrupt {live['frames_corrupt']}\n"
        f"- {live['decisions']} decisions, {100 * live['decisions_equal_offline']:.2f} % equal to "
        f"the {live['decisions_offline']} offline ones; {live['events']} gesture events; of "
        f"accepted decisions {right} named the gesture played (all gestures compete)\n"
        f"- last sample's arrival to decision: p50 {latency['p50']} ms, p95 {latency['p95']} ms, "
        f"p99 {latency['p99']} ms"
    )


def _times(report: dict[str, Any]) -> str:
    parts = ", ".join(f"{name} {value:.0f} s" for name, value in report["seconds"].items())
    return f"Time taken: {parts}."

"""`embridge bench accuracy`: what int8 and compression keep, as JSON, as a table, as a plot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embridge import __version__
from embridge.benchmarks.kept import GROUPS, SCORES, TIER, Difference, Kept, kept_accuracy
from embridge.device.errors import ConfigError
from embridge.device.gallery_codes import FLOAT_BITS
from embridge.device.package import Package, read_package
from embridge.training.paper.confusion import cautions
from embridge.training.plan import StudyPlan
from embridge.training.run_folder import environment
from embridge.training.study import Progress

SCHEMA = 1
LOSS_LIMIT_POINTS = -0.5  # the lower end of a difference's interval may not lie below
SAME_LIMIT = 0.98
JUDGED = ("seen", "unseen", "generalised")  # scores with a verdict and a panel of the plot
SAME_OF = dict(zip(SCORES, ("seen", "unseen", "all", "all", "all"), strict=True))


def bench_accuracy(
    paths: Sequence[Path],
    data: Path,
    *,
    stages: Sequence[str] = ("tflite-int8",),
    per_gesture: int = 1,
    limit: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Read packages, judge them on recordings, report; arguments as of `kept.kept_accuracy`."""
    packages = [read_package(path) for path in paths]
    kept = kept_accuracy(
        packages,
        data,
        stages=stages,
        per_gesture=per_gesture,
        limit=limit,
        seed=seed,
        progress=progress,
    )
    return kept_report(kept, packages, data.resolve().name)


def kept_report(kept: Kept, packages: Sequence[Package], data_name: str) -> dict[str, Any]:
    """The result as plain values; differences and intervals in percentage points."""
    users, chance = kept.judged.users, kept.judged.chance.mean(axis=0)
    plans = [StudyPlan.model_validate(package.manifest.config["plan"]) for package in packages]
    return {
        "schema": SCHEMA,
        "embridge": __version__,
        "environment": environment(),
        "data": {"name": data_name, "trained_on_synthetic": any(p.synthetic for p in plans)},
        "tier": TIER,
        "packages": [
            {
                "file": package.path.name,
                "sha256": package.sha256,
                "recipe": package.manifest.config["recipe"],
                "test_users": [u for u in users if u not in (*plan.train_users, *plan.val_users)],
            }
            for package, plan in zip(packages, plans, strict=True)
        ],
        "users": list(users),
        "windows": len(kept.judged.user),
        "resamples": kept.resamples,
        "seed": kept.seed,
        "chance": dict(zip(SCORES, chance.tolist(), strict=True)),
        "reference_above_chance": dict(
            zip(SCORES, (kept.ci95[0, 0] > chance).tolist(), strict=True)
        ),
        "rows": [_row(kept, r) for r in range(len(kept.rows))],
    }


def _row(kept: Kept, r: int) -> dict[str, Any]:
    row = kept.rows[r]
    scores = {score: _score(kept, r, s) for s, score in enumerate(SCORES)}
    same = dict(zip(GROUPS, kept.same_decision[r].tolist(), strict=True))
    found = {
        "encoder": row.stage,
        "gallery_bits": row.bits,
        "prototypes_per_gesture": row.prototypes,
        "gallery_rows": int(kept.judged.gallery_rows[r]),
        "gallery_bytes": int(kept.judged.gallery_bytes[r]),
        "scores": scores,
        "same_decision": same,
        "verdicts": {score: _verdicts(scores[score], same[SAME_OF[score]]) for score in JUDGED},
    }
    if row.prototypes:
        found["to_float_prototypes"] = {
            score: _difference(kept.to_prototypes, r, s) for s, score in enumerate(SCORES)
        }
    return found


def _score(kept: Kept, r: int, s: int) -> dict[str, Any]:
    mean = kept.accuracy.mean(axis=1)  # R S
    per_user = kept.accuracy[r, :, s].tolist()
    return {
        "balanced_accuracy": float(mean[r, s]),
        "ci95": kept.ci95[:, r, s].tolist(),
        "kept": float(mean[r, s] / mean[0, s]) if mean[0, s] else None,
        **_difference(kept.to_reference, r, s),
        "per_user": dict(zip(kept.judged.users, per_user, strict=True)),
    }


def _difference(difference: Difference, r: int, s: int) -> dict[str, Any]:
    return {
        "difference_points": float(difference.mean[r, s]),
        "ci95_points": difference.over_users[:, r, s].tolist(),
        "ci95_two_stage_points": difference.over_trials[:, r, s].tolist(),
    }


def _verdicts(score: dict[str, Any], same: float) -> dict[str, Any]:
    low, high = score["ci95_points"]
    return {
        "ci95_points": {
            "limit": {"lower_end_points": LOSS_LIMIT_POINTS, "upper_end_points": 0.0},
            "value": [low, high],
            "passed": high >= 0 and low >= LOSS_LIMIT_POINTS,
        },
        "same_decision": {"limit": SAME_LIMIT, "value": same, "passed": same >= SAME_LIMIT},
    }


def row_name(row: dict[str, Any]) -> str:
    """For people: encoder x gallery."""
    bits = row["gallery_bits"]
    values = "float" if bits == FLOAT_BITS else f"{bits} bit"
    count = row["prototypes_per_gesture"]
    rows = f"{count} prototype{'s' * (count > 1)}" if count else "all rows"
    return f"{row['encoder']} x {values}, {rows}"


def text(report: dict[str, Any]) -> str:
    """One table for each score."""
    users = report["users"]
    lines = [
        f"{report['data']['name']}, tier {report['tier']}: {report['windows']} windows of "
        f"{len(users)} users never trained or validated on ({', '.join(users)})",
        *(f"{p['file']}  sha256 {p['sha256']}  {p['recipe']}" for p in report["packages"]),
        "accuracy: mean over users of balanced accuracy. difference: to the first row, in "
        "percentage points, [95 % over users] and {over users and trials}.",
        f"loss: ok when [] begins at {LOSS_LIMIT_POINTS} or above and does not end below 0. "
        f"same: share of windows with the first row's decision, ok from {SAME_LIMIT}.",
    ]
    lines += cautions(len(users))
    if report["data"]["trained_on_synthetic"]:
        lines.append("Trained on synthetic data: says nothing of real accuracy.")
    for score in SCORES:
        lines += ["", *_table(report, score)]
    return "\n".join(lines)


def _table(report: dict[str, Any], score: str) -> list[str]:
    width = max(len(row_name(row)) for row in report["rows"])
    title = f"{score}, chance {report['chance'][score]:.3f}"
    head = f"{'bytes':>9}  accuracy   kept  {'difference':^36}    same"
    lines = [f"{title:{width}}{head}"]
    lines += [f"{row_name(row):{width}}{_cells(row, score)}" for row in report["rows"]]
    if not report["reference_above_chance"][score]:
        lines.append("The first row's interval reaches chance: there is nothing to keep here.")
    return lines


def _cells(row: dict[str, Any], score: str) -> str:
    found = row["scores"][score]
    (low, high), (lower, higher) = found["ci95_points"], found["ci95_two_stage_points"]
    kept = "-" if found["kept"] is None else f"{100 * found['kept']:.1f}%"
    verdicts = row["verdicts"].get(score, {})
    passed = "".join(
        f"  {label} {'ok' if verdicts[key]['passed'] else 'FAILED'}"
        for label, key in (("loss", "ci95_points"), ("same", "same_decision"))
        if key in verdicts
    )
    return (
        f"{row['gallery_bytes']:9,}  {found['balanced_accuracy']:8.3f} {kept:>6}  "
        f"{found['difference_points']:+6.2f} [{low:+6.2f},{high:+6.2f}] "
        f"{{{lower:+6.2f},{higher:+6.2f}}}  {100 * row['same_decision'][SAME_OF[score]]:6.2f}%"
        f"{passed}"
    )


def plot(report: dict[str, Any], path: Path) -> None:
    """Accuracy of every row with its interval over users, and chance; .png or .svg by suffix.

    Raises ConfigError for another suffix.
    """
    if path.suffix not in (".png", ".svg"):
        raise ConfigError(f"{path.name}: expected a plot named .png or .svg")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = report["rows"]
    figure = Figure(figsize=(12, 1.5 + 0.3 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(JUDGED), sharey=True)
    heights = range(len(rows))
    for panel, score in zip(panels, JUDGED, strict=True):
        found = [row["scores"][score] for row in rows]
        for height, one in zip(heights, found, strict=True):
            panel.plot(one["ci95"], [height, height], color="tab:blue")
        panel.plot([one["balanced_accuracy"] for one in found], heights, "o", color="tab:blue")
        panel.axvline(found[0]["balanced_accuracy"], color="tab:gray", linewidth=0.8)
        panel.axvline(report["chance"][score], color="tab:red", linestyle="--", label="chance")
        panel.set_title(score)
        panel.set_xlim(left=0)
    panels[0].set_yticks(heights, [row_name(row) for row in rows])
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right")
    figure.suptitle(
        f"{report['data']['name']}, {len(report['users'])} users, tier {report['tier']}"
    )
    figure.supxlabel("balanced accuracy, mean over users, 95 % interval over users")
    metadata = {"Date": None} if path.suffix == ".svg" else None
    with rc_context({"svg.hashsalt": "embridge"}):
        figure.savefig(path, dpi=120, metadata=metadata)

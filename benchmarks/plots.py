"""The plots of each kind of result, into a folder; `pictures` draws them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from embridge.benchmarks.activations import Activations
from embridge.benchmarks.evaluation import Evaluation
from embridge.benchmarks.methods import FIGURES, Comparison
from embridge.benchmarks.pictures import (
    draw_activations,
    draw_confusion,
    draw_map,
    draw_shares,
    draw_users,
)
from embridge.benchmarks.probing import ProbeReport
from embridge.training.paper.published import COLUMNS, PaperTable
from embridge.training.paper.zero_shot import TASKS

Result = Evaluation | ProbeReport | Activations | PaperTable | Comparison


def draw(result: Result, folder: Path) -> list[Path]:
    """Write the plots of a result as .png and return their files."""
    match result:
        case Evaluation():
            return _of_evaluation(result, folder)
        case ProbeReport():
            return _of_probe(result, folder)
        case Activations():
            file = folder / "false-activations.png"
            draw_activations(result.json(), file)
            return [file]
        case PaperTable():
            return _of_table(result, folder)
        case Comparison():
            return _of_comparison(result, folder)


def _of_evaluation(result: Evaluation, folder: Path) -> list[Path]:
    figures, tier, data = result.figures, result.test.tier, result.data
    what = f"{result.target}, {result.stage}, tier {tier}, {data}, {len(result.users)} users"
    files = []
    for task in TASKS:
        counts = figures.confusion(task).sum(axis=0)
        if counts.any():
            files.append(folder / f"confusion-{task}.png")
            draw_confusion(counts, figures.labels, f"{what}: {task}, kNN, windows", files[-1])
    files.append(folder / "users.png")
    rows = [(name, one, figures.chance(name)) for name, one in figures.figures().items()]
    draw_users(rows, f"{what}: zero-shot, kNN, windows", files[-1])
    files.append(folder / "map.png")
    windows = result.test.windows
    label, gallery = np.asarray(windows.label, np.int64), result.gallery
    draw_map(result.embeddings, label, gallery, figures.unseen, f"{what}: EMG and poses", files[-1])
    return files


def _of_probe(result: ProbeReport, folder: Path) -> list[Path]:
    what = f"{result.target}, tier {result.tier}, {result.data}"
    files, rows = [], []
    for row in result.rows:
        stem = f"probe-{row.encoder.replace(' ', '-')}-{row.group}"
        files.append(folder / f"{stem}.png")
        counts = row.probe.counts[0].sum(axis=0)
        draw_confusion(counts, row.labels, f"{what}: {row.encoder}, {row.group}", files[-1])
        if measured := row.probe.figure():
            rows.append((f"{row.encoder}, {row.group}", measured, 1 / len(row.gestures)))
    files.append(folder / "probe-users.png")
    draw_users(rows, f"{what}: linear probe, windows", files[-1])
    return files


def _of_table(result: PaperTable, folder: Path) -> list[Path]:
    rows = [
        (f"{row.method} {name.replace('_', ' ')}", figure, None)
        for row in result.own
        for name in COLUMNS
        if (figure := row.figures[name])
    ]
    where = ", ".join(dict.fromkeys(f"{row.where}, tier {row.tier}" for row in result.own))
    file = folder / "table-users.png"
    draw_users(rows, f"run here: {where}", file)
    return [file]


def _of_comparison(result: Comparison, folder: Path) -> list[Path]:
    probe, plan = result.rows[0].judged[0].probe, result.plan
    what = f"{probe.data}, tier {plan.tier}, {plan.stage}"
    files = []
    for name in FIGURES:
        rows = [
            (f"{row.method}, share {row.share:g}", figures[name], None)
            for row in result.rows
            if name in (figures := row.figures())
        ]
        if rows:
            files.append(folder / f"users-{name}.png")
            draw_users(rows, f"{what}: {name.replace('_', ' ')}", files[-1])
    if len(plan.shares) > 1:
        files.append(folder / "shares.png")
        draw_shares(_curves(result, ("zs_unseen", "lp_unseen")), what, files[-1])
    return files


def _curves(
    result: Comparison, names: Sequence[str]
) -> dict[str, list[tuple[float, float, tuple[float, float]]]]:
    """(share, mean, interval) of each method and figure, by share."""
    curves: dict[str, list[tuple[float, float, tuple[float, float]]]] = {}
    for row in sorted(result.rows, key=lambda row: row.share):
        found = row.figures()
        for name in names:
            if name in found:
                point = (row.share, found[name].mean, found[name].ci95)
                curves.setdefault(f"{row.method} {name.replace('_', ' ')}", []).append(point)
    return curves

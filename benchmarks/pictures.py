"""Plots of evaluations: confusion matrices, maps of embeddings, users, false activations."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from embridge.device.decision import Gallery
from embridge.training.paper.confusion import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINTS = 1500  # of a map, EMG and poses each: more hide each other
_MIN_FOR_TSNE = 50


def draw_confusion(counts: NDArray[np.int64], names: Sequence[str], title: str, file: Path) -> None:
    """Counts (K, K) of true and decided gestures; each row as shares of what was made.

    Gestures that were neither made nor decided are left out.
    """
    shown = np.flatnonzero(counts.sum(axis=0) + counts.sum(axis=1))
    table = counts[np.ix_(shown, shown)].astype(float)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = 2.5 + 0.45 * len(shown)
    figure = _figure(side + 1, side)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    labels = [names[k] for k in shown]
    axes.set_xticks(range(len(shown)), labels, rotation=90, fontsize=8)
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.set_xlabel("decided")
    axes.set_ylabel("made")
    for (row, column), share in np.ndenumerate(shares):
        if share >= 0.005:
            color = "white" if share > 0.6 else "black"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", color=color, size=6)
    figure.colorbar(image, shrink=0.7, label="share of the row")
    axes.set_title(title, fontsize=9)
    _save(figure, file)


def draw_map(
    queries: NDArray[np.float32],
    label: NDArray[np.int64],
    gallery: Gallery,
    unseen: Sequence[str],
    title: str,
    file: Path,
    seed: int = 0,
) -> None:
    """EMG windows (N, D) or (N, M, D) and the poses of the gallery in one plane, by t-SNE.

    Colour: gesture; circles: seen, triangles: unseen; poses are drawn dark-edged. Of M queries the
    one nearest to any pose is shown. Fewer than 50 points are laid out by PCA.
    """
    rng = np.random.default_rng(seed)
    emg = rng.permutation(len(queries))[:_POINTS]
    rows = rng.permutation(len(gallery.labels))[:_POINTS]
    poses = _unit(gallery.vectors[rows])
    points = np.concatenate([_nearest_query(queries[emg], poses), poses])
    plane = _plane(points, seed)
    figure = _figure(9, 7)
    axes = figure.subplots()
    gestures = [g for g, n in enumerate(gallery.names) if n != "rest" and (label == g).any()]
    for number, gesture in enumerate(gestures):
        name = gallery.names[gesture]
        color, marker = _color(number), "^" if name in unseen else "o"
        x, y = plane[: len(emg)][label[emg] == gesture].T
        axes.scatter(x, y, s=12, alpha=0.7, linewidths=0, color=color, marker=marker)
        x, y = plane[len(emg) :][gallery.labels[rows] == gesture].T
        shown = f"{name} (unseen)" if name in unseen else name
        axes.scatter(
            x, y, s=30, color=color, marker=marker, label=shown, edgecolors="black", linewidths=0.6
        )
    axes.set_xticks([])
    axes.set_yticks([])
    figure.legend(loc="outside right upper", fontsize=7, title="dark-edged: poses")
    axes.set_title(title, fontsize=9)
    _save(figure, file)


def draw_users(rows: Sequence[tuple[str, Measured, float | None]], title: str, file: Path) -> None:
    """Users as dots, mean and 95 % interval over them as a bar; rows: name, figure, chance."""
    figure = _figure(9, 1.5 + 0.45 * len(rows))
    axes = figure.subplots()
    for height, (_, measured, chance) in enumerate(rows):
        axes.plot(measured.ci95, [height, height], color="tab:blue", linewidth=3, alpha=0.5)
        values = list(measured.per_user.values())
        axes.plot(values, [height] * len(values), "o", color="tab:gray", markersize=4, alpha=0.7)
        axes.plot([measured.mean], [height], "D", color="tab:blue")
        if chance is not None:
            axes.vlines(chance, height - 0.4, height + 0.4, color="tab:red", linestyles="--")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel("balanced accuracy; grey: each user, bar: 95 % over users, red: chance")
    axes.set_title(title, fontsize=9)
    _save(figure, file)


def draw_activations(report: dict[str, Any], file: Path) -> None:
    """False activations per hour of rest against what is accepted, from `Activations.json()`."""
    points = sorted(report["sweep"], key=lambda point: point["min_similarity"])
    own = report["own_threshold"]
    figure = _figure(10, 4.5)
    panels = figure.subplots(1, 2, sharey=True)
    known = [p for p in points if p["accuracy"] is not None]
    for panel, key, curve in ((panels[0], "accepted", points), (panels[1], "accuracy", known)):
        x = [p[key] for p in curve]
        low, high = zip(*(p["per_hour_ci95"] for p in curve), strict=True) if curve else ((), ())
        panel.fill_between(x, low, high, color="tab:blue", alpha=0.2, label="95 % Poisson")
        panel.plot(x, [p["per_hour"] for p in curve], "o-", color="tab:blue", markersize=3)
        if own[key] is not None:
            panel.plot(own[key], own["per_hour"], "D", color="tab:red", label="own threshold")
        panel.set_xlim(-0.02, 1.02)
    panels[0].set_ylabel("false activations per hour of rest")
    panels[0].set_xlabel("gesture windows accepted")
    panels[1].set_xlabel("right of those accepted")
    panels[0].legend(fontsize=8)
    kind = "synthetic" if report["data"]["synthetic"] else "real"
    figure.suptitle(
        f"{report['package']}, {report['stage']}, tier {report['tier']}, "
        f"{report['data']['name']} ({kind}), {report['rest_hours']:.2f} h of rest",
        fontsize=9,
    )
    _save(figure, file)


def draw_shares(
    curves: dict[str, list[tuple[float, float, tuple[float, float]]]], title: str, file: Path
) -> None:
    """Accuracy against the share of the training data; points are (share, mean, 95 % interval)."""
    figure = _figure(7, 5)
    axes = figure.subplots()
    for number, (name, points) in enumerate(curves.items()):
        shares, means, intervals = zip(*points, strict=True)
        low, high = zip(*intervals, strict=True)
        axes.plot(shares, means, "o-", color=_color(number), label=name)
        axes.fill_between(shares, low, high, color=_color(number), alpha=0.12)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 1)
    axes.set_xlabel("share of the training users' paired windows")
    axes.set_ylabel("balanced accuracy, band: 95 % over users")
    axes.legend(fontsize=8)
    axes.set_title(title, fontsize=9)
    _save(figure, file)


def draw_table(report: dict[str, Any], folder: Path, rule: str = "class_means") -> list[Path]:
    """Draw what `table_matrices` gives; the files."""
    files = []
    for name, title, counts in table_matrices(report, rule):
        files.append(folder / f"{name}.png")
        draw_confusion(counts, report["protocol"]["gestures"], title, files[-1])
    return files


def table_matrices(report: dict[str, Any], rule: str) -> list[tuple[str, str, NDArray[np.int64]]]:
    """File name, title and counts (12, 12) of each row and task of `Table.json()` (NinaPro DB1).

    Folds are added up. Where all gestures compete, each gesture counts as it was decided in the
    fold in which it was unseen. rule: which decisions; a classifier has but one kind.
    """
    gestures, found = range(1, len(report["protocol"]["gestures"]) + 1), []
    kinds = {"generalised": "unseen gestures, all compete"}
    for row in report["rows"]:
        what = f"{row['method']}, tier {row['tier']}, {report['data']}"
        for task in ("unseen", "seen", "generalised"):
            rules = row.get(task, {})
            part = rules.get(rule) or rules.get("classifier")
            if not part:
                continue
            counts = np.zeros((len(gestures), len(gestures)), np.int64)
            for fold, decided in part["confusion"].items():
                unseen = np.isin(gestures, [int(number) for number in fold.split("-")])
                kept = unseen if task == "generalised" else np.ones_like(unseen)
                counts += np.array(decided) * kept[:, None]
            title = f"{what}, {len(report['users'])} users: {kinds.get(task, f'{task} gestures')}"
            found.append((_file_name(f"{row['tier']}-{row['method']}-{task}"), title, counts))
    return found


def _file_name(text: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in text)


def _plane(points: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    if len(points) < _MIN_FOR_TSNE:
        return np.asarray(PCA(2, random_state=seed).fit_transform(points))
    return np.asarray(
        TSNE(2, metric="cosine", init="random", random_state=seed).fit_transform(points)
    )


def _nearest_query(queries: NDArray[np.float32], poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, M, D) -> (N, D): of each window the query with the highest cosine to a pose."""
    if queries.ndim == 2:
        return _unit(queries)
    unit = _unit(queries)  # N M D
    best = np.array([(window @ poses.T).max(axis=1).argmax() for window in unit])
    return np.asarray(unit[np.arange(len(unit)), best])


def _unit(vectors: NDArray[Any]) -> NDArray[np.float64]:
    rows = np.asarray(vectors, np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))


def _color(number: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab20"](number % 20)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: "Figure", file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)

"""Which layer costs what: only one quantizer is switched on, everything else computes in float."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.benchmarks.evaluation import study_of
from embridge.device.decision import Gallery
from embridge.device.errors import ConfigError
from embridge.device.package import Package, read_package
from embridge.quantize.layers import qnn, quantized_twin
from embridge.quantize.mixed import one_at_a_time
from embridge.quantize.quantizer import QuantizedEncoder
from embridge.quantize.recipes import Recipe
from embridge.quantize.stages import quantized_encoder
from embridge.training.evaluate import TestSet, cosine, make_test_set, predict, zero_shot
from embridge.training.models import batched
from embridge.training.plan import StudyPlan
from embridge.training.study import Progress, read_all
from embridge.training.watch import WatchEncoder

LOW_BITS = 4  # also measured, for weights


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What one quantizer alone costs.

    layer: path in the encoder; part: "weights", "activation" or "everything"
    cosine_lost: 1 - mean cosine to the float embedding
    seen_points, unseen_points: change of balanced accuracy against float, in percentage points
    same_decision: share of windows with float's gesture when all gestures compete
    """

    layer: str
    part: str
    bits: int
    cosine_lost: float
    seen_points: float | None
    unseen_points: float | None
    same_decision: float


def bench_sensitivity(
    path: Path, data: Path, limit: int | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """`embridge bench sensitivity`: rows for a package's `watch` encoder on test users' windows."""
    package = read_package(path)
    quantized = quantized_encoder(package)
    if not isinstance(quantized, QuantizedEncoder):
        raise ConfigError(f"{path}: holds `base`; sensitivity is measured on `watch` packages")
    plan = StudyPlan.model_validate(package.manifest.config["plan"])
    test = make_test_set(study_of(plan, read_all(data)), "T1", limit)
    rows = sensitivity(quantized, test, package, progress)
    return {
        "package": str(path),
        "sha256": package.sha256,
        "windows": len(test.inputs),
        "test_users": list(test.windows.users),
        "tier": test.tier,
        "layers": [asdict(row) for row in rows],
    }


def sensitivity(
    quantized: QuantizedEncoder, test: TestSet, package: Package, progress: Progress | None = None
) -> list[Sensitivity]:
    """One row for each layer's weights at 8 and 4 bits and each activation, worst cosine first."""
    judge = _Judge(quantized, test, package.gallery("float"), package.manifest.decision.k)
    cases = list(_cases(quantized))
    rows = []
    for done, (layer, part, bits, encoder) in enumerate(cases):
        if progress:
            progress(done, len(cases), f"measure {layer} {part}")
        rows.append(judge.row(layer, part, bits, encoder))
    if progress:
        progress(len(cases), len(cases), "measure")
    return sorted(rows, key=lambda row: row.cosine_lost, reverse=True)


def _cases(quantized: QuantizedEncoder) -> Iterator[tuple[str, str, int, WatchEncoder]]:
    """(layer, part, bits, the encoder with only that quantizer on)."""
    twin = quantized.twin
    yield "all", "everything", max(quantized.weight_bits.values()), twin
    convolutions = {n for n, m in twin.named_modules() if isinstance(m, qnn.QuantConv2d)}
    for name, alone in one_at_a_time(twin):
        bits = quantized.weight_bits.get(name, 8)
        yield name, "weights" if name in convolutions else "activation", bits, alone
    low = quantized_twin(quantized.float_encoder, Recipe(weight_bits=LOW_BITS))
    for name, alone in one_at_a_time(low):
        if name in convolutions and quantized.weight_bits[name] != LOW_BITS:
            yield name, "weights", LOW_BITS, alone


class _Judge:
    """Holds what every row is compared with."""

    def __init__(
        self, quantized: QuantizedEncoder, test: TestSet, gallery: Gallery, k: int
    ) -> None:
        self._test, self._gallery, self._k = test, gallery, k
        self._everything = gallery.subset(test.groups["all"])
        self._float = batched(quantized.float_encoder.embed, test.inputs)
        self._decisions = predict(self._float, self._everything, k)
        self._scores = self._accuracy(self._float)

    def row(self, layer: str, part: str, bits: int, encoder: WatchEncoder) -> Sensitivity:
        """Measure one encoder."""
        found = batched(encoder.embed, self._test.inputs)
        scores = self._accuracy(found)
        points = {group: round(100 * (scores[group] - self._scores[group]), 3) for group in scores}
        same = float(np.mean(predict(found, self._everything, self._k) == self._decisions))
        return Sensitivity(
            layer=layer,
            part=part,
            bits=bits,
            cosine_lost=1 - cosine(found, self._float)["mean"],
            seen_points=points.get("seen"),
            unseen_points=points.get("unseen"),
            same_decision=same,
        )

    def _accuracy(self, found: NDArray[np.float32]) -> dict[str, float]:
        scores = zero_shot(self._test, found, self._gallery, self._k)
        return {group: score.balanced_accuracy for group, score in scores.items()}


def text(report: dict[str, Any]) -> str:
    """The rows as a table, worst first."""
    lines = [
        f"{report['windows']} windows of users never trained on ({', '.join(report['test_users'])})"
        f", tier {report['tier']}; each row: only this quantizer on, against float",
        f"{'layer':22} {'part':10} {'bits':>4} {'cosine lost':>11} {'seen':>7} {'unseen':>7} "
        f"{'same':>8}",
    ]
    for row in report["layers"]:
        seen, unseen = (
            "-" if row[key] is None else f"{row[key]:+.2f}"
            for key in ("seen_points", "unseen_points")
        )
        lines.append(
            f"{row['layer']:22} {row['part']:10} {row['bits']:4} {row['cosine_lost']:11.2e} "
            f"{seen:>7} {unseen:>7} {100 * row['same_decision']:6.2f} %"
        )
    return "\n".join(lines)


def plot(report: dict[str, Any], path: Path) -> None:
    """Bars of lost cosine and of changed unseen accuracy, one line per row; format by suffix."""
    from matplotlib.figure import Figure

    rows = report["layers"][::-1]
    names = [f"{row['layer']} {row['part']} {row['bits']} bit" for row in rows]
    figure = Figure(figsize=(11, 0.28 * len(rows) + 1.5), layout="constrained")
    lost, points = figure.subplots(1, 2, sharey=True)
    lost.barh(names, [max(row["cosine_lost"], 1e-9) for row in rows])
    lost.set(xscale="log", xlabel="1 - mean cosine to float")
    points.barh(names, [row["unseen_points"] or 0.0 for row in rows])
    points.set(xlabel="change of unseen accuracy, percentage points")
    figure.savefig(path)

"""Two stages on the same windows: codes, cosine, decisions, the worst windows, the limits kept."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from embridge.device.manifest import INT8_STAGES, ParityLimits

TORCH_STAGES = ("float", "fakequant", "graph")
WORST = 10
WINDOWS_FOR_PERCENTILE = 500  # of fewer, the 1st percentile is a window or two


@dataclass(frozen=True)
class StageOutput:
    """What one stage gives for some windows.

    windows: (N,) numbers, ascending; queries: (N, D), or (N, M, D) for M of them a window, int8
    codes or float32; decisions: (N,) index into the labels, by the package's vote over all gestures
    """

    stage: str
    windows: NDArray[np.int64]
    queries: NDArray[np.generic]
    decisions: NDArray[np.int64]
    zero_point: int

    @property
    def integer(self) -> bool:
        """Whether `queries` are codes."""
        return self.queries.dtype == np.int8

    def only(self, windows: NDArray[np.int64]) -> "StageOutput":
        """The same for a part of its windows."""
        rows = np.searchsorted(self.windows, windows)
        return StageOutput(
            self.stage, windows, self.queries[rows], self.decisions[rows], self.zero_point
        )

    def values(self) -> NDArray[np.float64]:
        """(N, M * D) embeddings, those of codes without their scale: only directions count."""
        return self.queries.reshape(len(self.queries), -1).astype(np.float64) - self.zero_point


@dataclass(frozen=True)
class Pair:
    """Two stages on the N windows that both have seen; arrays have one entry per window.

    lsb: (N, M * D) absolute difference of codes, None unless both are int8
    """

    a: StageOutput
    b: StageOutput
    cosine: NDArray[np.float64]
    lsb: NDArray[np.int16] | None

    @property
    def same(self) -> NDArray[np.bool_]:
        """(N,) whether both decide alike."""
        return np.asarray(self.a.decisions == self.b.decisions)

    @property
    def codes_differ_share(self) -> float:
        """Share of codes that differ; 0 for a pair without codes."""
        return 0.0 if self.lsb is None else float((self.lsb > 0).mean())

    @property
    def max_lsb(self) -> int:
        """Largest difference of codes; 0 for a pair without codes."""
        return 0 if self.lsb is None else int(self.lsb.max())

    def worst(self, count: int = WORST) -> NDArray[np.int64]:
        """Rows of the windows that differ most, by cosine, then by codes; none that is equal."""
        differing = np.zeros(len(self.cosine)) if self.lsb is None else (self.lsb > 0).sum(axis=1)
        order = np.lexsort((-differing, self.cosine))[:count]
        equal = differing[order] == 0 if self.lsb is not None else self.cosine[order] == 1
        return np.asarray(order[~equal])


def compare(a: StageOutput, b: StageOutput) -> Pair:
    """Compare two stages on the windows that both have seen."""
    common = np.intersect1d(a.windows, b.windows)
    a, b = a.only(common), b.only(common)
    x, y = a.values(), b.values()
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    cosine = (x * y).sum(axis=1) / np.maximum(norms, 1e-12)
    if not (a.integer and b.integer):
        return Pair(a, b, cosine, None)
    lsb = np.abs(a.queries.astype(np.int16) - b.queries.astype(np.int16))
    return Pair(a, b, cosine, lsb.reshape(len(lsb), -1))


def pair_names(stages: list[str]) -> list[tuple[str, str]]:
    """Which stages are compared, each pair once.

    float with fakequant, fakequant with graph, graph with every int8 artefact, every int8 artefact
    for this machine with the next one, and float with every artefact.
    """
    artefacts = [stage for stage in stages if stage not in TORCH_STAGES]
    integer = [stage for stage in artefacts if stage in INT8_STAGES]
    return [
        ("float", "fakequant"),
        ("fakequant", "graph"),
        *(("graph", stage) for stage in integer),
        *pairwise(stage for stage in integer if not _is_mcu(stage)),
        *(("float", stage) for stage in artefacts),
    ]


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that a pair does not keep."""

    a: str
    b: str
    what: str
    value: float
    limit: float


def excesses(pair: Pair, limits: ParityLimits) -> list[Excess]:
    """The limits that a pair does not keep; a value that is not a number keeps none."""
    return [
        Excess(pair.a.stage, pair.b.stage, what, value, limit)
        for what, value, limit, at_least in _checks(pair, limits)
        if not (value >= limit if at_least else value <= limit)
    ]


def _is_mcu(stage: str) -> bool:
    return stage.startswith(("cortex-", "ethos-"))


def _kind_limits(pair: Pair, limits: ParityLimits) -> tuple[int, float]:
    """Largest difference of codes and least share of equal decisions for two int8 stages."""
    if _is_mcu(pair.a.stage) or _is_mcu(pair.b.stage):
        return limits.mcu_max_lsb, limits.mcu_same_top1
    if pair.a.stage == "graph":
        return limits.graph_max_lsb, limits.graph_same_top1
    return limits.backends_max_lsb, limits.backends_same_top1


def _checks(pair: Pair, limits: ParityLimits) -> Iterator[tuple[str, float, float, bool]]:
    """(what, value, limit, whether the limit is the least value rather than the largest)."""
    a, b = pair.a, pair.b
    if (a.stage, b.stage) == ("fakequant", "graph"):
        share = limits.fakequant_graph_codes_differ_share
        yield "share of codes that differ", pair.codes_differ_share, share, False
    elif a.integer and b.integer:
        largest, same = _kind_limits(pair, limits)
        yield "largest difference of codes", pair.max_lsb, largest, False
        yield "same decision", float(pair.same.mean()), same, True
    elif a.stage == "float" and b.integer:
        yield "mean cosine", float(pair.cosine.mean()), limits.cosine_to_float_mean, True
        if len(pair.cosine) >= WINDOWS_FOR_PERCENTILE:
            p01 = float(np.percentile(pair.cosine, 1))
            yield "1st percentile of cosine", p01, limits.cosine_to_float_p01, True
    elif a.stage == "float":
        yield "smallest cosine", float(pair.cosine.min()), limits.float_cosine_min, True

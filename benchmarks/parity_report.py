"""Parity as JSON, and as a table for people."""

from typing import Any

import numpy as np

from embridge.benchmarks.parity_pairs import Excess, Pair

SCHEMA = 1


def pair_json(
    pair: Pair,
    users: list[str],
    gestures: list[str],
    labels: tuple[str, ...],
    divergence: dict[str, Any] | None,
) -> dict[str, Any]:
    """One pair; users, gestures: of all windows, by window number; labels: what decisions index."""
    of_pair = np.array([gestures[w] for w in pair.a.windows])
    return {
        "a": pair.a.stage,
        "b": pair.b.stage,
        "windows": len(pair.cosine),
        "codes_differ": _codes(pair),
        "cosine": {
            "mean": float(pair.cosine.mean()),
            "p01": float(np.percentile(pair.cosine, 1)),
            "min": float(pair.cosine.min()),
        },
        "same_top1": float(pair.same.mean()),
        "same_top1_per_class": {
            label: float(pair.same[of_pair == label].mean()) for label in labels if label in of_pair
        },
        "worst_windows": [
            {
                "window": int(pair.a.windows[row]),
                "user": users[pair.a.windows[row]],
                "gesture": gestures[pair.a.windows[row]],
                "cosine": float(pair.cosine[row]),
                "codes_differ": None if pair.lsb is None else int((pair.lsb[row] > 0).sum()),
                "decisions": [labels[side.decisions[row]] for side in (pair.a, pair.b)],
            }
            for row in pair.worst()
        ],
        "first_diverging_layer": divergence,
    }


def _codes(pair: Pair) -> dict[str, Any] | None:
    """Counts and shares of codes by how many LSB they differ; None for a pair without codes."""
    if pair.lsb is None:
        return None
    counts = [int((pair.lsb == lsb).sum()) for lsb in range(3)]
    counts.append(pair.lsb.size - sum(counts))
    names = ("lsb_0", "lsb_1", "lsb_2", "lsb_more")
    return {
        "codes": pair.lsb.size,
        "counts": dict(zip(names, counts, strict=True)),
        "shares": {n: c / pair.lsb.size for n, c in zip(names, counts, strict=True)},
        "share": pair.codes_differ_share,
        "max_lsb": pair.max_lsb,
    }


def failure_line(excess: Excess, divergence: dict[str, Any] | None) -> str:
    """One line: the pair, the value, the limit, and the layer with its operator."""
    found = f"{excess.a} -> {excess.b}: {excess.what} {excess.value:.6g}, limit {excess.limit:.6g}"
    if divergence is None:
        return found
    if divergence["layer"] is None:
        return f"{found}; {divergence['reason']}"
    where = f"{divergence['layer']} ({divergence['operator']})"
    if divergence["criterion"] == "largest loss":
        return f"{found}; most is lost at {where}, {divergence['angle_added_deg']:.2f} degrees"
    if divergence["codes_differ"] is None:
        return f"{found}; first at {where}"
    share, lsb = divergence["codes_differ"], divergence["max_lsb"]
    return f"{found}; first at {where}, {100 * share:.2g} % of its codes by up to {lsb}"


def text(result: dict[str, Any]) -> str:
    """A compact table, failures last."""
    what = f"{result['windows']} windows of {', '.join(result['users'])}, tier {result['tier']}"
    rows = [
        f"{result['package']} ({result['sha256'][:12]}…), {what}, from {result['source']}",
        f"{'pair':36} {'windows':>7} {'codes differ':>12} {'max':>3} "
        f"{'cosine mean':>11} {'p01':>8} {'min':>8} {'same top-1':>10}  first layer",
    ]
    rows += [_row(pair) for pair in result["pairs"]]
    rows += [f"not run: {stage}: {why}" for stage, why in result["stages_skipped"].items()]
    if result["passed"]:
        return "\n".join([*rows, "passed: every pair keeps its limits"])
    failed = len(result["failures"])
    return "\n".join([*rows, f"failed in {failed} points:", *result["failures"]])


def _row(pair: dict[str, Any]) -> str:
    codes, cosine = pair["codes_differ"], pair["cosine"]
    share = f"{100 * codes['share']:.4f} %" if codes else "-"
    largest = codes["max_lsb"] if codes else "-"
    layer = pair["first_diverging_layer"]
    return (
        f"{pair['a'] + ' -> ' + pair['b']:36} {pair['windows']:7} {share:>12} {largest:>3} "
        f"{cosine['mean']:11.6f} {cosine['p01']:8.5f} {cosine['min']:8.5f} "
        f"{pair['same_top1']:10.5f}  {layer['layer'] or '-' if layer else ''}"
    ).rstrip()

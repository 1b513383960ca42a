"""`embridge audit`: what is in a package's artefacts, read from their bytes and from their runs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embridge.device.errors import ConfigError
from embridge.device.manifest import RUNTIME_STAGES, STAGE_FILES
from embridge.device.package import Package, read_package
from embridge.quantize.audit import require_integer
from embridge.quantize.contract import CONTRACTS, weighted_count
from embridge.quantize.errors import LoweringError
from embridge.quantize.export import export_graph
from embridge.quantize.kernels import require_integer_kernels, run_kernels
from embridge.quantize.stages import quantized_encoder
from embridge.quantize.targets.table import TARGETS, audit


def inspect_package(path: Path, stages: Sequence[str] = (), *, run: bool = False) -> dict[str, Any]:
    """Operators, facts and, with `run`, kernels of each artefact, or of the `stages` named.

    `failures` has a line for every integer stage that breaks its encoder's contract. Raises
    ConfigError for a stage that the package does not hold.
    """
    package = read_package(path)
    held = [stage for stage in package.manifest.stages if stage in TARGETS]
    if unknown := [stage for stage in stages if stage not in held]:
        raise ConfigError(
            f"{path.name}: expected stages out of {', '.join(held)}, got {', '.join(unknown)}; "
            "lower the run to them first"
        )
    weighted = weighted_count(export_graph(quantized_encoder(package).twin))
    results = package.manifest.results
    inspected, failures = {}, []
    for stage in stages or held:
        inspected[stage], failed = _inspect(package, stage, weighted, run)
        failures += failed
    shared = {key: results[key] for key in ("macs", "integer_share_of_arithmetic")}
    return {
        "package": str(path),
        "sha256": package.sha256,
        "encoder": package.manifest.encoder,
        **shared,
        "float_operators": results["float_operators"],
        "stages": inspected,
        "failures": failures,
    }


def _inspect(
    package: Package, stage: str, weighted: int, run: bool
) -> tuple[dict[str, Any], list[str]]:
    artefact, contract = package.artefact(stage), CONTRACTS[package.manifest.encoder]
    rows, failures = audit(stage, artefact), []
    checks: list[Callable[[], None]] = [lambda: require_integer(stage, rows, contract, weighted)]
    found: dict[str, Any] = {
        "file": STAGE_FILES[stage],
        "bytes": len(artefact),
        "facts": package.manifest.results["facts"].get(stage, {}),
        "operators": [asdict(row) for row in rows],
    }
    if run and stage in RUNTIME_STAGES:
        kernels = run_kernels(stage, artefact, package.golden()["windows"][0])
        found["kernels"] = [asdict(kernel) for kernel in kernels]
        if contract.whole:
            checks.append(lambda: require_integer_kernels(stage, kernels))
    for check in checks if TARGETS[stage].integer else []:
        try:
            check()
        except LoweringError as error:
            failures.append(str(error))
    return found | {"integer": TARGETS[stage].integer and not failures}, failures


def text(result: dict[str, Any]) -> str:
    """The operators of each stage for people, failures last."""
    share = 100 * result["integer_share_of_arithmetic"]
    lines = [
        f"{result['package']}: encoder {result['encoder']}, {result['macs']:,} MACs a window, "
        f"{share:.2f} % of the arithmetic integer in int8 stages"
    ]
    lines += [
        f"  float by contract: {row['count']} {row['op']}, "
        f"{100 * row['share_of_arithmetic']:.2f} % of the arithmetic"
        for row in result["float_operators"]
    ]
    for stage, found in result["stages"].items():
        kind = "integer" if found["integer"] else "float"
        lines.append(f"\n{stage}: {kind}, {found['file']}, {found['bytes']:,} bytes")
        lines += [f"  {key} {value}" for key, value in found["facts"].items()]
        for row in found["operators"]:
            mark = " " if row["integer"] else "f"
            lines.append(
                f"  {mark} {row['count']:3} {row['op']} ({row['dtype_in']}) -> {row['dtype_out']}"
            )
        for kernel in found.get("kernels", []):
            spent = "" if kernel["mean_us"] is None else f", {kernel['mean_us']:.1f} us"
            lines.append(f"    ran {kernel['name']} ({kernel['types']}){spent}")
    return "\n".join([*lines, *(f"FAILED {line}" for line in result["failures"])])

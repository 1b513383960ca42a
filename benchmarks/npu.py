"""`embridge bench npu`: what the compilers said of a package's Ethos-U and Cortex-M stages.

Nothing is run or compiled here: the figures were written into the package when it was lowered.
Cycles and times are a compiler's estimates and never hardware's.
"""

from typing import Any

from embridge.device.errors import ConfigError
from embridge.device.manifest import CORTEX_CPUS, ETHOS_NPUS, STAGE_FILES
from embridge.device.package import Package

CORTEX_STAGES = tuple(f"cortex-{cpu}" for cpu in CORTEX_CPUS)
ROUTES = {f"ethos-{npu}": f"ethos-{npu}-executorch" for npu in ETHOS_NPUS}  # tflite: executorch
COMPARED = ("total_cycles", "inference_us", "sram_bytes", "flash_bytes", "dram_bytes", "bytes")
COLUMNS = {
    "route": "route",
    "NPU cycles": "npu_cycles",
    "all cycles": "total_cycles",
    "us": "inference_us",
    "SRAM B": "sram_bytes",
    "flash B": "flash_bytes",
    "DRAM B": "dram_bytes",
    "arena B": "arena_bytes",
    "constants B": "constant_bytes",
    "MACs": "macs",
    "on NPU": "operators_npu",
    "on CPU": "operators_cpu",
    "file B": "bytes",
}


def npu_table(package: Package) -> dict[str, Any]:
    """One row for each Ethos-U and Cortex-M stage of a package, both routes of an NPU in turn.

    A row holds the facts of its stage, `route`, and `bytes` of its file; `estimated` and `model`
    say what its cycles and times are. `executorch_over_tflite`: for each NPU with both routes, the
    quotient of their figures, None where the TFLite route has 0. Raises ConfigError when the
    package holds no such stage.
    """
    stages = [*CORTEX_STAGES, *(stage for routes in ROUTES.items() for stage in routes)]
    rows = {stage: _row(package, stage) for stage in stages if stage in package.manifest.stages}
    if not rows:
        raise ConfigError(
            f"{package.path.name}: expected a stage for Ethos-U or Cortex-M, got "
            f"{', '.join(package.manifest.stages)}; lower the run with `--to ethos-u,cortex-m`"
        )
    ratios = {
        tflite: {name: _ratio(rows[executorch][name], rows[tflite][name]) for name in COMPARED}
        for tflite, executorch in ROUTES.items()
        if tflite in rows and executorch in rows
    }
    return {
        "package": package.path.name,
        "sha256": package.sha256,
        "stages": rows,
        "executorch_over_tflite": ratios,
    }


def text(table: dict[str, Any]) -> str:
    """The table for people, with what was left out as `-`."""
    rows = [["stage", *COLUMNS]]
    for stage, row in table["stages"].items():
        rows.append([stage, *(_cell(row.get(name)) for name in COLUMNS.values())])
    for npu, ratios in table["executorch_over_tflite"].items():
        ratio = {name: f"x {value:.2f}" for name, value in ratios.items() if value is not None}
        cells = [ratio.get(name, "") for name in COLUMNS.values()]
        rows.append([npu, "executorch / tflite", *cells[1:]])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in rows
    ]
    return "\n".join([*lines, "", *_notes(table["stages"])])


def _row(package: Package, stage: str) -> dict[str, Any]:
    results = package.manifest.results
    if stage not in results.get("facts", {}) or stage not in results.get("operators", {}):
        raise ConfigError(
            f"{package.path.name}: expected facts and operators of {stage} in the manifest, got "
            "none; build the package again with `embridge lower`"
        )
    row = {
        "route": "executorch" if STAGE_FILES[stage].endswith(".pte") else "tflite",
        "bytes": package.manifest.files[STAGE_FILES[stage]].bytes,
        **results["facts"][stage],
    }
    if stage in CORTEX_STAGES:  # every operator is a kernel for the CPU
        row["operators_cpu"] = sum(entry["count"] for entry in results["operators"][stage])
    return row


def _ratio(over: float, under: float) -> float | None:
    return round(over / under, 4) if under else None


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value or "-")


def _notes(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Which model each estimate comes from, and what the exact figures include."""
    notes = []
    for stage, row in rows.items():
        if row["estimated"]:
            notes.append(f"{stage}: estimated by {row['model']}; not measured on hardware")
        elif "arena_includes" in row:
            notes.append(f"{stage}: exact; the arena holds {row['arena_includes']}")
    return notes

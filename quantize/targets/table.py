"""The table of targets. A new one is a file beside this and a row here; the file it writes in a
package is named in `device.manifest.STAGE_FILES`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.export import ExportedProgram

from embridge.device.errors import ConfigError
from embridge.quantize.audit import AuditRow, Call, count_rows
from embridge.quantize.silence import quiet
from embridge.quantize.targets import tflite, xnnpack


@dataclass(frozen=True, slots=True)
class Target:
    """How to make and read the artefact of one stage.

    family: name that selects all its stages, `embridge lower --to FAMILY`
    integer: made from the quantized graph, and must not compute in float
    """

    family: str
    integer: bool
    lower: Callable[[ExportedProgram], bytes]
    calls: Callable[[bytes], Iterator[Call]]
    facts: Callable[[bytes], dict[str, Any]]


TARGETS = {
    "executorch-fp32": Target("executorch", False, xnnpack.lower, xnnpack.calls, xnnpack.facts),
    "executorch-int8": Target("executorch", True, xnnpack.lower, xnnpack.calls, xnnpack.facts),
    "tflite-fp32": Target("tflite", False, tflite.lower_float, tflite.calls, tflite.facts),
    "tflite-int8": Target("tflite", True, tflite.lower, tflite.calls, tflite.facts),
}


def audit(stage: str, artefact: bytes) -> tuple[AuditRow, ...]:
    """The operators of an artefact; raises LoweringError for a delegate that cannot be read."""
    with quiet():
        return count_rows(TARGETS[stage].calls(artefact))


def stages_of(targets: Iterable[str]) -> list[str]:
    """Stages that the names of stages and families select, in the table's order, each once."""
    wanted = set(targets)
    known = {*TARGETS, *(target.family for target in TARGETS.values())}
    if not wanted or wanted - known:
        raise ConfigError(
            f"expected targets out of {', '.join(sorted(known))}, got "
            f"{', '.join(sorted(wanted)) or 'none'}; name a stage, or a family for all its stages"
        )
    return [stage for stage, target in TARGETS.items() if {stage, target.family} & wanted]

"""The table of targets. A new one is a file beside this and a row here; the file it writes in a
package is named in `device.manifest.STAGE_FILES`.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.export import ExportedProgram

from embridge.device.errors import ConfigError
from embridge.device.manifest import CORTEX_CPUS, ETHOS_NPUS
from embridge.quantize.audit import AuditRow, Call, count_rows
from embridge.quantize.silence import quiet
from embridge.quantize.targets import cortex_m, ethos_u, onnx, tflite, xnnpack

Made = tuple[bytes, dict[str, Any]]  # an artefact, and what is known of it, units in the keys


@dataclass(frozen=True, slots=True)
class Target:
    """How to make and read the artefact of one stage.

    family, wider: names that select all their stages, `embridge lower --to FAMILY`
    integer: made from the quantized graph, and must not compute in float
    lower: gives the artefact and its facts; what a compiler estimates is known only while it runs
    """

    family: str
    integer: bool
    lower: Callable[[ExportedProgram], Made]
    calls: Callable[[bytes], Iterator[Call]]
    wider: str | None = None

    def names(self, stage: str) -> set[str]:
        """What selects this target, which makes `stage`."""
        return {stage, self.family} | ({self.wider} if self.wider else set())


def with_facts(
    lower: Callable[[ExportedProgram], bytes], facts: Callable[[bytes], dict[str, Any]]
) -> Callable[[ExportedProgram], Made]:
    """A backend whose facts are all in the artefact's own bytes."""

    def made(graph: ExportedProgram) -> Made:
        artefact = lower(graph)
        with quiet():
            return artefact, facts(artefact)

    return made


_XNNPACK = with_facts(xnnpack.lower, xnnpack.facts)
_ONNX = with_facts(onnx.lower, onnx.facts)
TARGETS = {
    "executorch-fp32": Target("executorch", False, _XNNPACK, xnnpack.calls),
    "executorch-int8": Target("executorch", True, _XNNPACK, xnnpack.calls),
    "tflite-fp32": Target(
        "tflite", False, with_facts(tflite.lower_float, tflite.facts), tflite.calls
    ),
    "tflite-int8": Target("tflite", True, with_facts(tflite.lower, tflite.facts), tflite.calls),
    "onnx-fp32": Target("onnx", False, _ONNX, onnx.calls),
    "onnx-int8": Target("onnx", True, _ONNX, onnx.calls),
}
for _cpu in CORTEX_CPUS:
    TARGETS[f"cortex-{_cpu}"] = Target(
        "cortex-m", True, with_facts(partial(cortex_m.lower, _cpu), cortex_m.facts), cortex_m.calls
    )
for _npu in ETHOS_NPUS:
    _by_tflite, _by_executorch = (
        partial(route, _npu) for route in (ethos_u.lower_tflite, ethos_u.lower_executorch)
    )
    TARGETS[f"ethos-{_npu}"] = Target(
        f"ethos-{_npu}", True, _by_tflite, tflite.calls, wider="ethos-u"
    )
    TARGETS[f"ethos-{_npu}-executorch"] = Target(
        f"ethos-{_npu}", True, _by_executorch, ethos_u.executorch_calls, wider="ethos-u"
    )


def audit(stage: str, artefact: bytes) -> tuple[AuditRow, ...]:
    """The operators of an artefact; raises LoweringError for a delegate that cannot be read."""
    with quiet():
        return count_rows(TARGETS[stage].calls(artefact))


def stages_of(targets: Iterable[str]) -> list[str]:
    """Stages that the names of stages and families select, in the table's order, each once."""
    wanted = set(targets)
    known = {name for stage, target in TARGETS.items() for name in target.names(stage)}
    if not wanted or wanted - known:
        raise ConfigError(
            f"expected targets out of {', '.join(sorted(known))}, got "
            f"{', '.join(sorted(wanted)) or 'none'}; name a stage, or a family for all its stages"
        )
    return [stage for stage, target in TARGETS.items() if target.names(stage) & wanted]

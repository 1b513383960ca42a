"""Quantized encoder -> audited artefacts, one per stage."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram

from embridge.quantize.audit import AuditRow, require_integer
from embridge.quantize.base_layers import WindowEncoder
from embridge.quantize.base_quantizer import Quantized, encoder_name
from embridge.quantize.contract import CONTRACTS, WATCH, Contract, weighted_count
from embridge.quantize.export import export_graph
from embridge.quantize.graph_check import require_quantized
from embridge.quantize.silence import quiet
from embridge.quantize.targets.table import TARGETS, audit, stages_of
from embridge.training.study import Progress
from embridge.training.watch import WatchEncoder


@dataclass(frozen=True, slots=True)
class Artefact:
    """What one stage runs: the bytes, the operators in them, and what the tool chain says of them.

    facts: with units in the keys; figures that a compiler estimates are marked `estimated`
    """

    data: bytes
    audit: tuple[AuditRow, ...]
    facts: dict[str, Any]


def lower_all(
    encoder: Quantized, targets: Iterable[str], *, progress: Progress | None = None
) -> dict[str, Artefact]:
    """Lower to every stage that `targets` names, by stage or by family ("executorch", "tflite").

    The int8 stages start from one exported graph. Raises ConfigError for an unknown target or one
    that the encoder does not fit, and LoweringError when an operator of an int8 stage stayed in
    float that is integer by the encoder's contract.
    """
    contract, stages = CONTRACTS[encoder_name(encoder)], stages_of(targets)
    for stage in stages:
        contract.require_stage(stage)
    quantized = export_graph(encoder.twin)
    float_graph = export_float_graph(encoder.float_encoder)
    artefacts = {}
    for done, stage in enumerate(stages):
        if progress:
            progress(done, len(stages), f"lower to {stage}")
        graph = quantized if TARGETS[stage].integer else float_graph
        artefacts[stage] = lower_stage(stage, graph, contract)
    return artefacts


def lower_stage(stage: str, graph: ExportedProgram, contract: Contract = WATCH) -> Artefact:
    """Lower one graph for one stage; an integer stage is checked before and after."""
    target = TARGETS[stage]
    if target.integer:
        require_quantized(stage, graph, contract)
    data, facts = target.lower(graph)
    rows = audit(stage, data)
    if target.integer:
        require_integer(stage, rows, contract, weighted_count(graph))
    return Artefact(data, rows, facts)


def export_float_graph(encoder: WatchEncoder | WindowEncoder) -> ExportedProgram:
    """The graph of one window in float32, (1, C, 1, T) -> (1, D, 1, 1), or (1, M * D)."""
    window = torch.zeros(1, encoder.shape.channels, 1, encoder.shape.window)
    with quiet(), torch.no_grad():
        return torch.export.export(encoder, (window,), strict=False)

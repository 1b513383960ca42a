"""What an artefact really computes: its operators with their dtypes, read from its own bytes.

Tool chains fall back to float without a word, so "int8" is decided here: every operator of an
integer artefact must read and write integers. Only an artefact with float ends may convert from
float at its input and to float at its output. A contract may ask this only of the operators that
multiply by weights. The readers of the bytes are the targets' `calls`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from embridge.quantize.contract import WATCH, WEIGHTED_KERNELS, Contract
from embridge.quantize.errors import LoweringError

INTEGERS = frozenset(
    {
        "bool",
        "int8",
        "uint8",
        "int16",
        "int32",
        "int64",
        "qint8",
        "quint8",
        "qint32",
        "qcint4",
        "qcint8",
        "qcint32",
    }
)  # q: with a scale, qc: with one per channel
CONVERSIONS = frozenset(
    {
        "Convert",
        "QuantizeLinear",
        "DequantizeLinear",
        "cortex_m::quantize_per_tensor",
        "cortex_m::dequantize_per_tensor",
        "quantized_decomposed::quantize_per_tensor",
        "quantized_decomposed::dequantize_per_tensor",
    }
)


@dataclass(frozen=True, slots=True)
class AuditRow:
    """Equal operators of an artefact: what they read and write, and how many there are.

    dtype_in: of all operands, constants included, in order
    integer: nothing in it is float, or it converts at an end of the artefact
    """

    op: str
    dtype_in: str
    dtype_out: str
    count: int
    integer: bool


@dataclass(frozen=True, slots=True)
class Value:
    """An operand of a call; external: an input or output of the artefact."""

    dtype: str
    external: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One operator as the artefact runs it."""

    op: str
    inputs: list[Value]
    outputs: list[Value]

    def is_integer(self) -> bool:
        """Nothing float in it, unless it converts at an end of the artefact."""
        floats = [v for v in (*self.inputs, *self.outputs) if v.dtype not in INTEGERS]
        return not floats or (self.op in CONVERSIONS and all(v.external for v in floats))


def count_rows(calls: Iterable[Call]) -> tuple[AuditRow, ...]:
    """Calls with equal ones counted, in the order they first run."""
    rows = Counter(
        (
            call.op,
            ", ".join(v.dtype for v in call.inputs),
            ", ".join(v.dtype for v in call.outputs),
            call.is_integer(),
        )
        for call in calls
    )
    return tuple(AuditRow(op, i, o, count, ok) for (op, i, o, ok), count in rows.items())


def require_integer(
    stage: str, rows: tuple[AuditRow, ...], contract: Contract = WATCH, weighted: int = 0
) -> None:
    """Raise LoweringError, naming them, when operators compute in float against the contract.

    weighted: how many operators of the graph multiply by weights; fewer of them in the artefact
    mean that the backend made something else of the others
    """
    bound = [row for row in rows if contract.whole or row.op in WEIGHTED_KERNELS]
    floats = [f"{r.count} {r.op} ({r.dtype_in} -> {r.dtype_out})" for r in bound if not r.integer]
    if floats:
        raise LoweringError(
            f"{stage}: expected {contract.promise}, but {'; '.join(floats)} stayed in float; "
            "give each a quantized input and output in the encoder, or take it out of the encoder"
        )
    found = sum(row.count for row in bound if row.op in WEIGHTED_KERNELS)
    if not contract.whole and found < weighted:
        raise LoweringError(
            f"{stage}: expected {weighted} integer linears and convolutions as in the graph, got "
            f"{found}; the backend turned the others into another operator: see the operators of "
            "the artefact"
        )

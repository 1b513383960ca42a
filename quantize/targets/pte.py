"""Reading an ExecuTorch program: its kernel calls, its delegates, its planned memory."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from embridge.quantize.audit import Call, Value
from embridge.quantize.errors import LoweringError

Delegates = Mapping[str, Callable[[bytes], Iterator[Call]]]  # delegate's id -> reader of its bytes
DTYPES = {"byte": "uint8", "char": "int8", "short": "int16", "int": "int32", "long": "int64"}


def read_program(artefact: bytes) -> tuple[Any, Any]:
    """(program, its one execution plan) as ExecuTorch's own schema classes."""
    from executorch.exir._serialize import _deserialize_pte_binary

    program = _deserialize_pte_binary(artefact).program
    (plan,) = program.execution_plan
    return program, plan


def program_calls(artefact: bytes, delegates: Delegates) -> Iterator[Call]:
    """All operators in order, those inside delegates included.

    Raises LoweringError for a delegate that `delegates` cannot read.
    """
    from executorch.exir.schema import DelegateCall, KernelCall

    program, plan = read_program(artefact)
    for instruction in (i for chain in plan.chains for i in chain.instructions):
        call = instruction.instr_args
        if isinstance(call, KernelCall):
            yield _kernel_call(plan, call)
        elif isinstance(call, DelegateCall):
            delegate = plan.delegates[call.delegate_index]
            if delegate.id not in delegates:
                raise LoweringError(f"delegate {delegate.id}: cannot tell what it computes")
            yield Call(f"delegate {delegate.id}", [], [])
            payload = program.backend_delegate_data[delegate.processed.index].data
            yield from delegates[delegate.id](payload)


def arena_bytes(artefact: bytes) -> int:
    """Planned bytes for all activations; constants and the runtime itself are not in it."""
    _, plan = read_program(artefact)
    return int(sum(plan.non_const_buffer_sizes))


def _kernel_call(plan: Any, call: Any) -> Call:
    """An operator outside delegates; the last tensor argument is its output."""
    from executorch.exir.schema import Tensor

    tensors = [
        Value(_dtype(plan.values[i].val), i in (*plan.inputs, *plan.outputs))
        for i in call.args
        if isinstance(plan.values[i].val, Tensor)
    ]
    return Call(plan.operators[call.op_index].name, tensors[:-1], tensors[-1:])


def _dtype(tensor: Any) -> str:
    name: str = tensor.scalar_type.name.lower()
    return DTYPES.get(name, name)

"""A compiler's refusal as one line."""

from collections.abc import Callable
from typing import TypeVar

from embridge.quantize.errors import LoweringError
from embridge.quantize.silence import quiet

T = TypeVar("T")


def run_compiler(stage: str, compiler: Callable[[], T], advice: str) -> T:
    """Run a compiler quietly; LoweringError with what it said and `advice` when it refuses.

    The Arm tool chains raise any kind of exception, and bare ones around the one that tells.
    """
    with quiet():
        try:
            return compiler()
        except Exception as error:
            refusal = error
    told: BaseException = refusal
    while told.__cause__ is not None:
        told = told.__cause__
    raise LoweringError(
        f"{stage}: the compiler refused the encoder ({' '.join(str(told).split())}); {advice}"
    ) from refusal

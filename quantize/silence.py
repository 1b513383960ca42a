"""Keep third-party tools quiet while they run, and lose nothing when they fail."""

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TextIO


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings, log records and writes to stdout and stderr, those of C++ included.

    When the block raises, what was held back is written to stderr before the error goes on.
    """
    with tempfile.TemporaryFile() as held:
        try:
            with ExitStack() as stack:
                stack.enter_context(warnings.catch_warnings(action="ignore"))
                stack.enter_context(_no_log_records())
                for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
                    stack.enter_context(_redirected(descriptor, held.fileno(), stream))
                yield
        except BaseException:
            held.seek(0)
            sys.stderr.write(held.read().decode(errors="replace"))
            raise


@contextmanager
def _no_log_records() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _redirected(descriptor: int, target: int, stream: TextIO) -> Iterator[None]:
    """Point a file descriptor elsewhere; `stream` is the Python object that buffers for it."""
    stream.flush()
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(saved, descriptor)
        os.close(saved)

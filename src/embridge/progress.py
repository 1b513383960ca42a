"""Progress on stderr: done/total, rate, ETA; plain lines every few seconds off a terminal."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

Report = Callable[[int, int, str], None]
PLAIN_EVERY_S = 5.0


@contextmanager
def reporting(quiet: bool = False) -> Iterator[Report]:
    """A `progress(done, total, text)` for library functions; the first word names the task."""
    if quiet:
        yield lambda done, total, text: None
    elif sys.stderr.isatty():
        with _bar() as bar:
            yield _drawn(bar)
    else:
        yield _printed(time.monotonic)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _drawn(bar: Progress) -> Report:
    tasks: dict[str, tuple[TaskID, float, int]] = {}  # first word -> rich's id, start, done by then

    def report(done: int, total: int, text: str) -> None:
        key = f"{text.split()[0]} {total}"
        if key not in tasks:
            number = bar.add_task(text, total=total, completed=done, rate="")
            tasks[key] = (number, time.monotonic(), done)
        number, began_s, before = tasks[key]
        rate = (done - before) / max(1e-3, time.monotonic() - began_s)
        bar.update(number, completed=done, description=text, rate=f"{rate:.1f}/s")

    return report


def _printed(clock: Callable[[], float]) -> Report:
    began_s: dict[str, tuple[float, int]] = {}
    last_s = clock()

    def report(done: int, total: int, text: str) -> None:
        nonlocal last_s
        key, now_s = f"{text.split()[0]} {total}", clock()
        start_s, start = began_s.setdefault(key, (now_s, done))
        if now_s - last_s < PLAIN_EVERY_S and done != total:
            return
        last_s = now_s
        rate = (done - start) / max(1e-3, now_s - start_s)
        eta = f", {rate:.1f}/s, ETA {(total - done) / rate:.0f} s" if rate > 0 else ""
        print(f"{text}: {done}/{total} ({100 * done // max(1, total)} %){eta}", file=sys.stderr)

    return report

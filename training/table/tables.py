"""All methods in one run: figures with intervals, as values for JSON and as a table to read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embridge.device.errors import ConfigError
from embridge.training.table.cells import Cell, Clock, Counted, Progress, Work, all_cells
from embridge.training.table.data import GESTURES, HOP_S, SOURCE, WINDOW_S, UserWindows
from embridge.training.table.decide import K
from embridge.training.table.entries import Entry
from embridge.training.table.protocol import Tier
from embridge.training.table.referee import PER_USER_AND_GESTURE
from embridge.training.table.results import Result
from embridge.training.table.scores import Figure, difference
from embridge.training.table.splits import CALIBRATION, FOLDS, Split, held_out, rotations


@dataclass(frozen=True)
class Table:
    """Rows in order; data: name of what was read; design: how users were held out."""

    data: str
    design: str
    results: tuple[Result, ...]
    gains: tuple[Figure | None, ...] = field(repr=False)  # unseen, over the reference of the tier

    def json(self) -> dict[str, Any]:
        """Plain values with the protocol beside them."""
        rows = []
        for result, gain in zip(self.results, self.gains, strict=True):
            rows.append(result.json() | {"unseen_over_reference": gain.json() if gain else None})
        return {
            "data": self.data,
            "design": self.design,
            "users": list(self.results[0].users),
            "protocol": {
                "source": f"{SOURCE}, exercise 1",
                "window_s": WINDOW_S,
                "hop_s": HOP_S,
                "gestures": list(GESTURES),
                "unseen_folds": [list(fold) for fold in FOLDS],
                "calibration_repetitions": list(CALIBRATION),
                "gallery_per_user_and_gesture": PER_USER_AND_GESTURE,
                "k": K,
                "chance": {"unseen": 1 / 4, "seen": 1 / 8},
            },
            "rows": rows,
        }

    def markdown(self) -> str:
        """The table; text() is the same in columns."""
        head, *rows = self._cells()
        lines = [head, ["---"] * len(head), *rows]
        return self._caption() + "\n\n" + "\n".join("| " + " | ".join(r) + " |" for r in lines)

    def text(self) -> str:
        """The table in columns for a terminal."""
        cells = self._cells()
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in cells]
        return self._caption() + "\n" + "\n".join(line.rstrip() for line in lines)

    def _caption(self) -> str:
        users = self.results[0].users
        return (
            f"Run on {self.data}: {SOURCE}, exercise 1, {len(users)} test users, {self.design}. "
            "Balanced accuracy per user and fold, averaged [95 % over users]; chance: unseen .250, "
            "seen .125. Class means unless it says otherwise."
        )

    def _cells(self) -> list[list[str]]:
        cells = [[
            "tier", "method", "unseen", "kNN", "by repetition", "over the tier's ridge", "seen",
            "generalised: seen", "unseen", "harmonic mean",
        ]]  # fmt: skip
        for result, gain in zip(self.results, self.gains, strict=True):
            cells.append([result.tier.value, result.name, *_figures(result, gain)])
        return cells


def _figures(result: Result, gain: Figure | None) -> list[str]:
    if not result.zero_shot_possible:
        return ["-", "-", "-", "-", _brief(result.seen()), "-", "-", "-"]
    both = result.generalised()
    return [
        _brief(result.unseen()),
        f"{result.unseen(rule=1).mean:.3f}",
        f"{result.unseen(unit=1).mean:.3f}",
        _brief(gain, "+.3f") if gain else "-",
        _brief(result.seen()),
        f"{both['seen'].mean:.3f}",
        f"{both['unseen'].mean:.3f}",
        _brief(both["harmonic_mean"]),
    ]


def _brief(figure: Figure, form: str = ".3f") -> str:
    low, high = figure.ci95
    return f"{figure.mean:{form}} [{low:{form}}, {high:{form}}]"


def run_table(
    users: Sequence[UserWindows],
    entries: Sequence[Entry],
    *,
    data: str,
    clock: Clock,
    test_users: Sequence[UserWindows] | None = None,
    store: Path | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> Table:
    """Judge all entries on the same splits.

    users: by default every third is held out in turn; with `test_users` all of `users` are trained
    on and those tested. store: folder for finished cells, which the same call then takes up; jobs:
    processes. ConfigError when the users do not suffice or a method breaks the protocol.
    """
    if not entries:
        raise ConfigError("expected at least one method for the table, got none")
    names = [user.user for user in users]
    if test_users is None:
        splits, design = rotations(names), f"every third of {len(names)} users held out in turn"
    else:
        splits = held_out(names, [user.user for user in test_users])
        design = f"trained on {len(names)} other users"
    everyone = {user.user: user for user in [*users, *(test_users or [])]}
    cells = all_cells(Work(entries, splits, everyone, clock, store), jobs, progress)
    results = [_result(number, entry, splits, cells) for number, entry in enumerate(entries)]
    return Table(data, design, tuple(results), _gains(entries, results))


def _result(
    number: int, entry: Entry, splits: Sequence[Split], cells: Mapping[Cell, Counted]
) -> Result:
    users = tuple(name for split in splits if split.fold == 0 for name in split.test)
    where = {(name, split.fold): n for n, split in enumerate(splits) for name in split.test}
    stacked = np.array(
        [
            [
                [cells[Cell(number, seed, where[u, f])].counts[u] for f in range(len(FOLDS))]
                for u in users
            ]
            for seed in entry.seeds
        ]
    )
    seconds = sum(found.seconds for cell, found in cells.items() if cell.entry == number)
    return Result(entry.name, entry.make(entry.seeds[0]).tier, entry.seeds, users, stacked, seconds)


def _gains(entries: Sequence[Entry], results: Sequence[Result]) -> tuple[Figure | None, ...]:
    """Over the first reference row of the same tier, on unseen gestures."""
    references: dict[Tier, Result] = {}
    for entry, result in zip(entries, results, strict=True):
        if entry.reference:
            references.setdefault(result.tier, result)
    return tuple(
        difference(result.unseen(), reference.unseen())
        if result.zero_shot_possible
        and (reference := references.get(result.tier)) is not None
        and reference is not result
        else None
        for result in results
    )

"""Published figures, and those of runs beside them; what was run on what stands in every row."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embridge.training.paper.confusion import Measured, columns

FILE = Path(__file__).parent / "published.toml"
COLUMNS = ("lp_seen", "zs_seen", "lp_unseen", "zs_unseen")
_HEAD = ("LP seen", "ZS seen", "LP unseen", "ZS unseen")


@dataclass(frozen=True, slots=True)
class Published:
    """One published row. config: our method that does the same, or ""; figures: of COLUMNS."""

    method: str
    config: str
    source: str
    note: str
    figures: dict[str, float]


@dataclass(frozen=True)
class OwnRow:
    """One run, measured here. figures: of COLUMNS; None where the method has no such figure."""

    run: str
    method: str
    stage: str
    data: str
    synthetic: bool
    tier: str
    users: int
    figures: dict[str, Measured | None]

    @property
    def where(self) -> str:
        """Data set and whether it is real."""
        return f"{self.data} ({'synthetic' if self.synthetic else 'real'})"

    def json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": self.run,
            "method": self.method,
            "stage": self.stage,
            "data": self.data,
            "synthetic": self.synthetic,
            "tier": self.tier,
            "users": self.users,
            **{name: figure.json() if figure else None for name, figure in self.figures.items()},
        }


@dataclass(frozen=True)
class PaperTable:
    """Published rows, each followed by the runs of the same method."""

    data: str
    read_in: str
    published: tuple[Published, ...]
    own: tuple[OwnRow, ...]
    protocol: str

    def json(self) -> dict[str, Any]:
        """Plain values; "published" and "run_here" are kept apart."""
        return {
            "published": {
                "data": self.data,
                "read_in": self.read_in,
                "rows": [
                    {"method": p.method, "source": p.source, "note": p.note, **p.figures}
                    for p in self.published
                ],
            },
            "run_here": [row.json() for row in self.own],
            "protocol": self.protocol,
        }

    def text(self) -> str:
        """The table in columns for a terminal."""
        return f"{self._caption()}\n\n{columns(self._cells())}"

    def markdown(self) -> str:
        """The same table for a page."""
        head, *rows = self._cells()
        lines = [head, ["---"] * len(head), *rows]
        return self._caption() + "\n\n" + "\n".join("| " + " | ".join(r) + " |" for r in lines)

    def _caption(self) -> str:
        lines = [
            f"Published rows: {self.data}, read in {self.read_in}; they were not run here. Rows "
            "marked HERE were, on the data named in the row.",
            f"Balanced accuracy [95 % over users]. {self.protocol}",
        ]
        if any(row.synthetic for row in self.own):
            lines.append("Synthetic data says nothing of real accuracy.")
        if any(row.data != self.data for row in self.own):
            lines.append(f"Other data than {self.data}: the columns cannot be compared.")
        return "\n".join(lines)

    def _cells(self) -> list[list[str]]:
        cells = [["method", "run on", "tier", "users", *_HEAD, "source"]]
        left = list(self.own)
        for row in self.published:
            figures = [_three(row.figures.get(name)) for name in COLUMNS]
            cells.append([row.method, f"published, {self.data}", "-", "-", *figures, row.source])
            same = [own for own in left if own.method == row.config]
            left = [own for own in left if own.method != row.config]
            cells += [_own_cells(own) for own in same]
        return cells + [_own_cells(own) for own in left]


def _own_cells(row: OwnRow) -> list[str]:
    figures = [f.brief() if (f := row.figures[name]) else "-" for name in COLUMNS]
    name = f"{row.method}, {row.stage}"
    return [name, f"HERE, {row.where}", row.tier, str(row.users), *figures, f"run {row.run}"]


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def paper_table(own: Sequence[OwnRow], protocol: str) -> PaperTable:
    """The published rows with these beside them."""
    tree = tomllib.loads(FILE.read_text(encoding="utf-8"))
    published = tuple(
        Published(
            row["method"],
            row.get("config", ""),
            row["source"],
            row.get("note", ""),
            {name: row[name] for name in COLUMNS if name in row},
        )
        for row in tree["row"]
    )
    return PaperTable(tree["data"], tree["read_in"], published, tuple(own), protocol)

"""`embridge bench methods`: train and judge several methods on the same data, by share of it.

One command for the paper's comparison and for its experiment with 40 % of the paired data. Runs
lie in the folder of the comparison: finished ones are kept, interrupted ones go on.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embridge.benchmarks.evaluation import TIERS, check_run_stage
from embridge.benchmarks.paper_rows import POSE_ONLY, PROTOCOL, Judged, judge_run
from embridge.device.errors import ConfigError
from embridge.training.config import PRESETS, Config, load_config
from embridge.training.paper.confusion import Measured, columns, over_users
from embridge.training.paper.published import COLUMNS, PaperTable, paper_table
from embridge.training.run import train_run
from embridge.training.run_folder import BEST, RunFolder, open_run, write_atomic
from embridge.training.study import Progress

FIGURES = (*COLUMNS, "generalised_seen", "generalised_unseen", "harmonic_mean")
_HEAD = ("LP seen", "ZS seen", "LP unseen", "ZS unseen", "all: seen", "all: unseen", "all: h-mean")


@dataclass(frozen=True)
class Plan:
    """What is compared: every method with every share of the training data and every seed."""

    config: Path
    data: Path
    out: Path
    methods: tuple[str, ...]
    shares: tuple[float, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    stage: str
    tier: str

    def cells(self) -> list[tuple[str, float, int]]:
        """(method, share, seed) of every run."""
        return [(m, s, n) for m in self.methods for s in self.shares for n in self.seeds]


@dataclass(frozen=True)
class Row:
    """One method with one share of the data; figures are means over seeds, per user."""

    method: str
    share: float
    judged: tuple[Judged, ...]

    def figures(self) -> dict[str, Measured]:
        """By FIGURES; those that the method lacks are left out."""
        found = [_figures(judged) for judged in self.judged]
        shared = [name for name in FIGURES if all(name in one for one in found)]
        return {name: over_seeds([one[name] for one in found]) for name in shared}


@dataclass(frozen=True)
class Comparison:
    """All rows, with the paper's table of the runs on all the data."""

    plan: Plan
    rows: tuple[Row, ...]

    @property
    def table(self) -> PaperTable:
        """The published figures with the runs on all the data beside them."""
        whole = [judged.row() for row in self.rows if row.share == 1 for judged in row.judged]
        return paper_table(whole, PROTOCOL)

    def json(self) -> dict[str, Any]:
        """Plain values."""
        plan, data = self.plan, self.rows[0].judged[0].probe.data
        return {
            "data": {"name": data.name, "synthetic": data.synthetic},
            "config": plan.config.stem,
            "overrides": list(plan.overrides),
            "seeds": list(plan.seeds),
            "tier": plan.tier,
            "stage": plan.stage,
            "rows": [
                {
                    "method": row.method,
                    "share": row.share,
                    "runs": [judged.run.path.name for judged in row.judged],
                    "figures": {name: f.json() for name, f in row.figures().items()},
                }
                for row in self.rows
            ],
            "paper": self.table.json(),
        }

    def text(self) -> str:
        """The comparison in columns, then the paper's table."""
        return f"{self._caption()}\n\n{columns(self._cells())}\n\n{self.table.text()}"

    def markdown(self) -> str:
        """The same for a page."""
        head, *rows = self._cells()
        lines = "\n".join(
            "| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]
        )
        return f"{self._caption()}\n\n{lines}\n\n{self.table.markdown()}\n"

    def _caption(self) -> str:
        plan, probe = self.plan, self.rows[0].judged[0].probe
        return (
            f"Run on {probe.data}, configuration {plan.config.stem}"
            f"{''.join(f' {o}' for o in plan.overrides)}, encoder {plan.stage}, tier {plan.tier} "
            f"({TIERS[plan.tier]}), seeds {', '.join(map(str, plan.seeds))}.\n"
            "Share: of the training users' paired windows; galleries and probes use all of them. "
            "Balanced accuracy per user over windows, mean over seeds, then over users [95 % over "
            f"users]. all: every gesture competes. {PROTOCOL}"
        )

    def _cells(self) -> list[list[str]]:
        cells = [["method", "share", "users", *_HEAD]]
        for row in self.rows:
            found = row.figures()
            users = max((len(f.per_user) for f in found.values()), default=0)
            brief = [found[name].brief() if name in found else "-" for name in FIGURES]
            cells.append([row.method, f"{row.share:g}", str(users), *brief])
        return cells


def compare(
    plan: Plan,
    *,
    progress: Progress | None = None,
    log: Callable[[str], None] = lambda text: None,
) -> Comparison:
    """Train what is not trained yet, judge every run, write report.json and report.md."""
    _check(plan)
    judged: dict[tuple[str, float], list[Judged]] = {}
    for number, (method, share, seed) in enumerate(cells := plan.cells()):
        log(f"{number + 1} of {len(cells)}: {method}, share {share:g}, seed {seed}")
        run = _trained(plan, method, share, seed, progress)
        judged.setdefault((method, share), []).append(
            judge_run(run, plan.data, plan.stage, plan.tier)
        )
    rows = tuple(Row(method, share, tuple(found)) for (method, share), found in judged.items())
    comparison = Comparison(plan, rows)
    write_atomic(plan.out / "report.json", json.dumps(comparison.json(), indent=1).encode())
    write_atomic(plan.out / "report.md", comparison.markdown().encode())
    return comparison


def _check(plan: Plan) -> None:
    for name, values in (("methods", plan.methods), ("shares", plan.shares), ("seeds", plan.seeds)):
        if not values or len({*values}) < len(values):
            raise ConfigError(
                f"{name}: expected at least one and each of them once, got "
                f"{', '.join(map(str, values)) or 'none'}"
            )
    check_run_stage(plan.stage)  # what is wrong is better known before training
    for method, share, seed in plan.cells():
        phases = _settings(plan, method, share, seed).method.phases
        if plan.stage == "float" and "watch" not in phases and phases != POSE_ONLY:
            raise ConfigError(
                f"method {method} trains no `watch` encoder: compare stage base, or leave it out"
            )


def _settings(plan: Plan, method: str, share: float, seed: int) -> Config:
    return load_config(_source(plan), _overrides(plan, share, seed), method)


def _overrides(plan: Plan, share: float, seed: int) -> list[str]:
    own = [f"data.share={share}", f"optim.seed={seed}"]
    return [*plan.overrides, *own, f"data.path={json.dumps(str(plan.data.resolve()))}"]


def _source(plan: Plan) -> Path:
    preset = PRESETS / f"{plan.config}.toml"
    return preset if preset.is_file() else plan.config


def _trained(
    plan: Plan, method: str, share: float, seed: int, progress: Progress | None
) -> RunFolder:
    folder = plan.out / f"{method}-share{share:g}-seed{seed}"
    begun = (folder / "config.json").is_file()
    if begun:
        run = open_run(folder)
        if run.config != _settings(plan, method, share, seed):
            raise ConfigError(
                f"{folder}: holds a run of another configuration: choose another --out, or delete "
                "it"
            )
        if (folder / BEST).is_file():
            return run
        return train_run(plan.config, [], None, folder, resume=True, progress=progress)
    return train_run(
        plan.config,
        _overrides(plan, share, seed),
        None,
        folder,
        method=method,
        progress=progress,
    )


def _figures(judged: Judged) -> dict[str, Measured]:
    found = judged.figures()
    if judged.evaluation:
        shot = judged.evaluation.figures.figures()
        found |= {name: shot.get(name.replace("_", " ")) for name in FIGURES if name not in COLUMNS}
    return {name: figure for name, figure in found.items() if figure}


def over_seeds(figures: Sequence[Measured]) -> Measured:
    """Mean of each user's figures over seeds, then over users; the same users in all."""
    users = tuple(figures[0].per_user)
    values = np.array([[one.per_user[user] for user in users] for one in figures])
    mean = over_users(values.mean(axis=0), users)
    if mean is None:
        raise ValueError("expected figures of at least one user")
    return mean

"""What a method reached: its confusion counts, and every figure that follows from them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embridge.training.table.data import GESTURES
from embridge.training.table.decide import RULES
from embridge.training.table.protocol import Tier
from embridge.training.table.referee import UNITS
from embridge.training.table.scores import Figure, balanced_accuracy, figure, harmonic_mean, recalls
from embridge.training.table.splits import ALL, FOLDS

UNSEEN, SEEN, GENERALISED = range(3)  # order of referee.TASKS
_IS_UNSEEN = np.array([[gesture in fold for gesture in ALL] for fold in FOLDS])  # F 12


@dataclass(frozen=True)
class Result:
    """One row. counts: (S, U, F, tasks, rules, units, 12, 12) of seeds, users and folds.

    A classifier of seen gestures has one task and one rule, an encoder all.
    """

    name: str
    tier: Tier
    seeds: tuple[int, ...]
    users: tuple[str, ...]
    counts: NDArray[np.int64]
    seconds: float

    @property
    def zero_shot_possible(self) -> bool:
        """False for a classifier, which knows the seen gestures only."""
        return bool(self.counts.shape[3] > 1)

    def unseen(self, rule: int = 0, unit: int = 0) -> Figure:
        """Balanced accuracy of unseen gestures among themselves; chance 1/4."""
        return figure(balanced_accuracy(self._confusion(UNSEEN, rule, unit)))

    def seen(self, rule: int = 0, unit: int = 0) -> Figure:
        """Balanced accuracy of seen gestures of unseen users among themselves; chance 1/8."""
        task = SEEN if self.zero_shot_possible else 0
        return figure(balanced_accuracy(self._confusion(task, rule, unit)))

    def generalised(self, rule: int = 0, unit: int = 0) -> dict[str, Figure]:
        """All twelve compete: seen, unseen, harmonic_mean.

        The harmonic mean is taken per user and fold, then averaged, so it is never above that of
        the averages.
        """
        counts = self._confusion(GENERALISED, rule, unit)
        seen = balanced_accuracy(counts, ~_IS_UNSEEN)
        unseen = balanced_accuracy(counts, _IS_UNSEEN)
        return {
            "seen": figure(seen),
            "unseen": figure(unseen),
            "harmonic_mean": figure(harmonic_mean(seen, unseen)),
        }

    def json(self) -> dict[str, Any]:
        """Plain values; per_class and confusion are of windows, all users and seeds together."""
        row: dict[str, Any] = {
            "method": self.name,
            "tier": self.tier.value,
            "seeds": list(self.seeds),
            "seconds": round(self.seconds, 1),
        }
        if not self.zero_shot_possible:
            return row | {"seen": {"classifier": self._task_json(0, 0)}}
        return row | {
            "unseen": {by: self._task_json(UNSEEN, rule) for rule, by in enumerate(RULES)},
            "seen": {by: self._task_json(SEEN, rule) for rule, by in enumerate(RULES)},
            "generalised": {by: self._generalised_json(rule) for rule, by in enumerate(RULES)},
        }

    def _task_json(self, task: int, rule: int) -> dict[str, Any]:
        figures = {
            name: figure(balanced_accuracy(self._confusion(task, rule, unit))).json()
            for unit, name in enumerate(UNITS)
        }
        return figures | self._per_class(task, rule)

    def _generalised_json(self, rule: int) -> dict[str, Any]:
        units = {
            name: {part: f.json() for part, f in self.generalised(rule, unit).items()}
            for unit, name in enumerate(UNITS)
        }
        return units | self._per_class(GENERALISED, rule)

    def _per_class(self, task: int, rule: int) -> dict[str, Any]:
        counts = self._confusion(task, rule, 0).sum(axis=(0, 1))  # F 12 12
        recall = recalls(counts.sum(axis=0))
        return {
            "per_class": {
                name: float(value)
                for name, value in zip(GESTURES, recall, strict=True)
                if not np.isnan(value)
            },
            "confusion": {
                "-".join(map(str, fold)): counts[number].tolist()
                for number, fold in enumerate(FOLDS)
            },
        }

    def _confusion(self, task: int, rule: int, unit: int) -> NDArray[np.int64]:
        return self.counts[:, :, :, task, rule, unit]

"""The training loop: phases of steps that can be stopped anywhere and resumed to the same result.

Every step draws its randomness from (seed, phase, step) alone, so that a resumed run repeats
exactly what an uninterrupted one would have done. Several processes share each batch; what a
checkpoint holds does not depend on how many they were.
"""

import json
import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from embridge.training import distributed
from embridge.training.config import OptimConfig
from embridge.training.loader import Batch, batches
from embridge.training.part import Part
from embridge.training.precision import autocast
from embridge.training.run_folder import (
    LAST,
    METRICS,
    load_checkpoint,
    save_checkpoint,
    write_atomic,
)
from embridge.training.stopping import stop_wished
from embridge.training.study import Progress

Losses = dict[str, Tensor]  # "loss" is what is minimised, the others are logged


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user; everything up to this step is saved."""


@dataclass(frozen=True)
class Phase:
    """One phase of training.

    module: whose parameters are trained
    batch: (rng, part) -> arrays of this part of a training batch. Draws are made for the whole
    batch, whatever the part, and nothing else of it is random in numpy
    losses: (*batch as tensors) -> losses, whose mean over the processes is meant
    validate: () -> value, lower is better; begin: called once before the first step, with the
    earlier phases' results in place. Both are computed by each process alone
    """

    name: str
    steps: int
    module: nn.Module
    batch: Callable[[np.random.Generator, Part], Batch]
    losses: Callable[..., Losses]
    validate: Callable[[], float]
    begin: Callable[[], None] = lambda: None


@dataclass
class _Course:
    """Where a phase stands, and its best state so far."""

    optimizer: torch.optim.Optimizer
    step: int
    best: float
    best_state: dict[str, Tensor]


class Trainer:
    """Runs phases in order; keeps the state of each module's best validation."""

    def __init__(
        self, phases: list[Phase], modules: dict[str, nn.Module], optim: OptimConfig, run: Path
    ) -> None:
        self._phases, self._modules, self._optim, self._run = phases, modules, optim, run
        self._device = distributed.device_of(optim.device)
        for module in modules.values():
            module.to(self._device)
        self._metrics: list[dict[str, Any]] = []

    def fit(self, *, resume: bool, progress: Progress | None = None) -> None:
        """Run all phases, from the last checkpoint when resuming; raises Interrupted on Ctrl-C."""
        state = self._load() if resume and (self._run / LAST).exists() else None
        distributed.on_first(self._write_metrics)  # without rows of steps that will be done again
        first = state["phase"] if state else 0
        with stop_wished() as stop:
            for number in range(first, len(self._phases)):
                midway = state if state and state["optimizer"] and number == first else None
                self._run_phase(number, midway, stop, progress)

    def _run_phase(
        self,
        number: int,
        state: dict[str, Any] | None,
        stop: Callable[[], bool],
        progress: Progress | None,
    ) -> None:
        phase, optim = self._phases[number], self._optim
        course = self._resumed(phase, state) if state else self._begun(phase, number)
        todo, part = range(course.step, phase.steps), distributed.own_part()

        def draw(step: int) -> Batch:
            return phase.batch(self._random(number, step), part)

        pin = self._device.type == "cuda"
        with closing(batches(draw, todo, workers=optim.workers, pin=pin)) as source:
            for batch in source:
                losses = self._step(phase, number, course, batch)
                if course.step % optim.validate_every == 0 or course.step == phase.steps:
                    self._judge(phase, number, course, losses)
                if progress:
                    size = len(batch[0]) * part.world
                    text = f"{phase.name} windows, loss {losses['loss']:.3f}"
                    progress(course.step * size, phase.steps * size, text)
                stopping = distributed.any_of(stop())
                if stopping or course.step % optim.checkpoint_every == 0:
                    self._save(number, course)
                if stopping:
                    raise Interrupted(
                        f"in {phase.name} at step {course.step} of {phase.steps}, saved; "
                        "the same command goes on (embridge train: add --resume)"
                    )
        phase.module.load_state_dict(course.best_state)
        phase.module.eval()
        self._save(number + 1, None)

    def _begun(self, phase: Phase, number: int) -> _Course:
        torch.manual_seed(_seed(self._optim.seed, number, 0))
        with distributed.alone():
            phase.begin()
        distributed.spread(self._modules.values())
        return _Course(self._optimizer(phase), 0, math.inf, _copy(phase.module))

    def _resumed(self, phase: Phase, state: dict[str, Any]) -> _Course:
        optimizer = self._optimizer(phase)
        optimizer.load_state_dict(state["optimizer"])
        return _Course(optimizer, state["step"], state["best"], state["best_state"])

    def _optimizer(self, phase: Phase) -> torch.optim.Optimizer:
        optim = self._optim
        return torch.optim.AdamW(
            _trained(phase.module),
            lr=optim.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=optim.weight_decay,
        )

    def _random(self, number: int, step: int) -> np.random.Generator:
        return np.random.default_rng(_seed(self._optim.seed, number, step + 1))

    def _step(
        self, phase: Phase, number: int, course: _Course, batch: tuple[Tensor, ...]
    ) -> Losses:
        optim, optimizer = self._optim, course.optimizer
        rate = optim.learning_rate * _schedule(course.step, phase.steps, optim.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        torch.manual_seed(_seed(optim.seed, number, course.step + 1))
        phase.module.train()
        with autocast(self._device, optim.precision):
            losses = phase.losses(*(part.to(self._device, non_blocking=True) for part in batch))
        optimizer.zero_grad()
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        parameters = _trained(phase.module)
        distributed.average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
        optimizer.step()
        course.step += 1
        return {name: value.detach() for name, value in losses.items()}

    def _judge(self, phase: Phase, number: int, course: _Course, losses: Losses) -> None:
        """Validate, log, and keep the state when it is the best so far."""
        phase.module.eval()
        torch.manual_seed(_seed(self._optim.seed, number, 0))  # the same masks every time
        with torch.no_grad(), distributed.alone(), autocast(self._device, self._optim.precision):
            own = phase.validate()
        value = distributed.on_first(lambda: own)
        mean = distributed.average(torch.stack([loss.float() for loss in losses.values()]))
        row = {"phase": phase.name, "step": course.step, "validation": round(value, 6)}
        row |= {name: round(x, 6) for name, x in zip(losses, mean.tolist(), strict=True)}
        self._metrics.append(row)
        if distributed.own_part().first:
            with (self._run / METRICS).open("a") as file:
                file.write(json.dumps(row) + "\n")
        if value < course.best:
            course.best, course.best_state = value, _copy(phase.module)

    def _save(self, phase: int, course: _Course | None) -> None:
        """Save, in the first process, that the run stands within a phase or (None) before it."""
        state = {
            "phase": phase,
            "step": course.step if course else 0,
            "optimizer": course.optimizer.state_dict() if course else None,
            "best": course.best if course else math.inf,
            "best_state": course.best_state if course else {},
            "modules": {name: m.state_dict() for name, m in self._modules.items()},
            "metrics": json.dumps(self._metrics),
        }
        distributed.on_first(lambda: save_checkpoint(self._run / LAST, state))

    def _load(self) -> dict[str, Any]:
        state = load_checkpoint(self._run / LAST)
        for name, module in self._modules.items():
            module.load_state_dict(state["modules"][name])
        self._metrics = json.loads(state["metrics"])
        for phase in self._phases[: state["phase"]]:
            phase.module.eval()
        return state

    def _write_metrics(self) -> None:
        lines = "".join(json.dumps(row) + "\n" for row in self._metrics)
        write_atomic(self._run / METRICS, lines.encode())


def _trained(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then cosine to zero."""
    ramp = max(1, round(steps * warmup))
    if step < ramp:
        return (step + 1) / ramp
    return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint32)[0])


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}

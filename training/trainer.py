"""The training loop: phases of steps that can be stopped anywhere and resumed to the same result.

Every step draws its randomness from (seed, phase, step) alone, so that a resumed run repeats
exactly what an uninterrupted one would have done.
"""

import json
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from embridge.training.config import OptimConfig
from embridge.training.run_folder import LAST, METRICS, load_checkpoint, save_checkpoint
from embridge.training.study import Progress

Batch = tuple[NDArray[np.float32], ...]
Losses = dict[str, Tensor]  # "loss" is what is minimised, the others are logged


class Interrupted(KeyboardInterrupt):
    """Training was stopped by the user; everything up to this step is saved."""


@dataclass(frozen=True)
class Phase:
    """One phase of training.

    module: whose parameters are trained
    batch: (rng) -> arrays of a training batch; nothing else of it is drawn at random in numpy
    losses: (*batch as tensors) -> losses; validate: () -> value, lower is better
    begin: called once before the first step, with the earlier phases' results in place
    """

    name: str
    steps: int
    module: nn.Module
    batch: Callable[[np.random.Generator], Batch]
    losses: Callable[..., Losses]
    validate: Callable[[], float]
    begin: Callable[[], None] = lambda: None


class Trainer:
    """Runs phases in order; keeps the state of each module's best validation."""

    def __init__(
        self, phases: list[Phase], modules: dict[str, nn.Module], optim: OptimConfig, run: Path
    ) -> None:
        self._phases, self._modules, self._optim, self._run = phases, modules, optim, run
        self._device = device_of(optim.device)
        for module in modules.values():
            module.to(self._device)
        self._metrics: list[dict[str, Any]] = []
        self._stop = False

    def fit(self, *, resume: bool, progress: Progress | None = None) -> None:
        """Run all phases, from the last checkpoint when resuming; raises Interrupted on Ctrl-C."""
        state = self._load() if resume and (self._run / LAST).exists() else None
        first = state["phase"] if state else 0
        with self._stop_on_signals():
            for number in range(first, len(self._phases)):
                midway = state if state and state["optimizer"] and number == first else None
                self._run_phase(number, midway, progress)

    def _run_phase(
        self, number: int, state: dict[str, Any] | None, progress: Progress | None
    ) -> None:
        phase, optim = self._phases[number], self._optim
        parameters = [p for p in phase.module.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=optim.learning_rate, betas=(0.9, 0.95), weight_decay=optim.weight_decay
        )
        step, best, best_state = 0, math.inf, _copy(phase.module)
        if state:
            optimizer.load_state_dict(state["optimizer"])
            step, best, best_state = state["step"], state["best"], state["best_state"]
        else:
            torch.manual_seed(_seed(optim.seed, number, 0))
            phase.begin()
            best_state = _copy(phase.module)
        while step < phase.steps:
            losses = self._step(phase, number, step, optimizer, parameters)
            step += 1
            if step % optim.validate_every == 0 or step == phase.steps:
                value = self._validate(phase, number, step)
                self._log(phase, step, losses, value)
                if value < best:
                    best, best_state = value, _copy(phase.module)
            if progress:
                progress(step, phase.steps, f"{phase.name} loss {losses['loss']:.3f}")
            if self._stop or step % optim.checkpoint_every == 0:
                self._save(number, step, optimizer.state_dict(), best, best_state)
                if self._stop:
                    raise Interrupted(
                        f"in {phase.name} at step {step} of {phase.steps}, saved; "
                        "the same command goes on (embridge train: add --resume)"
                    )
        phase.module.load_state_dict(best_state)
        phase.module.eval()
        self._save(number + 1, 0, None, math.inf, {})

    def _step(
        self,
        phase: Phase,
        number: int,
        step: int,
        optimizer: torch.optim.Optimizer,
        parameters: list[nn.Parameter],
    ) -> Losses:
        optim = self._optim
        rate = optim.learning_rate * _schedule(step, phase.steps, optim.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate
        seed = _seed(optim.seed, number, step + 1)
        torch.manual_seed(seed)
        phase.module.train()
        batch = phase.batch(np.random.default_rng(seed))
        losses = phase.losses(*(torch.from_numpy(part).to(self._device) for part in batch))
        optimizer.zero_grad()
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, optim.clip_norm)
        optimizer.step()
        return {name: value.detach() for name, value in losses.items()}

    def _validate(self, phase: Phase, number: int, step: int) -> float:
        phase.module.eval()
        torch.manual_seed(_seed(self._optim.seed, number, 0))  # the same masks every time
        with torch.no_grad():
            return phase.validate()

    def _log(self, phase: Phase, step: int, losses: Losses, value: float) -> None:
        row = {"phase": phase.name, "step": step, "validation": round(value, 6)}
        row |= {name: round(float(loss), 6) for name, loss in losses.items()}
        self._metrics.append(row)
        with (self._run / METRICS).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def _save(
        self, phase: int, step: int, optimizer: Any, best: float, best_state: dict[str, Tensor]
    ) -> None:
        save_checkpoint(
            self._run / LAST,
            {
                "phase": phase,
                "step": step,
                "optimizer": optimizer,
                "best": best,
                "best_state": best_state,
                "modules": {name: m.state_dict() for name, m in self._modules.items()},
                "metrics": json.dumps(self._metrics),
            },
        )

    def _load(self) -> dict[str, Any]:
        state = load_checkpoint(self._run / LAST)
        for name, module in self._modules.items():
            module.load_state_dict(state["modules"][name])
        self._metrics = json.loads(state["metrics"])
        lines = "".join(json.dumps(row) + "\n" for row in self._metrics)
        (self._run / METRICS).write_text(lines)  # drop rows of steps that will be done again
        for phase in self._phases[: state["phase"]]:
            phase.module.eval()
        return state

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """Finish the step in hand and save before stopping; a second signal stops at once."""

        def stop(_signal: int, _frame: FrameType | None) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def device_of(wanted: str) -> torch.device:
    """The device of `optim.device`; "auto": CUDA where there is one."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


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

"""Who says which gesture is being made while it is recorded: a script, or the keyboard.

A script is a list of steps, in TOML or one line each; both of these say the same:

    [[step]]                                      fist, 3, 5, 2
    gesture = "fist"
    seconds = 3
    repetitions = 5
    rest = 2         # seconds before each repetition

Lines are "gesture, seconds, repetitions, rest"; what is left out at the end is 1 repetition and 2 s
of rest. A label applies to the samples that arrive after it was given.
"""

import os
import select
import sys
import tomllib
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from embridge.device.errors import ConfigError
from embridge.device.recordings import REST, UNLABELLED

Say = Callable[[str], None]
MOST_KEYS: Final = 9


@dataclass(frozen=True, slots=True)
class Label:
    """What is being done: gesture indexes the labeller's names; trial, repetition as `Recording`'s.

    text: the same for a person, with what comes next
    """

    gesture: int
    trial: int = 0
    repetition: int = 0
    text: str = ""


UNKNOWN: Final = Label(UNLABELLED)


class Labeller(Protocol):
    """Labels samples as they arrive."""

    @property
    def gestures(self) -> tuple[str, ...]:
        """Names that `Label.gesture` indexes."""

    @property
    def seconds(self) -> float | None:
        """How long it goes on; None: as long as it is asked."""

    def at(self, arrived_s: float) -> Label | None:
        """The label of samples that arrive now, times never decreasing; None: it is over."""


class Step(BaseModel):
    """One line of a script."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gesture: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    seconds: Annotated[float, Field(gt=0, le=3600)]
    repetitions: Annotated[int, Field(ge=1, le=1000)] = 1
    rest: Annotated[float, Field(ge=0, le=3600)] = 2.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """One thing to do, from begin_s after the first sample on."""

    begin_s: float
    seconds: float
    gesture: str
    trial: int
    repetition: int


def read_script(path: Path) -> tuple[Step, ...]:
    """Read a script, TOML by its suffix .toml, else lines; ConfigError when it is none."""
    try:
        text = path.read_text(encoding="utf-8")
        raw = (
            tomllib.loads(text) if path.suffix.lower() == ".toml" else {"step": _lines(path, text)}
        )
        if set(raw) != {"step"} or not isinstance(raw["step"], list) or not raw["step"]:
            raise ConfigError(f"{path}: expected [[step]] tables, got {sorted(raw) or 'nothing'}")
        return tuple(Step.model_validate(step) for step in raw["step"])
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such script of prompts; check the path") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path}: {where} = {first['input']!r}: {first['msg']}; expected gesture, seconds, "
            "repetitions, rest"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a script of prompts ({error}): see its help") from error


def _lines(path: Path, text: str) -> list[dict[str, Any]]:
    """Steps of a plain script; # begins a comment."""
    kept = (line.partition("#")[0].strip() for line in text.splitlines())
    names = list(Step.model_fields)
    steps = []
    for line in filter(None, kept):
        values = [value.strip() for value in line.split(",")]
        if len(values) > len(names):
            raise ConfigError(f"{path}: line {line!r}: expected {', '.join(names)}")
        steps.append(dict(zip(names, values, strict=False)))
    return steps


def timeline(steps: Sequence[Step]) -> tuple[Prompt, ...]:
    """Rest and hold in turn, each beginning where the one before ends."""
    prompts: list[Prompt] = []
    repetitions: dict[str, int] = {}
    begin_s, trial = 0.0, 0
    for step in [each for each in steps for _ in range(each.repetitions)]:
        if step.rest > 0:
            prompts.append(Prompt(begin_s, step.rest, REST, 0, 0))
            begin_s += step.rest
        if step.gesture == REST:
            prompts.append(Prompt(begin_s, step.seconds, REST, 0, 0))
        else:
            trial += 1
            repetition = repetitions[step.gesture] = repetitions.get(step.gesture, 0) + 1
            prompts.append(Prompt(begin_s, step.seconds, step.gesture, trial, repetition))
        begin_s += step.seconds
    return tuple(prompts)


class ScriptLabeller:
    """Follows a script from the first sample on; `say` gets one line when something changes."""

    def __init__(self, steps: Sequence[Step], say: Say = lambda text: None) -> None:
        self._prompts = timeline(steps)
        self._begins_s = [prompt.begin_s for prompt in self._prompts]
        self._say = say
        self._origin_s: float | None = None
        self._said = -1
        self.gestures: tuple[str, ...] = tuple(
            dict.fromkeys([REST, *(step.gesture for step in steps)])
        )
        self.seconds: float | None = self._end_s(len(self._prompts) - 1)

    def at(self, arrived_s: float) -> Label | None:
        """The prompt shown at this time; None after the last."""
        if self._origin_s is None:
            self._origin_s = arrived_s
        now_s = arrived_s - self._origin_s
        number = bisect_right(self._begins_s, now_s) - 1
        if now_s >= self._end_s(number):
            return None
        prompt = self._prompts[number]
        if number != self._said:
            self._said = number
            self._say(self._text(number, prompt.seconds))
        text = self._text(number, self._end_s(number) - now_s)
        gesture = self.gestures.index(prompt.gesture)
        return Label(gesture, prompt.trial, prompt.repetition, text)

    def _end_s(self, number: int) -> float:
        return self._prompts[number].begin_s + self._prompts[number].seconds

    def _text(self, number: int, left_s: float) -> str:
        prompt = self._prompts[number]
        then = self._prompts[number + 1].gesture if number + 1 < len(self._prompts) else "the end"
        which = f" ({prompt.repetition})" if prompt.repetition else ""
        return f"{prompt.gesture.upper()}{which} for {left_s:.1f} s, then {then}"


class KeyLabeller:
    """Keys 1 to 9 begin and end a gesture of the list, 0 and space end any; the rest is rest.

    pressed: characters typed since it was last called, as `Keyboard.pressed`
    say: gets one line for each change
    """

    def __init__(
        self, names: Sequence[str], pressed: Callable[[], str], say: Say = lambda text: None
    ) -> None:
        if not 1 <= len(names) <= MOST_KEYS or len({*names, REST}) != len(names) + 1:
            raise ConfigError(
                f"gestures {', '.join(names) or '(none)'}: expected 1 to {MOST_KEYS} different "
                f"names besides {REST}"
            )
        self.gestures: tuple[str, ...] = (REST, *names)
        self.seconds: float | None = None
        self._pressed, self._say = pressed, say
        self._repetitions = [0] * len(self.gestures)
        self._label = Label(0, text=REST)

    def at(self, arrived_s: float) -> Label:
        """The label after all keys pressed so far."""
        for key in self._pressed():
            number = 0 if key == " " else int(key) if key in "0123456789" else -1
            if not 0 <= number < len(self.gestures):
                continue
            self._begin(0 if number == self._label.gesture else number)
        return self._label

    def _begin(self, number: int) -> None:
        if number:
            self._repetitions[number] += 1
            text = f"{self.gestures[number]} ({self._repetitions[number]})"
            self._label = Label(number, sum(self._repetitions), self._repetitions[number], text)
        else:
            self._label = Label(0, text=REST)
        self._say(self._label.text)


class Keyboard:
    """Keys as they are pressed, without Enter and without waiting."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pressed(self) -> str:
        """Characters typed since it was last called."""
        typed = b""
        while select.select([self._descriptor], [], [], 0)[0]:
            data = os.read(self._descriptor, 256)
            if not data:
                break
            typed += data
        return typed.decode(errors="ignore")


@contextmanager
def keyboard(descriptor: int | None = None) -> Iterator[Keyboard]:
    """The terminal's keyboard (stdin), its mode restored at the end; ConfigError: no terminal."""
    descriptor = sys.stdin.fileno() if descriptor is None else descriptor
    if not os.isatty(descriptor):
        raise ConfigError(
            "labels by key need a terminal, and stdin is none: give a script of prompts instead"
        )
    import termios  # not on Windows
    import tty

    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keyboard(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

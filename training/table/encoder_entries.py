"""Rows of encoders: the shipped recipe, what it is without each of its parts, and the paper's."""

from collections.abc import Callable

from embridge.training.config import PRESETS, Config, load_config
from embridge.training.table.data import HOP_S, WINDOW_S
from embridge.training.table.encoders import EncoderPair, Trainings
from embridge.training.table.entries import Entry, Make, baselines
from embridge.training.table.forward import RidgeToEmg
from embridge.training.table.protocol import Tier
from embridge.training.table.stacking import Stacked

_ALWAYS = ["optim.threads=1", "optim.population_share=0", f"data.window_ms={1000 * WINDOW_S:g}"]
_ALWAYS.append(f"data.hop_ms={1000 * HOP_S:g}")
_ALWAYS.append("data.align=reflection")  # three repetitions tell it; one, as a run has, may not
_BASE_ALONE = 'method.phases=["pose_mae", "emg_mae", "align"]'
_PAPER = ["prior.share=0", "loss.tau=0.02", _BASE_ALONE]


def recipe(overrides: list[str], method: str | None = None) -> Config:
    """The preset for envelopes, in the windows of the protocol."""
    return load_config(PRESETS / "envelope.toml", [*_ALWAYS, *overrides], method)


def encoders(seeds: tuple[int, ...], overrides: list[str] | None = None) -> list[Entry]:
    """The shipped recipe: both encoders plain, self-trained, with the gate, and from T2 on."""
    config = recipe(overrides or [])
    trainings, facts = Trainings(config), config.model_dump_json()

    def pair(encoder: str, tier: Tier = Tier.T1, guess: bool = False) -> Make:
        return lambda seed: EncoderPair(trainings, encoder, seed, tier, guess)

    def gated(encoder: str) -> Make:
        return lambda seed: Stacked(
            lambda: EncoderPair(trainings, encoder, seed, guess=True),
            tuned_on=lambda: RidgeToEmg(Tier.T1, guess=True),
        )

    rows: list[tuple[str, Make]] = [
        ("EMBridge base", pair("base")),
        ("EMBridge watch", pair("watch")),
        ("EMBridge base, self-trained", pair("base", guess=True)),
        ("EMBridge watch, self-trained", pair("watch", guess=True)),
        ("EMBridge base, self-trained, gate", gated("base")),
        ("EMBridge watch, self-trained, gate", gated("watch")),
        ("EMBridge base, own labels + population", pair("base", Tier.T2)),
        ("EMBridge watch, own labels + population", pair("watch", Tier.T2)),
        ("EMBridge base, own glove + population", pair("base", Tier.T3)),
        ("EMBridge watch, own glove + population", pair("watch", Tier.T3)),
    ]
    return [Entry(name, make, seeds, facts=facts) for name, make in rows]


def ablations(seeds: tuple[int, ...]) -> list[Entry]:
    """`base` of the recipe without one of its parts, and of the paper's methods as they are."""
    same = "loss.tau=0.3"  # methods that bring their own temperature get the recipe's
    return [
        _base("EMBridge base without Q-Former", [same, _BASE_ALONE], "no-qformer", seeds),
        _base("EMBridge base without MPRL", [_BASE_ALONE], "no-mprl", seeds),
        _base("EMBridge base without CASCLe", [_BASE_ALONE], "no-cascle", seeds),
        _base("EMBridge base without prior (the paper's)", _PAPER, "embridge", seeds),
        _base("CPEP (the paper's baseline)", _PAPER, "cpep", seeds),
    ]


ROWS: dict[str, Callable[[tuple[int, ...]], list[Entry]]] = {
    "baselines": baselines,
    "encoders": encoders,
    "ablations": ablations,
}


def _base(name: str, overrides: list[str], method: str, seeds: tuple[int, ...]) -> Entry:
    config = recipe(overrides, method)
    trainings = Trainings(config)
    return Entry(
        name,
        lambda seed: EncoderPair(trainings, "base", seed),
        seeds,
        facts=config.model_dump_json(),
    )

"""`SCHEME://ADDRESS?option=value` -> address and options."""

from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit

from embridge.device.errors import ConfigError


def parse_options(url: str, defaults: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The address and every option of `defaults`; ConfigError for an option that is not there."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := given.keys() - defaults.keys():
        raise ConfigError(
            f"{url}: unknown option {min(unknown)!r}; expected {', '.join(sorted(defaults))}"
        )
    return unquote(parts.netloc + parts.path), {**defaults, **given}


def positive(url: str, name: str, text: str, most: float) -> float:
    """A number above 0 and at most `most`; ConfigError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= most:
        raise ConfigError(f"{url}: {name}={text!r}: expected a number above 0, at most {most:g}")
    return value


def switch(url: str, name: str, text: str) -> bool:
    """0 or 1; ConfigError for anything else."""
    if text not in ("0", "1"):
        raise ConfigError(f"{url}: {name}={text!r}: expected 0 or 1")
    return text == "1"

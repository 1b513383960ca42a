"""Tool chains that are optional: one clear line when they are not installed."""

import importlib.util

from embridge.device.errors import ConfigError


def need(stage: str, extra: str, *modules: str) -> None:
    """Raise ConfigError when one of the top-level modules that `extra` installs is missing."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"target {stage} needs {', '.join(missing)}, not installed here; "
            f"run `pip install 'embridge[{extra}]'`, or leave the target out"
        )

"""What can go wrong with a user's files and options.

EmbridgeError (firmware_bridge.errors)
├── RecordingError    a recording cannot be read, or does not hold what is needed
├── PackageError      a model package was refused: changed, unknown schema, runtime missing
├── ConfigError       an option or configuration value is not usable
└── ProcessLost       one of several processes at the same job is gone
"""

from embridge.firmware_bridge.errors import EmbridgeError

__all__ = ["ConfigError", "EmbridgeError", "PackageError", "ProcessLost", "RecordingError"]


class RecordingError(EmbridgeError):
    """A recording cannot be read, or lacks what the caller needs."""


class PackageError(EmbridgeError):
    """A model package was refused."""


class ConfigError(EmbridgeError):
    """A configuration value or option cannot be used."""


class ProcessLost(EmbridgeError):
    """One of several processes at the same job is gone."""

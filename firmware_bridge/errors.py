"""The root of the project's exceptions, and what can go wrong on the wire.

EmbridgeError                 one clear line; the command line prints it and exits 1
├── LinkError                 the connection to the wrist
│   ├── PortNotFound          no such port, or it cannot be opened
│   ├── LinkLost              the port went away and did not come back in time
│   └── HandshakeError        the wrist did not declare what it sends, or declares another stream
└── (device.errors)           recordings, packages, configuration
"""


class EmbridgeError(Exception):
    """Root of every error whose message is meant for the user: expected, got, what to do."""


class LinkError(EmbridgeError):
    """The connection to the wrist failed."""


class PortNotFound(LinkError):
    """The port does not exist or cannot be opened."""


class LinkLost(LinkError):
    """The port went away mid-stream and did not come back in time."""


class HandshakeError(LinkError):
    """The wrist did not declare its stream, or declared one that cannot be used."""

"""What can go wrong between a trained encoder and its int8 artefacts.

EmbridgeError (firmware_bridge.errors)
└── LoweringError     a backend kept an operator in float, or made an artefact of another shape
"""

from embridge.firmware_bridge.errors import EmbridgeError


class LoweringError(EmbridgeError):
    """An artefact is not what its stage promises."""

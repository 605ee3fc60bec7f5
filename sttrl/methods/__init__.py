"""The methods: one file each. To add one, write `adapt` in a file of its own and add a line to `METHODS`.

The name becomes a choice of ``--adaptation_method`` in `sttrl.config` (a test holds the two together).
"""

from __future__ import annotations

from sttrl.methods.base import Method, Tools
from sttrl.methods.none import NoAdaptation
from sttrl.methods.sttrl import Sttrl

METHODS: dict[str, type[Method]] = {
    "sttrl": Sttrl,
    "none": NoAdaptation,
}

__all__ = ["METHODS", "Method", "Tools"]

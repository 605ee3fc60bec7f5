"""The methods: one file each. To add one, write `adapt` in a file of its own and add a line to `METHODS`.

The name is also a choice of ``--adaptation_method`` in `sttrl.config`; a test checks that the two agree. A method that lives elsewhere
is named as ``package.module:Name``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from sttrl.config.own_method import method_class
from sttrl.methods.base import DatasetMethod, Method
from sttrl.methods.finetune import Finetune
from sttrl.methods.memo import Memo
from sttrl.methods.none import NoAdaptation
from sttrl.methods.slot import Slot
from sttrl.methods.stored import Stored
from sttrl.methods.sttrl import Sttrl
from sttrl.methods.tools import Tools
from sttrl.methods.ttft import Ttft
from sttrl.methods.ttrl import Ttrl
from sttrl.methods.ttt import ttt

METHODS: dict[str, Callable[[Tools], Method | DatasetMethod]] = {
    "sttrl": Sttrl,
    "ttrl": Ttrl,
    "ttft": Ttft,
    "slot": Slot,
    "memo": Memo,
    "ttt": ttt,
    "finetune": Finetune,
    "stored": Stored,
    "none": NoAdaptation,
}


def method_of(name: str) -> Callable[[Tools], Method | DatasetMethod]:
    """The method of this name, or the class that ``package.module:Name`` names. Raises `UsageError` if that is no method."""
    if name in METHODS:
        return METHODS[name]
    return cast(Callable[[Tools], Method | DatasetMethod], method_class(name))


__all__ = ["METHODS", "DatasetMethod", "Method", "Tools", "method_of"]

"""The methods: one file each. To add one, write `adapt` in a file of its own and add a line to `METHODS`.

The name is also a choice of ``--adaptation_method`` in `sttrl.config`; a test checks that the two agree. A method that lives elsewhere
is named as ``package.module:Name``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sttrl.config.extensions import run_by
from sttrl.config.method import METHOD
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


def make_method(name: str, tools: Tools) -> Method | DatasetMethod:
    """The method of this name, or an instance of the class that ``package.module:Name`` names. Raises `UsageError` if that is no method."""
    if name in METHODS:
        return METHODS[name](tools)
    kind: Any = method_class(name)
    with run_by(METHOD, name, "begin"):
        method: Method | DatasetMethod = kind(tools)
        return method


__all__ = ["METHODS", "DatasetMethod", "Method", "Tools", "make_method"]

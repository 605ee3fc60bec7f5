"""The methods: one file each. To add one, write `adapt` in a file of its own and add a line to `METHODS`.

The name is also a choice of ``--adaptation_method`` in `sttrl.config`; a test checks that the two agree. A method that lives elsewhere
is named as ``package.module:Name``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import cast

from sttrl.config.extensions import Part, check_fits, imported, place_of
from sttrl.config.method import METHOD
from sttrl.errors import UsageError
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

PAGE = "how_to_add_a_method.md"

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

DELTA = Part("delta", ("problem", "questions"))
EACH = (DELTA, Part("adapt", ("problem", "policy"), awaited=True))
ALL = (DELTA, Part("plan", ("problems",)), Part("step", ("index", "problems", "policy"), awaited=True))
"""The functions of a `Method` and of a `DatasetMethod`, and how the runner calls them."""


def method_of(name: str) -> Callable[[Tools], Method | DatasetMethod]:
    """The method of this name, or the class that ``package.module:Name`` names. Raises `UsageError` if that is no method."""
    if name in METHODS:
        return METHODS[name]
    kind = imported(METHOD, name)
    if not inspect.isclass(kind):
        raise UsageError(
            f"--adaptation_method {name} does not fit: {place_of(kind)} is no class.", "docs/how_to_add_a_method.md shows one."
        )
    check_fits(METHOD, name, kind, [Part("", ("tools",))], PAGE)
    check_fits(METHOD, name, kind, ALL if hasattr(kind, "step") or hasattr(kind, "plan") else EACH, PAGE)
    return cast(Callable[[Tools], Method | DatasetMethod], kind)


__all__ = ["METHODS", "DatasetMethod", "Method", "Tools", "method_of"]

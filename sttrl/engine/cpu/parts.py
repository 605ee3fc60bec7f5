"""The parts that only CPUs need. Each can be switched off: ``STTRL_CPU_WITHOUT=shared_prompts,engine_thread`` in the environment.

What each gains is measured by ``benchmarks/cpu_parts.py``; docs/engine.md has the table.
"""

from __future__ import annotations

import os
from typing import Final, Literal

from sttrl.errors import UsageError

Part = Literal["shared_prompts", "engine_thread"]
PARTS: Final[tuple[Part, ...]] = ("shared_prompts", "engine_thread")
"""The prompt's last block computed once for a group; vLLM's core in a thread of the sampler's process."""
VARIABLE: Final = "STTRL_CPU_WITHOUT"


def is_on(part: Part) -> bool:
    """Whether a part is used."""
    return part not in switched_off()


def switched_off() -> tuple[str, ...]:
    """The parts that the environment switches off. Raises `UsageError` for a name that is no part."""
    names = tuple(name for name in os.environ.get(VARIABLE, "").replace(" ", "").split(",") if name)
    for name in names:
        if name not in PARTS:
            raise UsageError(f"{VARIABLE} names {name!r}, which is no part.", f"The parts are {', '.join(PARTS)}.")
    return names

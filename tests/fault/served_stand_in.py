"""The command `serve` on the stand-in engine, as a process that can be killed: ``python served_stand_in.py serve FLAGS``.

While the file that STTRL_TEST_HOLD names exists, no update ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serving import Lane

from sttrl.cli.serve import parse_serve
from sttrl.engine.base import EngineSettings
from sttrl.serve.server import serve

HOLD = "STTRL_TEST_HOLD"


class HeldLane(Lane):
    """A lane whose updates wait while a file exists."""

    async def pause(self, kind: str) -> None:
        while kind == "update" and Path(os.environ[HOLD]).exists():
            await asyncio.sleep(0.01)


async def held_lanes(settings: EngineSettings, tokenizer: Any, logs: Path, say: Callable[[str], None]) -> list[Any]:
    """The lanes."""
    return [HeldLane(settings, tokenizer) for _ in range(settings.lanes)]


if __name__ == "__main__":
    config, server = parse_serve(sys.argv[2:])
    serve(config, server, held_lanes)

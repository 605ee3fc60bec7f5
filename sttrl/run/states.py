"""What a policy writes into the run folder: adapters, and the states that an interrupted run goes on from."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from sttrl.engine.base import Policy
from sttrl.errors import JournalError, StepError, disk_fault
from sttrl.ledger.files import make_folder, settle_folder, unwritable

UNFINISHED = ".unfinished"
"""Where a folder of ``adapters/`` or ``state/`` is until it is whole."""


class States:
    """The folders of one run. Each is there whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tidy(self) -> None:
        """Remove what a kill left half written."""
        for left in self.folder.glob(f"*/{UNFINISHED}"):
            shutil.rmtree(left, ignore_errors=True)

    def adapter(self, name: str) -> Path:
        """Where an adapter is kept."""
        return self.folder / "adapters" / name

    async def write(self, write: Callable[[Path], Awaitable[None]], target: Path) -> None:
        """Let a policy write a folder: whole and on disk, or not at all. Raises `JournalError` where that cannot be done."""
        beside = target.parent / UNFINISHED / target.name
        try:
            make_folder(beside)
            await write(beside)
            await asyncio.to_thread(settle_folder, beside, target)
        except Exception as error:
            shutil.rmtree(beside, ignore_errors=True)  # not when the run is interrupted: the thread may still be at work there
            fault = error if isinstance(error, OSError) else disk_fault(error)
            if fault is None:
                raise
            raise unwritable(target, fault) from error
        finally:
            with contextlib.suppress(OSError):  # another is being written there
                beside.parent.rmdir()

    async def checkpoint(self, policy: Policy, prefix: str, number: int) -> None:
        """Keep the state of a policy as ``state/<prefix>_<number>``."""
        await self.write(policy.checkpoint, self._state(prefix, number))

    async def restore(self, policy: Policy, prefix: str, number: int) -> None:
        """Put a policy back into a state that was kept. Raises `JournalError` where that is gone or damaged."""
        folder = self._state(prefix, number)
        try:
            await policy.restore(folder)
        except (OSError, ValueError, StepError) as error:
            reason = " ".join(str(error).split())
            raise JournalError(f"Cannot read {folder}: {reason}.", "Restore it, or start over with another --run_name.") from error

    def forget(self, prefix: str, before: int) -> None:
        """Remove the states of lower numbers."""
        for old in (self.folder / "state").glob(f"{prefix}_*"):
            if int(old.name.removeprefix(f"{prefix}_")) < before:
                shutil.rmtree(old, ignore_errors=True)

    def _state(self, prefix: str, number: int) -> Path:
        return self.folder / "state" / f"{prefix}_{number}"

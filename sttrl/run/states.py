"""The adapters and states that a policy writes into the run folder. An interrupted run is resumed from a state."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

from sttrl.data import folder_name
from sttrl.engine.base import Policy
from sttrl.errors import JournalError, StepError, error_text, write_fault
from sttrl.ledger.files import make_folder, settle_folder, unwritable

ALL = "all"
"""The name of the adapter of a policy that was trained on all problems."""
UNFINISHED = ".unfinished"
"""The subfolder of ``adapters/`` and ``state/`` for folders that are not completely written yet."""


def kept_adapter(source: Path, problem_id: str) -> Path | None:
    """The adapter of a problem in a run folder or a folder of adapters: its own, else the one for all; None: there is neither."""
    place = source / "adapters" if (source / "adapters").is_dir() else source
    return next((place / name for name in (folder_name(problem_id), ALL) if (place / name).is_dir()), None)


class States:
    """The adapters and states of one run. Each folder is either complete or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tidy(self) -> None:
        """Remove folders that were not completely written when the run was killed."""
        for left in self.folder.glob(f"*/{UNFINISHED}"):
            shutil.rmtree(left, ignore_errors=True)

    def adapter(self, name: str) -> Path:
        """The folder of an adapter."""
        return self.folder / "adapters" / name

    async def write(self, write: Callable[[Path], Awaitable[None]], target: Path) -> None:
        """Let a policy write a folder, completely or not at all. Raises `JournalError` if it cannot be written."""
        temporary = target.parent / UNFINISHED / target.name
        try:
            make_folder(temporary)
            await write(temporary)
            await asyncio.to_thread(settle_folder, temporary, target)
        except Exception as error:
            shutil.rmtree(temporary, ignore_errors=True)  # not for an interrupt: the thread may still be writing there
            fault = write_fault(error)
            if fault is None:
                raise
            raise unwritable(target, fault) from error
        finally:
            with contextlib.suppress(OSError):  # another folder is being written there
                temporary.parent.rmdir()

    async def checkpoint(self, policy: Policy, prefix: str, number: int) -> None:
        """Write the state of a policy to ``state/<prefix>_<number>``."""
        await self.write(policy.checkpoint, self._state(prefix, number))

    async def restore(self, policy: Policy, prefix: str, number: int) -> None:
        """Restore a policy from a state on disk. Raises `JournalError` if the state is missing or damaged."""
        folder = self._state(prefix, number)
        try:
            await policy.restore(folder)
        except (OSError, ValueError, StepError) as error:
            raise JournalError(
                f"Cannot read {folder}: {error_text(error)}.", "Restore it, or start over with another --run_name."
            ) from error

    def forget(self, prefix: str, before: int) -> None:
        """Remove the states whose number is below ``before``."""
        for old in (self.folder / "state").glob(f"{prefix}_*"):
            if int(old.name.removeprefix(f"{prefix}_")) < before:
                shutil.rmtree(old, ignore_errors=True)

    def _state(self, prefix: str, number: int) -> Path:
        return self.folder / "state" / f"{prefix}_{number}"

"""A stand-in for the hub."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class FakeHub:
    """Stands where the packages datasets and huggingface_hub do, and remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, []  # type: ignore[var-annotated]
        self.exceptions = SimpleNamespace(DatasetsError=LookupError)

    def load_dataset(self, repo: str, config: str | None, *, split: str | None, revision: str | None) -> Any:
        self.asked.append((repo, config, split, revision))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def is_offline_mode(self) -> bool:
        return True

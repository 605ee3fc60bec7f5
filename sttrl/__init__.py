"""Language models that adapt themselves, at test time and without labels, to the questions they are asked.

`import sttrl` loads nothing else; what is in `__all__` is loaded when it is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sttrl.library.loaded_run import LoadedRun, load_run

__version__ = "0.1.0"

_PLACES = {
    "LoadedRun": "sttrl.library.loaded_run",
    "load_run": "sttrl.library.loaded_run",
}
"""The module of each public name."""

__all__ = ["LoadedRun", "__version__", "load_run"]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_PLACES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

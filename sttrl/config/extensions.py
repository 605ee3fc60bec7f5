"""Code of other packages and of the user: what a setting may name beside ours.

A setting with a `Choice` takes a name of ours, the name of an entry point of an installed package, or ``package.module:Name``, which is
imported; the current folder is searched too, as ``python -m`` does. What is named must have certain functions (`Part`).
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import tyro

from sttrl.errors import SttrlError, UsageError, error_text

REFERENCE = re.compile(r"(?!hf:)[^\W\d]\w*(?:\.[^\W\d]\w*)*:[^\W\d]\w*(?:\.[^\W\d]\w*)*")
"""``package.module:Name``. ``hf:`` begins the name of a data set on the hub."""
FORM = "package.module:Name"
GROUPS = "sttrl."
"""What begins the names of the groups of entry points."""
NO_SOURCE = "no source"
"""Stands for the hash of code that has no file, such as a module compiled into Python."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A setting that may name code of others. It is written into the annotation of the setting.

    ``noun``: what is named. ``group``: the group of entry points. ``ours``: our names. ``open``: other values are allowed too, such as
    files; the code that reads the setting checks them.
    """

    setting: str
    noun: str
    group: str
    ours: tuple[str, ...] = ()
    open: bool = False

    @property
    def flag(self) -> Any:
        """How ``--help`` shows the setting: our names, and those of installed packages, which are read only then."""
        return tyro.conf.arg(metavar=f"{{{','.join(self.ours)}}}|MODULE:NAME" if self.ours else None, help_behavior_hint=self.hint)

    def hint(self, default: str) -> str:
        """What follows the help of the setting."""
        names = ", ".join(installed(self))
        return f"(default: {default}; installed: {names})" if names else f"(default: {default})"

    def check(self, name: str, value: str) -> None:
        """Raises `UsageError` for a value that names nothing. Nothing is imported."""
        if (remedy := self.remedy(value)) is not None:
            raise UsageError(f"--{name} is {value!r}.", remedy)

    def remedy(self, value: str) -> str | None:
        """What to use instead of a value that names nothing; None for a value that names something."""
        if self.open or value in self.ours or self.reference(value) is not None:
            return None
        names = (*self.ours, *installed(self))
        near = difflib.get_close_matches(value, names, 1)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        return f"{meant}Use {', '.join(map(repr, names))}, or a {self.noun} of your own as {FORM}."

    def reference(self, value: str) -> str | None:
        """``package.module:Name`` for a value that names code of others; None for any other value."""
        if value in self.ours:
            return None
        entry = installed(self).get(value)
        if entry is not None:
            return entry.value.partition("[")[0].strip()
        return value if REFERENCE.fullmatch(value) and not Path(value).exists() else None


@dataclass(frozen=True)
class Part:
    """A function that something must have: its name ("": it is called itself), and the arguments that it is called with."""

    name: str
    arguments: tuple[str, ...]
    awaited: bool = False

    def __str__(self) -> str:
        return f"{'async ' if self.awaited else ''}{self.name}({', '.join(self.arguments)})"


def installed(choice: Choice, ours: Sequence[str] = ()) -> Mapping[str, EntryPoint]:
    """The entry points of installed packages, by name. They are read from the packages' metadata; nothing is imported.

    ``ours``: names of ours that ``choice.ours`` does not have. Raises `UsageError` for a name that is ours, or that two packages have.
    """
    found: dict[str, EntryPoint] = {}
    for entry in _entries(tuple(sys.path)).get(choice.group, ()):
        if entry.name in choice.ours or entry.name in ours:
            raise UsageError(
                f"The {choice.noun} {entry.name!r} of {_package(entry)} ({entry.value}) has the name of sttrl's own {choice.noun} "
                f"{entry.name!r}.",
                f"Uninstall the package, or have it give its entry point in {choice.group} another name.",
            )
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise UsageError(
                f"{_package(other)} ({other.value}) and {_package(entry)} ({entry.value}) both have a {choice.noun} {entry.name!r}.",
                f"Uninstall one of them; or name what you mean, as --{choice.setting} {FORM}, after that.",
            )
    return found


@functools.cache
def _entries(path: tuple[str, ...]) -> dict[str, list[EntryPoint]]:
    """The entry points of each group for sttrl, sorted by name. ``path``: sys.path, on which they depend."""
    all_groups: Any = entry_points()
    groups = [group for group in all_groups.groups if group.startswith(GROUPS)]
    return {group: sorted(all_groups.select(group=group), key=lambda entry: (entry.name, entry.value)) for group in groups}


def _package(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name} {entry.dist.version}" if entry.dist is not None else "a package"


def imported(choice: Choice, value: str) -> Any:
    """What a value of a setting names. Raises `UsageError` if it cannot be imported, which says where the cause is."""
    reference = choice.reference(value)
    assert reference is not None, f"{value} names no code of others"
    said, (module_name, _, names) = f"--{choice.setting} {value}", reference.partition(":")
    see_current_folder()
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise UsageError(f"{said}: there is no module {error.name!r}.", _where_it_is_looked_for(module_name)) from error
        raise _broken(said, module_name, error) from error
    except Exception as error:
        raise _broken(said, module_name, error) from error
    for name in names.split("."):
        if not hasattr(found, name):
            near = difflib.get_close_matches(name, [each for each in dir(found) if not each.startswith("_")], 1)
            raise UsageError(f"{said}: {place_of(found)} has no {name!r}.", f"Did you mean {near[0]!r}?" if near else "Is it spelt so?")
        found = getattr(found, name)
    return found


def _where_it_is_looked_for(module: str) -> str:
    if module.endswith(".py"):
        return f"Write {module.removesuffix('.py')}, without .py."
    return f"It is looked for in the current folder ({Path.cwd()}), in PYTHONPATH and among the installed packages."


def _broken(said: str, module: str, error: Exception) -> UsageError:
    """The error for a module that raises one when it is imported."""
    return UsageError(f"{said}: {module} cannot be imported: {_cause(error)}.", f"`python -c 'import {module}'` shows it all.")


def _cause(error: Exception) -> str:
    """An error of code of others, with the last line that was run."""
    if isinstance(error, SyntaxError):
        place = f"{error.filename}, line {error.lineno}"
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename}, line {last.lineno}"
    return f"{type(error).__name__}: {error_text(error)} ({place})"


@contextmanager
def run_by(choice: Choice, value: str, purpose: str) -> Iterator[None]:
    """A context in which code of others runs before or between the problems, where no boundary of a run catches errors.

    Raises `UsageError` for an error in it, which names the line. ``purpose``: what it was to do, such as ``make its rows``. For names of
    ours nothing is caught.
    """
    try:
        yield
    except SttrlError:
        raise
    except Exception as error:
        if choice.reference(value) is None:
            raise
        raise UsageError(f"--{choice.setting} {value} cannot {purpose}: {_cause(error)}.", "The error is in that code.") from error


def see_current_folder() -> None:
    """Put the current folder where modules are looked for first, as ``python -m`` does."""
    here = os.getcwd()
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)
        importlib.invalidate_caches()


def check_fits(choice: Choice, value: str, thing: Any, parts: Sequence[Part], page: str) -> None:
    """Raises `UsageError` if something lacks a function, or has one that cannot be called as it will be.

    ``page``: the page of docs/ that shows one that fits. A function of a class is also given the instance.
    """
    for fault in _faults(thing, parts):
        needed = " and ".join(f"`{part}`" if part.name else f"is called with {part}" for part in parts)
        raise UsageError(
            f"--{choice.setting} {value} does not fit: {place_of(thing)} {fault}.",
            f"A {choice.noun} {'has ' if parts[0].name else ''}{needed}; docs/{page} shows one.",
        )


def _faults(thing: Any, parts: Sequence[Part]) -> Iterator[str]:
    for part in parts:
        function = getattr(thing, part.name, None) if part.name else thing
        called = f"`{part.name}`" if part.name else "it"
        if function is None:
            yield f"has no `{part}`"
        elif not callable(function):
            yield f"has {called}, which is no function" if part.name else "is no function"
        elif not _takes(function, len(part.arguments) + (inspect.isclass(thing) and bool(part.name))):
            yield f"cannot be called so: {called} takes {inspect.signature(function)}, and is given {part}"
        elif part.awaited and not inspect.iscoroutinefunction(function):
            yield f"has {called}, which is no `async def`"


def _takes(function: Any, count: int) -> bool:
    """Whether a function can be called with so many positional arguments. Functions written in C may not say it: then yes."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        return True
    return True


def place_of(thing: Any) -> str:
    """Where something is written: what it is, its file and its line."""
    if inspect.ismodule(thing):
        return f"{thing.__name__} ({getattr(thing, '__file__', None) or NO_SOURCE})"
    name = getattr(thing, "__qualname__", None) or f"an object of the type {type(thing).__name__}"
    try:
        return f"{name} ({inspect.getsourcefile(thing)}, line {inspect.getsourcelines(thing)[1]})"
    except (TypeError, OSError):
        return name


def code_of(choice: Choice, value: str) -> str | None:
    """What a run depends on besides its settings: ``package.module:Name`` and a hash of its source; None for a name of ours.

    The source is that of the module; of a module in a package, all Python files of the package.
    """
    reference = choice.reference(value)
    if reference is None:
        return None
    see_current_folder()
    module = reference.partition(":")[0]
    digest = hashlib.sha256()
    files = _files(module)
    for name, file in files:
        digest.update(f"{name}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return f"{reference} {digest.hexdigest()[:16] if files else NO_SOURCE}"


def _files(module: str) -> list[tuple[str, Path]]:
    """The files of a module's source, each with its place in the package; empty if it has none."""
    top = _spec(module.partition(".")[0])
    if top is not None and top.origin is not None and top.submodule_search_locations:
        folder = Path(top.origin).parent
        return [(file.relative_to(folder).as_posix(), file) for file in sorted(folder.rglob("*.py"))]
    own = _spec(module)
    file = Path(own.origin) if own is not None and own.origin is not None else None
    return [(file.name, file)] if file is not None and file.is_file() else []


def _spec(module: str) -> Any:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None

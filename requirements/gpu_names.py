"""Do the GPU environment's packages have every class, function, argument and private name that the engine uses? Without a GPU.

    python requirements/gpu_names.py CACHE [pip option ...]

Packages that requirements/gpu.txt pins otherwise than this environment has them are downloaded into the folder CACHE and unpacked, not
installed. mypy then reads sttrl/engine and sttrl/objectives twice, with the packages of this environment and with those. What it finds with
those alone is missing or different on GPUs. The first time takes minutes, 3 GiB of memory and 1 GiB of CACHE. What mypy cannot see are
values of type Any, names in strings, and what functions do. Exit codes: 0 nothing is missing, 1 something is, 2 pip or mypy failed.
"""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("sttrl/engine", "sttrl/objectives")
SMALLER = {"torch": ("macosx_14_0_arm64", "macosx_11_0_arm64")}
"""Platforms whose wheel has the same Python sources at a tenth of the size."""
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;+]+)")
SOURCES = (".py", ".pyi", "py.typed")
SETTINGS = f"""\
[mypy]
follow_imports = silent
follow_untyped_imports = True
check_untyped_defs = True
show_error_context = False
plugins = {Path(__file__).with_name("used_names.py")}
"""
"""Unlike the project's own, these follow every import."""

Names = dict[str, set[str]]
"""Full name of what is called: its parameters, those of all overloads together."""


@dataclass(frozen=True)
class Package:
    """One package that the engine imports: as it is installed here, and as requirements/gpu.txt pins it."""

    name: str
    here: str
    there: str


@dataclass(frozen=True)
class Reading:
    """What mypy said of our files, and what they call."""

    errors: tuple[str, ...]
    names: Names


def imported(root: Path, rooms: Sequence[str] = ROOMS) -> set[str]:
    """Top-level names of the packages that the files of some rooms import."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for room in rooms for file in (root / room).rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {module.partition(".")[0] for module in modules}


def pins(file: Path) -> dict[str, str]:
    """The exact pins of a requirements file."""
    return {match[1]: match[2] for line in file.read_text(encoding="utf-8").splitlines() if (match := PIN.match(line))}


def pins_of(*files: Path) -> dict[str, str]:
    """The exact pins of several requirements files: those that requirements/gpu.txt includes."""
    return {name: version for file in files for name, version in pins(file).items()}


def packages(names: set[str], pinned: Mapping[str, str]) -> list[Package]:
    """Those of the packages that are pinned for GPUs. ``here`` says which distribution it is, where that has another name."""
    owners, found = metadata.packages_distributions(), []
    for name in sorted(names & set(pinned)):
        owner = owners[name][0]
        version = metadata.version(owner).partition("+")[0]
        found.append(Package(name, version if owner == name else f"{version} ({owner})", pinned[name]))
    return found


def download(package: Package, cache: Path, options: Sequence[str]) -> Path:
    """The folder with the sources of a package as GPUs have it. Raises CalledProcessError where pip fails."""
    folder = cache / f"{package.name}-{package.there}"
    if not folder.exists():
        platforms = [word for platform in SMALLER.get(package.name, ()) for word in ("--platform", platform)]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--quiet", "--no-deps", "--only-binary=:all:", *platforms]
        wheels = cache / "wheels"
        subprocess.run([*command, "--dest", str(wheels), f"{package.name}=={package.there}", *options], check=True)
        (wheel,) = wheels.glob(f"{package.name}-{package.there}-*.whl")
        unpack(wheel, folder)
        wheel.unlink()
    return folder


def unpack(wheel: Path, folder: Path) -> None:
    """Unpack the Python sources of a wheel, whole or not at all."""
    draft = folder.with_suffix(".draft")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(draft, [name for name in archive.namelist() if name.endswith(SOURCES)])
    draft.rename(folder)


def read(root: Path, cache: Path, name: str, counted: Sequence[str], first: Sequence[Path] = ()) -> Reading:
    """What mypy says of the rooms with the packages in the folders ``first`` before those of this environment.

    Raises CalledProcessError where mypy cannot read them.
    """
    settings, used = cache / "mypy.ini", cache / f"{name}.names"
    settings.write_text(SETTINGS, encoding="utf-8")
    used.write_text("", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--config-file", str(settings), "--cache-dir", str(cache / f"{name}.mypy")]
    variables = {"MYPYPATH": os.pathsep.join(map(str, first)), "USED_NAMES": str(used), "USED_PACKAGES": ",".join(counted)}
    done = subprocess.run([*command, *ROOMS], cwd=root, env={**os.environ, **variables}, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
    errors = tuple(line for line in done.stdout.splitlines() if line.startswith("sttrl/") and ": error:" in line)
    names: Names = {}
    for called, parameters in map(json.loads, used.read_text(encoding="utf-8").splitlines()):
        names.setdefault(called, set()).update(parameters)
    return Reading(errors, names)


def missing(here: Reading, there: Reading) -> list[str]:
    """What mypy finds with the other packages alone."""
    return [error for error in there.errors if error not in here.errors]


def differences(here: Names, there: Names) -> Iterator[str]:
    """A line for each name that both have, with other parameters."""
    for name in sorted(set(here) & set(there)):
        words = [f"lacks {each}" for each in sorted(here[name] - there[name])]
        words += [f"adds {each}" for each in sorted(there[name] - here[name])]
        if words:
            yield f"{name}: {'; '.join(words)}"


def report(compared: Sequence[Package], here: Reading, there: Reading) -> int:
    """Print what is missing and what differs; return the exit code."""
    broken = missing(here, there)
    for line in differences(here.names, there.names):
        print(f"differs: {line}")
    for line in broken:
        print(f"missing: {line}")
    versions = ", ".join(f"{package.name} {package.there} beside {package.here}" for package in compared)
    print(f"{len(here.names)} names of {versions}: {f'{len(broken)} complaints' if broken else 'nothing is missing'}")
    return 1 if broken else 0


def main(arguments: Sequence[str]) -> int:
    """Compare, and print what was found; return the exit code."""
    if not arguments or arguments[0].startswith("-"):
        print("Usage: python requirements/gpu_names.py CACHE [pip option ...]", file=sys.stderr)
        return 2
    cache = Path(arguments[0]).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    found = packages(imported(ROOT), pins_of(ROOT / "requirements/engine.in", ROOT / "requirements/engine-gpu.in"))
    compared = [package for package in found if package.here != package.there]
    print(f"the same here and on GPUs: {', '.join(f'{p.name} {p.there}' for p in found if p not in compared)}")
    try:
        folders = [download(package, cache, arguments[1:]) for package in compared]
        counted = [package.name for package in compared]
        return report(compared, read(ROOT, cache, "here", counted), read(ROOT, cache, "gpu", counted, folders))
    except subprocess.CalledProcessError as error:
        print(f"{error}\n{error.stdout or ''}{error.stderr or ''}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

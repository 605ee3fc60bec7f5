"""A sweep: the runs that a YAML file describes, and their names.

```yaml
name: votes               # default: the name of the file
base: {dataset: arithmetic-demo, steps: 2}                # settings of every run
axes: {voting_function: [majority, energy], seed: [0, 1]} # every combination is a run; the last axis changes fastest, but seed slowest
runs: [{adaptation_method: sttrl}, {n_votes: 32}]         # without axes each entry is a run, else each is combined with all combinations
skip: [{voting_function: energy, seed: 1}]                # a combination that has all values of an entry is left out
baseline: energy-seed0                                    # a run to which all others are compared, question by question
```

Settings of ``axes`` and ``runs`` override ``base``, and all of them override a ``preset``. null stands for the preset's value or the
default. A setting of ``base`` that does nothing for one
run, such as the rank of LoRA where stored adapters are taken, is left out of that run; its config.json has the default then.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sttrl.config import default_settings, field_names, has_effect, with_preset
from sttrl.config.yaml_settings import known_settings, nearest, read_mapping, typed
from sttrl.errors import UsageError

PARTS = ("name", "base", "axes", "runs", "skip", "baseline")
PLACES = frozenset({"output_dir", "run_name", "config"})
"""Settings that a sweep file may not have: the folder of a run is always <output_dir>/<sweep>/<run>."""
UNSAFE = re.compile(r"[^A-Za-z0-9_.+-]+")
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
LONGEST_NAME = 100

Values = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run. ``values``: its settings from axes and runs, null as None; ``settings``: these and those of base, without None."""

    name: str
    values: dict[str, object]
    settings: dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The runs of a sweep, in order. Their names are unique and can be names of folders. ``baseline``: the run that the others are
    compared to."""

    name: str
    axes: dict[str, tuple[object, ...]]
    runs: tuple[SweepRun, ...]
    baseline: str | None = None


def read_sweep(file: Path) -> Sweep:
    """Read a YAML file that describes a sweep. Raises `UsageError` with the cause, its place and the remedy."""
    where = f"sweep {file}"
    content = read_mapping(file, where)
    _check_parts(content, where)
    base = typed(_settings(content.get("base"), f"{where}: base"), f"{where}: base")
    axes = _axes(content.get("axes"), f"{where}: axes")
    rows = _rows(content.get("runs"), f"{where}: runs")
    _check_rows(rows, axes, where)
    chosen = _kept(_combinations(rows, axes), base, _rows(content.get("skip"), f"{where}: skip"), where)
    _check_different(chosen, base, where)
    settings = [{**_read_by(base, values), **values} for values in chosen]
    _check_read(base, settings, where)
    runs = tuple(
        SweepRun(name=name, values=values, settings={key: value for key, value in every.items() if value is not None})
        for name, values, every in zip(_names(chosen), chosen, settings, strict=True)
    )
    baseline = _baseline(content.get("baseline"), [run.name for run in runs], where)
    return Sweep(name=_sweep_name(content.get("name"), file, where), axes=axes, runs=runs, baseline=baseline)


def _baseline(name: object, names: Sequence[str], where: str) -> str | None:
    if name is not None and name not in names:
        raise UsageError(f"{where}: baseline is {name!r}, and no run has this name.", f"Runs: {', '.join(names)}.")
    return None if name is None else str(name)


def _check_parts(content: Mapping[object, object], where: str) -> None:
    for part in map(str, content):
        if part not in PARTS:
            is_setting = part.replace("-", "_") in field_names()
            remedy = "Settings of every run go under base." if is_setting else f"{nearest(part, PARTS)} Parts are {', '.join(PARTS)}."
            raise UsageError(f"{where}: there is no part {part!r}.", remedy.strip())


def _settings(section: object, where: str) -> Values:
    """The settings of a section, with their names checked."""
    if not isinstance(section, dict | None):
        raise UsageError(f"{where} is {section!r}.", "Write one `name: value` a line.")
    named = known_settings(section or {}, where)
    for name in named:
        if name in PLACES:
            remedy = "Write its settings under base." if name == "config" else "A run's folder is <output_dir>/<sweep>/<run>."
            raise UsageError(f"{where}: {name} has no place in a sweep.", remedy)
    return named


def _axes(section: object, where: str) -> dict[str, tuple[object, ...]]:
    axes: dict[str, tuple[object, ...]] = {}
    for name, values in _settings(section, where).items():
        if not isinstance(values, list) or not values:
            raise UsageError(f"{where}: {name} is {values!r}.", f"Give a list of at least one value: {name}: [...].")
        axes[name] = tuple(typed({name: value}, where)[name] for value in values)
    return axes


def _rows(section: object, where: str) -> list[Values]:
    if section is None:
        return []
    if not isinstance(section, list) or not section:
        raise UsageError(f"{where} is {section!r}.", "Give a list of settings: [{name: value}, ...].")
    places = [f"{where}, entry {number}" for number in range(1, len(section) + 1)]
    return [typed(_settings(row, place), place) for row, place in zip(section, places, strict=True)]


def _check_rows(rows: Iterable[Values], axes: Mapping[str, object], where: str) -> None:
    if not rows and not axes:
        raise UsageError(f"{where} asks for no run.", "Give axes, runs or both.")
    for number, row in enumerate(rows, start=1):
        for name in row.keys() & axes.keys():
            raise UsageError(f"{where}: runs, entry {number}: {name} is an axis too.", "Set it in one of them.")


def _combinations(rows: list[Values], axes: Mapping[str, tuple[object, ...]]) -> list[Values]:
    """Every row with every combination of the axes; the last axis changes fastest.

    All runs with the first seed come first, so a sweep that is interrupted has the whole table of a seed as early as possible.
    """
    found = [{**row, **dict(zip(axes, chosen, strict=True))} for row in rows or [{}] for chosen in itertools.product(*axes.values())]
    return sorted(found, key=lambda values: axes["seed"].index(values["seed"])) if "seed" in axes else found


def _kept(combinations: list[Values], base: Values, skip: list[Values], where: str) -> list[Values]:
    """The combinations that match no entry of ``skip``."""
    resolved = [_resolved(base, values) for values in combinations]
    kept = [True] * len(combinations)
    for number, entry in enumerate(skip, start=1):
        hits = [all(full[name] == value for name, value in entry.items()) for full in resolved]
        if not entry or not any(hits):
            raise UsageError(f"{where}: skip, entry {number} describes {'no' if entry else 'every'} run.", "Correct it or leave it out.")
        kept = [keep and not hit for keep, hit in zip(kept, hits, strict=True)]
    if not any(kept):
        raise UsageError(f"{where}: skip leaves no run.", "Leave out fewer.")
    return [values for values, keep in zip(combinations, kept, strict=True) if keep]


def _read_by(base: Values, values: Values) -> Values:
    """The settings of ``base`` that a run with these values reads."""
    every = _resolved(base, values)
    return {name: value for name, value in base.items() if has_effect(name, every)}


def _check_read(base: Values, settings: Sequence[Values], where: str) -> None:
    """Raises `UsageError` for a setting of ``base`` that no run reads."""
    for name in base:
        if not any(name in every for every in settings):
            raise UsageError(f"{where}: base: {name} does nothing for any of the runs.", "Leave it out.")


def _check_different(combinations: list[Values], base: Values, where: str) -> None:
    seen: list[Values] = []
    for values in combinations:
        if (resolved := _resolved(base, values)) in seen:
            shown = ", ".join(f"{name}: {value}" for name, value in values.items()) or "base alone"
            raise UsageError(f"{where}: two runs are the same: {shown}.", "Ask for each once; what is not set has its default.")
        seen.append(resolved)


def _resolved(base: Values, values: Values) -> Values:
    """All settings of a run; null is replaced by the preset's value or the default."""
    given = {name: value for name, value in {**base, **values}.items() if value is not None}
    return {**default_settings(), **with_preset(given)}


def _names(combinations: list[Values]) -> list[str]:
    """A name for each run, made of its values. Equal names and long names end in a hash of the values."""
    plain = [UNSAFE.sub("_", "-".join(_word(*item) for item in values.items())).lstrip("-._+") or "base" for values in combinations]
    times = Counter(plain)
    return [
        name if times[name] == 1 and len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{_digest(values)}"
        for name, values in zip(plain, combinations, strict=True)
    ]


def _word(name: str, value: object) -> str:
    """A value as a part of a name: a text alone (sttrl), a number with its setting (seed0)."""
    if value is None:
        return f"default_{name}"
    if isinstance(value, bool):
        return name if value else f"no_{name}"
    if isinstance(value, int | float):
        return f"{name}{value:g}" if isinstance(value, float) else f"{name}{value}"
    if isinstance(value, tuple) and len(value) != 1:
        return name + "+".join(value)
    return str(value[0] if isinstance(value, tuple) else value).rstrip("/").split("/")[-1]


def _digest(values: Values) -> str:
    floats = {name: float(value) if type(value) is int else value for name, value in values.items()}
    return hashlib.sha256(json.dumps(floats, sort_keys=True, default=str).encode()).hexdigest()[:8]


def _sweep_name(name: object, file: Path, where: str) -> str:
    chosen = file.stem if name is None else str(name)
    if not SAFE_NAME.fullmatch(chosen):
        raise UsageError(f"{where}: {chosen!r} cannot be the name of a folder.", "Give name: letters, digits, dots, dashes, underscores.")
    return chosen

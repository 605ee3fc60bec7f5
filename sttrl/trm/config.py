"""Reads the settings of a training run from YAML in the original's layout and from a command line, and writes all_config.yaml.

Settings are kept by their dotted names while they are collected: those of an architecture preset, then those of the file, then those of the
command line; the later win.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from sttrl.config import packaged
from sttrl.config.yaml_settings import read_mapping
from sttrl.errors import UsageError, error_text
from sttrl.trm.arch import ArchConfig, LossConfig
from sttrl.trm.overrides import Override, read_overrides
from sttrl.trm.train_config import EvaluatorConfig, TrainConfig

__all__ = ["CONFIGS", "EvaluatorConfig", "TrainConfig", "as_mapping", "as_yaml", "config_of", "fields", "flat", "read_config"]

CONFIGS: Final = packaged.CONFIGS / "trm"
"""The published configurations, and below it the presets of ``arch``."""
FOLLOWS: Final = "${.hidden_size}"
"""What the original writes for ``arch.puzzle_emb_ndim``: as ``arch.hidden_size``."""
ARCH_CHOICE: Final = "arch"
HYDRA_KEYS: Final = ("defaults", "hydra")
MAPPING: Final = re.compile(r"([{,]\s*\w+):(?=\S)")
"""A key of a mapping in Hydra's form, which needs no space after the colon."""
CLOSE: Final = 0.85
"""How similar (0 to 1) a setting must be to an unknown name with ``arch.`` before it, to be suggested for it. It is above difflib's 0.6,
because the common ``arch.`` makes all of them similar."""
NOTHING: Final = ("null", "none", "")
"""Texts that mean None, where a setting may be unset."""


def read_config(file: Path | None, overrides: Sequence[str] = ()) -> TrainConfig:
    """The settings of a file, or the defaults, with those of a command line over them. Raises `UsageError`."""
    content = {} if file is None else read_mapping(file, f"--config {file}")
    return config_of(content, overrides, where="" if file is None else f"--config {file}: ", folder=None if file is None else file.parent)


def config_of(content: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str = "", folder: Path | None = None) -> TrainConfig:
    """The settings of a mapping in the original's layout. ``where`` begins the messages about it. Raises `UsageError`.

    A mapping with the fork's key ``entity`` and no ``optimiser`` is a configuration of the fork, which runs adam_atan2_pytorch.
    """
    given = read_overrides(overrides, _switches())
    flags = [override for override in given if override.name != ARCH_CHOICE]
    chosen = next((override.values for override in reversed(given) if override.name == ARCH_CHOICE), None)
    preset, values = _of_mapping(content, where)
    if chosen is not None:
        if preset is None:
            values = {name: value for name, value in values.items() if not name.startswith("arch.")}
        preset = " ".join(chosen)
    if "entity" in content and "optimiser" not in content:
        values["optimiser"] = "adam_atan2_pytorch"
    settings = _of_preset(preset, folder) | values | {override.name: _of_override(override) for override in flags}
    return _built(settings)


def as_mapping(config: TrainConfig) -> dict[str, Any]:
    """All settings as plain values in the layout of the original's all_config.yaml; reading them back gives an equal configuration."""
    arch = dataclasses.replace(config.arch, puzzle_emb_ndim=config.arch.row_size)
    return {name: _plain(value) for name, value in dataclasses.asdict(dataclasses.replace(config, arch=arch)).items()}


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings in the form of `as_mapping`, by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def as_yaml(config: TrainConfig) -> str:
    """The text of all_config.yaml."""
    import yaml

    return yaml.safe_dump(as_mapping(config), sort_keys=True, allow_unicode=True)


@cache
def fields() -> Mapping[str, Any]:
    """The type of each setting, by its dotted name."""
    return dict(_fields(TrainConfig, ""))


def _fields(kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, hint in typing.get_type_hints(kind).items():
        if not any(field.name == name for field in dataclasses.fields(kind)):
            continue
        if hint in (ArchConfig, LossConfig):
            yield from _fields(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


@cache
def _adapter(name: str) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(fields()[name])


@cache
def _switches() -> frozenset[str]:
    return frozenset(name for name, hint in fields().items() if hint is bool)


def _of_mapping(content: Mapping[str, Any], where: str) -> tuple[str | None, dict[str, Any]]:
    """The preset that a mapping chooses, and its settings by dotted name."""
    preset = _default_arch(content.get("defaults"), where)
    own = {str(name): value for name, value in content.items() if name not in HYDRA_KEYS}
    if isinstance(own.get("arch"), str):
        preset = own.pop("arch")
    return preset, {name: _typed(name, value, f"{where}{name}: {value!r}") for name, value in _flat(own, "", where)}


def _default_arch(defaults: Any, where: str) -> str | None:
    """The architecture that Hydra's list of defaults chooses."""
    preset = None
    for entry in defaults or ():
        if isinstance(entry, Mapping) and set(entry) == {"arch"}:
            preset = str(entry["arch"])
        elif entry != "_self_":
            raise UsageError(f"{where}defaults has {entry!r}.", "It may choose `arch: NAME`; write other settings into the file itself.")
    return preset


def _of_preset(name: str | None, folder: Path | None) -> dict[str, Any]:
    """The settings of an architecture's preset: a file, or one of the folder ``arch`` beside the configuration or among ours."""
    if name is None:
        return {}
    places = [place / "arch" for place in (folder, Path("configs/trm"), CONFIGS) if place is not None]
    tried = [place / f"{name.removesuffix('.yaml')}.yaml" for place in places] + [Path(name)]
    file = next((path for path in tried if path.is_file()), None)
    if file is None:
        known = sorted({path.stem for place in places for path in place.glob("*.yaml")})
        raise UsageError(f"arch={name}: there is no such architecture.", f"Known: {', '.join(known)}. Or give a YAML file.")
    content = read_mapping(file, f"arch={name}: {file}")
    settings = _flat({"arch": content}, "", f"{file}: ")
    return {key: _typed(key, value, f"{file}: {key.removeprefix('arch.')}: {value!r}") for key, value in settings}


def _flat(content: Mapping[str, Any], prefix: str, where: str) -> Iterator[tuple[str, Any]]:
    """Settings by their dotted names. Raises `UsageError` for an unknown name."""
    groups = {"arch.", "arch.loss."}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if f"{name}." in groups:
            if not isinstance(value, Mapping):
                raise UsageError(f"{where}{name} is {value!r}.", "Write its keys below it.")
            yield from _flat(value, f"{name}.", where)
        else:
            yield check_name(name, where), value


def check_name(name: str, where: str = "") -> str:
    """The name of a setting. Raises `UsageError` for another name, with the nearest that there is."""
    known = fields()
    if name in known:
        return name
    if name.split(".")[0] in HYDRA_KEYS:
        raise UsageError(f"{where}{name} is a setting of Hydra, which is not used here.", "Leave it out.")
    same = [other for other in known if other.rpartition(".")[2] == name.rpartition(".")[2]]
    near = same or difflib.get_close_matches(name, known, 1) or difflib.get_close_matches(f"arch.{name}", known, 1, CLOSE)
    raise UsageError(f"{where}there is no setting {name!r}.", f"Did you mean {near[0]!r}?" if near else "See --help.")


def _of_override(override: Override) -> Any:
    """The value of a setting of a command line. Raises `UsageError`."""
    kind = fields()[check_name(override.name)]
    if not override.values:
        raise UsageError(f"--{override.name} has no value.", f"Write --{override.name} VALUE or {override.name}=VALUE.")
    several = typing.get_origin(kind) is tuple
    if len(override.values) > 1 and not several:
        raise UsageError(f"{override.text}: {override.name} takes one value.", "Leave the others out.")
    if not several:
        return _typed(override.name, _unquoted(override.values[0]), override.text)
    parts = [_parsed(value, override.text) for value in override.values]
    return _typed(override.name, parts[0] if len(parts) == 1 else parts, override.text)


def _unquoted(text: str) -> str:
    """A value without the quotes that Hydra takes off."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _parsed(text: str, where: str) -> Any:
    """An entry of a list, or a list in brackets, as Hydra and YAML write it."""
    import yaml

    if text[:1] not in "[{'\"" or not text:
        return text or []
    try:
        return yaml.safe_load(MAPPING.sub(r"\1: ", text))
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is no list: {error_text(error)}.", "Write [a, b].") from error


def _typed(name: str, value: Any, where: str) -> Any:
    """A value of its setting's type. Raises `UsageError`, whose message begins with ``where``."""
    from pydantic import ValidationError

    kind = fields()[name]
    optional = type(None) in typing.get_args(kind)
    if value is None or (isinstance(value, str) and value.lower() in NOTHING and (optional or not value)):
        if not optional and typing.get_origin(kind) is not tuple:
            raise UsageError(f"{where}: it cannot be left empty.", f"Its default is {_default(name)}.")
        return () if not optional else None
    if name == "arch.puzzle_emb_ndim" and value == FOLLOWS:
        return FOLLOWS
    try:
        if typing.get_origin(kind) is tuple:
            items = value if isinstance(value, list | tuple) else [value]
            return _adapter(name).validate_python([_evaluator(item, where) if name == "evaluators" else _text(item) for item in items])
        if isinstance(value, bool) != (kind is bool) and not (kind is bool and isinstance(value, str)):
            raise UsageError(f"{where}: it cannot be {value!r}.", f"An example is {_default(name)}; see --help.")
        return _adapter(name).validate_python(_text(value))
    except ValidationError as error:
        raise UsageError(f"{where}: {error.errors()[0]['msg'][:1].lower()}{error.errors()[0]['msg'][1:]}.", "See --help.") from error


def _text(value: Any) -> Any:
    """A scalar as text: a name may look like a number, and YAML reads 1e-3 as text."""
    return value if isinstance(value, bool | dict | list) else str(value)


def _evaluator(value: Any, where: str) -> EvaluatorConfig:
    """An entry of ``evaluators``: a name, or a mapping. Raises `UsageError`."""
    from pydantic import TypeAdapter, ValidationError

    entry = {"name": value} if isinstance(value, str) else value
    known = [field.name for field in dataclasses.fields(EvaluatorConfig)]
    if not isinstance(entry, Mapping) or not set(entry) <= set(known):
        raise UsageError(f"{where}: an evaluator cannot be {value!r}.", f"Its keys are {', '.join(known)}.")
    try:
        return TypeAdapter(EvaluatorConfig).validate_python(entry)
    except ValidationError as error:
        raise UsageError(f"{where}: {error.errors()[0]['msg']}.", "The evaluator is arc@ARC; see --help.") from error


def _default(name: str) -> Any:
    config: Any = TrainConfig()
    for part in name.split("."):
        config = getattr(config, part)
    return _plain(config)


def _built(settings: Mapping[str, Any]) -> TrainConfig:
    values = dict(settings)
    width = values.get("arch.hidden_size", ArchConfig().hidden_size)
    if values.get("arch.puzzle_emb_ndim", FOLLOWS) in (FOLLOWS, None):
        values["arch.puzzle_emb_ndim"] = width
    loss = {name.removeprefix("arch.loss."): value for name, value in values.items() if name.startswith("arch.loss.")}
    arch = {name.removeprefix("arch."): value for name, value in values.items() if name.startswith("arch.") and name.count(".") == 1}
    top = {name: value for name, value in values.items() if "." not in name}
    return TrainConfig(**top, arch=ArchConfig(**arch, loss=LossConfig(**loss)))


def _plain(value: Any) -> Any:
    """A value as JSON and YAML hold it."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, Path) else value

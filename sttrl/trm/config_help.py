"""The text of ``trm train --help``: every setting with its default and its documentation, which is the string below it in the source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any, Final

from sttrl.trm.arch import ArchConfig, LossConfig
from sttrl.trm.config import as_mapping, flat
from sttrl.trm.train_config import EvaluatorConfig, TrainConfig

GROUPS: Final[tuple[tuple[str, type], ...]] = (
    ("", TrainConfig),
    ("arch.", ArchConfig),
    ("arch.loss.", LossConfig),
    ("evaluators[].", EvaluatorConfig),
)
"""Settings by what stands before their names."""
WIDTH: Final = 120
USAGE: Final = """Settings are written key=value, --key value or, in a YAML file, key: value; a command line wins over the file.
arch=NAME chooses an architecture of configs/trm/arch. --config FILE, or the name of a configuration of configs/trm."""


def documentation() -> dict[str, str]:
    """The documentation of every setting, by its dotted name."""
    return {
        prefix + name: text
        for prefix, kind in GROUPS
        for name, text in _documented(kind).items()
        if prefix + name not in ("arch", "arch.loss")
    }


def help_text() -> str:
    """Every setting: its name, its default, and what it is."""
    parts = [USAGE]
    defaults = flat(as_mapping(TrainConfig())) | flat(as_mapping_of_evaluator(), "evaluators[].")
    for name, text in documentation().items():
        parts.append(
            f"  {name} ({_shown(defaults[name])})\n" + textwrap.fill(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
        )
    return "\n".join(parts)


def as_mapping_of_evaluator() -> dict[str, Any]:
    """The defaults of an evaluator."""
    evaluators: list[dict[str, Any]] = as_mapping(TrainConfig(evaluators=(EvaluatorConfig(),)))["evaluators"]
    return evaluators[0]


def _documented(kind: type) -> dict[str, str]:
    """The strings below the fields of a record, by field, on one line each."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for own, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(own, ast.AnnAssign) and isinstance(own.target, ast.Name) and isinstance(after, ast.Expr):
            assert isinstance(after.value, ast.Constant)
            found[own.target.id] = " ".join(str(after.value.value).split())
    return found


def _shown(default: Any) -> str:
    """A default as YAML writes it."""
    if default is None or isinstance(default, bool):
        return {None: "unset", True: "true", False: "false"}[default]
    if isinstance(default, list):
        return "[" + ", ".join(item["name"] if isinstance(item, dict) else str(item) for item in default) + "]"
    return str(default)

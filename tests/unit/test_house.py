"""What no linter's rule can say of the source; its other rules are in pyproject.toml, `[tool.ruff.lint]` and `[tool.importlinter]`."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "sttrl").rglob("*.py"))
FORBIDDEN = {
    "compile": "text of a model or a file is never run",
    "__import__": "text of a model or a file is never run",
    "hash": "it differs from process to process, and a seed must not",
}


def offences(source: str) -> list[str]:
    """Calls of builtins that are forbidden, and remote code that is allowed without the user's word."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += [f"line {node.lineno}: {name}: {FORBIDDEN[name]}"] if name in FORBIDDEN else []
            trusts = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}.get("trust_remote_code")
            found += [f"line {node.lineno}: {name}: remote code is the user's choice"] if trusts == "True" else []
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_foreign_is_executed_and_no_seed_differs_between_processes(path: Path) -> None:
    assert offences(path.read_text(encoding="utf-8")) == []


def test_the_check_sees_what_it_looks_for() -> None:
    loads = "load(x, trust_remote_code=True)\nload(x, trust_remote_code=chosen)\n"
    source = f"compile(x, '', 'exec')\nre.compile(x)\n__import__(x)\nhash(x)\n{loads}"
    assert [said.split(":")[0] for said in offences(source)] == ["line 1", "line 3", "line 4", "line 5"]

"""The rules of the house, read from the source: who may import whom, what nobody does, and how long things may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "sttrl").rglob("*.py"))

FLOOR = {
    "main": 9, "cli": 8, "launch": 7, "report": 6, "run": 5, "methods": 4, "engine": 3, "data": 3, "track": 3,
    "answers": 2, "voting": 2, "objectives": 2, "settings": 2, "config": 1, "template": 0.5, "defaults": 0, "types": 0, "errors": 0,
}  # fmt: skip
"""Imports go down only. ``launch`` and ``track``, which the design's list does not name, are where what they use puts them."""
HEAVY = {"torch", "ray", "vllm", "verl"}
HEAVY_ROOMS = {"engine", "objectives", "trm"}
LIGHT_IN_ENGINE = {"engine", "engine.base", "engine.environment"}
MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60


def module_of(path: Path) -> str:
    """Dotted name below sttrl: ``engine.base``; the package itself is ``""``."""
    return ".".join(path.relative_to(ROOT / "sttrl").with_suffix("").parts).removesuffix("__init__").removesuffix(".")


def room_of(module: str) -> str:
    return module.split(".")[0]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of what is imported anywhere in a tree; ``from a import b`` gives both ``a`` and ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_top(tree: ast.Module) -> ast.Module:
    """The statements that run when the module is imported: no function bodies, no TYPE_CHECKING blocks."""

    class Top(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    top = Top().visit(tree)
    assert isinstance(top, ast.Module)
    return top


def modules_imported(tree: ast.AST, names: set[str]) -> Iterator[str]:
    """The modules of sttrl whose names are asked for; ``from sttrl.a import b`` asks for ``a.b`` where that is a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sttrl."):
            package = str(node.module).removeprefix("sttrl.")
            yield from (full if (full := f"{package}.{alias.name}") in names else package for alias in node.names)


def rooms_imported(path: Path) -> dict[str, set[str]]:
    """The modules of sttrl that a file imports, by room."""
    rooms: dict[str, set[str]] = {}
    for name in imported(tree_of(path)):
        if name.startswith("sttrl."):
            module = name.removeprefix("sttrl.")
            rooms.setdefault(room_of(module), set()).add(module)
    return rooms


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_down_only(path: Path) -> None:
    room = room_of(module_of(path))
    if not room:
        assert not rooms_imported(path)
        return
    assert room in FLOOR, f"give the room {room} a floor in DESIGN.md and here"
    upward = {other for other in rooms_imported(path) if other != room and FLOOR[other] >= FLOOR[room]}
    assert not upward, f"{path} imports {upward} from the same floor or above"


def test_no_circles_between_modules() -> None:
    edges = {}
    names = {module_of(path) for path in FILES}
    for path in FILES:
        edges[module_of(path)] = set(modules_imported(at_top(tree_of(path)), names)) - {module_of(path)}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"a circle: {' -> '.join([*trail[trail.index(module) :], module])}"
        if module not in done:
            for other in edges[module]:
                visit(other, (*trail, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def test_report_knows_no_method_and_no_engine() -> None:
    for path in FILES:
        if room_of(module_of(path)) == "report":
            assert not {"methods", "engine"} & set(rooms_imported(path)), path


def test_methods_and_runner_see_the_protocols_only() -> None:
    for path in FILES:
        if room_of(module_of(path)) in ("methods", "run"):
            seen = {module for module in rooms_imported(path).get("engine", set()) if not module.startswith("engine.base")}
            assert not seen, f"{path} sees {seen}"


def test_methods_know_no_files_processes_or_labels() -> None:
    for path in FILES:
        if room_of(module_of(path)) == "methods":
            names = {name.split(".")[0] for name in imported(tree_of(path))}
            assert not names & {"os", "pathlib", "io", "subprocess", *HEAVY} and "data" not in rooms_imported(path), path


def test_labels_are_read_by_the_report_and_the_check_of_a_data_set_only() -> None:
    readers = {module_of(path) for path in FILES if any(name.startswith("sttrl.data.labels") for name in imported(tree_of(path)))}
    assert readers == {"report.labels", "data.check"}


def test_only_the_launcher_builds_an_engine() -> None:
    builders = {module_of(path) for path in FILES if "sttrl.engine.lanes" in set(imported(tree_of(path)))}
    assert builders == {"launch"}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_heavy_packages_stay_in_their_rooms(path: Path) -> None:
    module = module_of(path)
    anywhere = {name.split(".")[0] for name in imported(tree_of(path))} & HEAVY
    on_import = {name.split(".")[0] for name in imported(at_top(tree_of(path)))} & HEAVY
    if room_of(module) in HEAVY_ROOMS:
        assert module not in LIGHT_IN_ENGINE or not anywhere
    else:
        assert not on_import
        assert not anywhere or module == "track"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_nothing_is_executed_or_unpickled(path: Path) -> None:
    tree = tree_of(path)
    assert not {name.split(".")[0] for name in imported(tree)} & {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        assert name not in ("eval", "exec", "compile", "__import__", "yaml.load", "os.system", "yaml.unsafe_load"), (
            f"line {node.lineno}: {name}"
        )
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == "torch.load":
            assert "weights_only" in keywords and ast.unparse(keywords["weights_only"]) == "True", f"line {node.lineno}: torch.load"
        if "trust_remote_code" in keywords:
            assert ast.unparse(keywords["trust_remote_code"]) != "True", f"line {node.lineno}: remote code is the user's choice"
        assert ast.unparse(keywords.get("shell", ast.Constant(False))) == "False", f"line {node.lineno}: a shell"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_what_only_vllm_on_cpu_has_is_imported_on_cpu_only(path: Path) -> None:
    """GPUs have another version of vLLM, without some of the names: a module that is imported there must not ask for them."""
    assert not {"engine.engine_thread", "engine.cpu_kernels", "engine.shared_prompts"} & set(
        modules_imported(at_top(tree_of(path)), set(map(module_of, FILES)))
    )


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_error_is_swallowed(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except"
            names = {ast.unparse(each) for each in (node.type.elts if isinstance(node.type, ast.Tuple) else [node.type])}
            if "BaseException" in names:
                assert any(isinstance(each, ast.Raise) for each in ast.walk(node)), f"line {node.lineno}: BaseException is not raised again"
            if "Exception" in names:
                assert not all(isinstance(each, ast.Pass | ast.Continue) for each in node.body), (
                    f"line {node.lineno}: an error is passed over"
                )


def test_any_exception_is_caught_at_the_boundaries_only() -> None:
    """One question (runner), one training on all of them, one request of a judge's worker, and vLLM's core in its thread; nowhere else."""
    places = {
        module_of(path)
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and node.type is not None and ast.unparse(node.type) == "Exception"
    }
    assert places <= {"run.runner", "run.training", "answers.worker", "engine.engine_thread"}, places


def test_no_hidden_randomness() -> None:
    """Seeds are hashes; no global random state, no builtin hash()."""
    for path in FILES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("hash", "random.seed", "np.random.seed"), f"{path}, line {node.lineno}: {name}"
                assert name != "torch.manual_seed" or module_of(path) == "engine.platforms.cpu", (
                    "verl asks its platforms for this, nobody else"
                )
                assert not name.startswith(("random.", "np.random.rand")), f"{path}, line {node.lineno}: {name}"


def test_no_print_but_on_the_command_line() -> None:
    printing = {
        module_of(path)
        for path in FILES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    }
    assert printing <= {"cli", "launch"}


def test_no_drawers_for_odds_and_ends() -> None:
    assert not [path for path in FILES if path.stem in ("utils", "helpers", "misc", "common", "util", "helper")]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_every_public_name_is_documented(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree), "the module"
    bare = []

    def look(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                if not ast.get_docstring(node) and not any("overload" in ast.unparse(each) for each in node.decorator_list):
                    bare.append(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    look(node.body, f"{node.name}.")

    look(tree.body, "")
    assert not bare


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_and_functions_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in functions}
    assert not {name: length for name, length in lengths.items() if length > MOST_LINES_OF_A_FUNCTION}


def test_a_method_is_one_file_of_150_lines_at_most() -> None:
    for path in (ROOT / "sttrl" / "methods").glob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 150, path


def test_main_is_at_most_thirty_lines_and_knows_the_command_line_only() -> None:
    path = ROOT / "main.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 30
    assert {name for name in imported(tree_of(path)) if name.startswith("sttrl")} == {"sttrl.cli", "sttrl.cli.main"}


def test_the_checks_see_what_they_look_for() -> None:
    """A rule that matches nothing would pass for ever."""
    guarded = "if TYPE_CHECKING:\n    import ray\ntry:\n    import vllm\nfinally:\n    pass\n"
    tree = ast.parse(f"import a\nfrom b.c import d\ndef f():\n    import torch\n{guarded}")
    assert set(imported(tree)) == {"a", "b.c", "b.c.d", "torch", "ray", "vllm"}
    assert set(imported(at_top(tree))) == {"a", "b.c", "b.c.d", "vllm"}
    assert len(FILES) > 50 and {"engine.base", "cli", "data.labels", "report"} <= {module_of(path) for path in FILES}
    assert "engine" in rooms_imported(ROOT / "sttrl" / "launch.py")

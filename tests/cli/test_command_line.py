"""The command line as users meet it: flags, files of settings, and one line for everything that is wrong."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from saying import GOLDEN, HEAVY, ROOT, Said, complaint

from sttrl import cli
from sttrl.cli import main, parse_run
from sttrl.config import MOST_USED, RunConfig, field_names, fields_of, to_plain

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
    "lora_rank_stabilised": ("", True), "lora_targets": ("q_proj", ("q_proj",)),
    "lora_trainable_modules": ("embed_tokens", ("embed_tokens",)),
    "kl_coef": ("0.01", 0.01), "limit": ("2", 2), "ids": ("60", ("60",)), "seed": ("7", 7), "output_dir": ("/tmp/o", Path("/tmp/o")),
    "run_name": ("mine", "mine"), "data_dir": ("/data", Path("/data")), "on_bad_row": ("skip", "skip"),
    "prompt_format": ("Q: {question} A:", "Q: {question} A:"), "system_prompt": ("Be brief.", "Be brief."),
    "question_column": ("body", ("body",)), "chat_template_kwargs": ('{"enable_thinking": false}', '{"enable_thinking": false}'),
    "trust_remote_code": ("", True), "deterministic": ("", True),
    "track": ("wandb", ("wandb",)),
}  # fmt: skip


@pytest.mark.parametrize("flags", SEED_FLAGS, ids=" ".join)
@pytest.mark.parametrize("dashes", [False, True], ids=["underscores", "dashes"])
def test_the_seed_s_flags_parse_as_written(flags: list[str], dashes: bool) -> None:
    written = [part.replace("_", "-") if dashes and part.startswith("--") else part for part in flags]
    config = parse_run(written)
    name, value = flags[0].removeprefix("--"), flags[1] if len(flags) == 2 else True
    assert str(config.setting(name)) == str(float(value) if name == "lr" else value)


@pytest.mark.parametrize("name", ISSUE_FLAGS)
@pytest.mark.parametrize("form", ["--{}", "--{}="])
def test_further_flags(name: str, form: str) -> None:
    text, value = ISSUE_FLAGS[name]
    for spelling in (name, name.replace("_", "-")):
        flag = form.format(spelling)
        valued = [flag + text] if flag.endswith("=") else [flag, text]
        arguments = valued if text else [flag.removesuffix("=")]
        config = parse_run(arguments)
        assert config.setting(name) == value


def test_several_ids_and_trackers() -> None:
    config = parse_run(["--ids", "a", "b", "c", "--track", "wandb", "tensorboard"])
    assert (config.data.ids, config.run.track) == (("a", "b", "c"), ("wandb", "tensorboard"))


def test_columns_and_template_settings_of_a_file(tmp_path: Path) -> None:
    content = {"question_column": ["body", "question"], "chat_template_kwargs": {"enable_thinking": False}, "system_prompt": ""}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    config = parse_run(["--config", str(tmp_path / "a.yaml")])
    assert config == parse_run(["--config", str(tmp_path / "a.yaml"), "--chat_template_kwargs", '{"enable_thinking": false}'])
    assert (config.questions.question_column, config.questions.chat_template_kwargs, config.questions.system_prompt) == (
        ("body", "question"), '{"enable_thinking": false}', "",
    )  # fmt: skip
    (tmp_path / "a.yaml").write_text("question_column: body")
    assert parse_run(["--config", str(tmp_path / "a.yaml")]).questions.question_column == ("body",)


def test_the_command_of_the_readme_of_the_seed() -> None:
    config = parse_run(["--dataset", "AIME-TTT", "--model", "Qwen/Qwen2.5-Math-1.5B", "--voting_function", "majority"])
    assert (config.data.dataset, config.engine.model, config.vote.voting_function) == ("AIME-TTT", "Qwen/Qwen2.5-Math-1.5B", "majority")


def flags_now() -> list[dict[str, Any]]:
    """Every flag: name, type and default."""
    default = to_plain(RunConfig())
    return [{"name": f.name, "type": str(f.type), "default": default[f.name]} for _, f in fields_of(RunConfig)]


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
    text = "".join(capsys.readouterr().out.translate({ord(mark): None for mark in "│ "}).splitlines())
    assert f"--voting_function{{{','.join(VOTES)}}}|MODULE:NAME" in text
    assert f"--adaptation_method{{{','.join(METHODS)}}}|MODULE:NAME" in text


def test_help_is_short_and_help_all_names_every_flag(capsys: Said) -> None:
    assert main(["--help"]) == 0
    short = capsys.readouterr().out
    assert {name for name in field_names() if f"--{name} " in short} == MOST_USED
    assert "--help_all shows all" in " ".join(short.split()) and "vote options" in short
    assert main(["--help_all"]) == 0
    text = capsys.readouterr().out
    assert all(f"--{name}" in text for name in field_names())


def test_help_names_every_exit_code_and_subcommand(capsys: Said) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for promise in ("0 done", "2 usage", "3 data", "4 engine", "5 some questions failed or diverged", "130", "report RUN", "data D", "env"):
        assert promise in " ".join(text.split())
    for command in cli.COMMANDS:
        for flag in ("--help", "-h"):
            assert main([command, flag]) == 0
            assert f"usage: main.py {command} [-h]" in capsys.readouterr().out
    assert main(["sweep", "a.yaml", "--help"]) == 0, "the file need not be there"


@pytest.mark.parametrize(("called", "named"), [("/somewhere/bin/sttrl", "sttrl"), ("main.py", "main.py"), ("verl/main.py", "main.py")])
def test_usage_names_the_command_that_was_called(called: str, named: str, monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    for arguments, usage in ((["--help"], f"usage: {named} [-h]"), (["report", "--help"], f"usage: {named} report [-h]")):
        monkeypatch.setattr(sys, "argv", [called, *arguments])
        assert main() == 0
        assert capsys.readouterr().out.startswith(usage)


def test_the_version(capsys: Said) -> None:
    import tomllib

    assert main(["--version"]) == 0
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert capsys.readouterr().out == f"sttrl {version}\n"


def test_help_imports_nothing_heavy() -> None:
    code = f"""
import sys
from sttrl.cli import main
assert main(["--help"]) == 0
print("HEAVY", [name for name in {HEAVY} if name in sys.modules])
"""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    print(f"--help: {time.perf_counter() - started:.2f} s")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


# Files of settings


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("n_votes: 16\nn-train: 8\nlr: 1e-3\nids: [a, b]\ncontinuous: true\nrun_name: null\n")
    config = parse_run(["--n_votes", "24", "--config", "a.yaml", "--no_continuous"])
    assert (
        config.sampling.n_votes,
        config.sampling.n_train,
        config.update.lr,
        config.data.ids,
        config.method.continuous,
        config.run.run_name,
    ) == (
        24,
        8,
        1e-3,
        ("a", "b"),
        False,
        None,
    )
    assert parse_run(["--config=a.yaml"]).method.continuous is True
    assert config.config == Path("a.yaml")


def test_a_flag_can_complete_what_the_file_alone_could_not_be(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("n_votes: 8\n")
    assert parse_run(["--config", "a.yaml", "--n_train", "8"]).sampling.n_train == 8


@pytest.mark.parametrize("text", ["--begins with dashes {question}", "{question}: #1 'x' \"y\"", "-{question}"])
def test_any_text_survives_the_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"prompt_format": text, "seed": -3}))
    config = parse_run(["--config", "a.yaml"])
    assert (config.questions.prompt_format, config.run.seed) == (text, -3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("n_vote: 3", "there is no setting 'n_vote'. Did you mean 'n_votes'?"),
        ("zzz: 3", "there is no setting 'zzz'. See --help."),
        ("n_votes: many", "--config a.yaml: n_votes cannot be 'many'. Input should be a valid integer"),
        ("n_votes: 2.5", "n_votes cannot be 2.5. Input should be a valid integer"),
        ("n_votes: true", "n_votes cannot be True. An example is n_votes: 64"),
        ("n_votes: [1, 2]", "n_votes cannot be [1, 2]"),
        ("n_votes: {a: 1}", "n_votes cannot be {'a': 1}"),
        ("continuous: maybe", "continuous cannot be 'maybe'. An example is continuous: false"),
        (
            "voting_function: plurality",
            "voting_function cannot be 'plurality'. Use 'majority', 'energy', 'confidence', 'harmony', or a vote of your own as "
            "package.module:Name",
        ),
        ("track: [wandb, nowhere]", "track cannot be ['wandb', 'nowhere']. Input should be 'tensorboard', 'wandb' or 'trackio'"),
        ("prompt_format: {a: 1}", "prompt_format cannot be {'a': 1}"),
        ("lr: fast", "lr cannot be 'fast'. Input should be a valid number"),
        ("n_votes: 8", "--n_train 32 is more than --n_votes 8"),
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
    assert parse_run(["--config", "a.yaml"]).changed(config=None) == RunConfig()


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
        ("--voting_function plurality", ["--voting_function", "'plurality'", "'majority'"]),
        ("--adaptation_method tttt", ["--adaptation_method", "'tttt'", "'sttrl'", "'none'"]),
        ("--adaptation_method ttt", ["--adaptation_method ttt cannot adapt to arithmetic-demo", "sttrl", "none"]),
        ("--prompt_format nothing", ["--prompt_format 'nothing'", "{question}"]),
        ("--chat_template_kwargs thinking", ["--chat_template_kwargs 'thinking'", "no JSON object"]),
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


def test_a_full_disk_is_one_line_wherever_it_is_met(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    def full(arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/model")

    def missing(arguments: Any) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file", "a bug")

    monkeypatch.setitem(cli.COMMANDS, "env", full)
    said = complaint(capsys, "env", code=2)
    assert said == "error: Cannot write /cache/model: No space left on device. Make room, and run the same command again."
    monkeypatch.setitem(cli.COMMANDS, "env", missing)
    with pytest.raises(FileNotFoundError):
        main(["env"])


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: Said) -> None:
    def interrupted(arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "env", interrupted)
    assert main(["env"]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


def test_the_program_s_own_process_ends_with_the_code() -> None:
    done = subprocess.run([sys.executable, "main.py", "--n_vote", "3"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1

"""Shell completion: the scripts are whole, and the shell offers flags, choices and subcommands."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest
from saying import Said, complaint

from sttrl import cli
from sttrl.cli import completion, main
from sttrl.config import VotingFunction, field_names

TRY = """
source "$1"
shift
COMP_WORDS=(sttrl "$@")
COMP_CWORD=$#
COMPREPLY=()
_tyro_sttrl
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "sttrl"
    assert main(["--tyro-write-completion", "bash", str(file)]) == 0
    return file


def offered(script: Path, *words: str) -> set[str]:
    """What bash offers for the last word."""
    done = subprocess.run(["bash", "-c", TRY, "bash", str(script), *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return set(done.stdout.split())


def test_it_knows_every_subcommand() -> None:
    assert set(completion.commands()) == set(cli.COMMANDS), "add the new command to sttrl/cli/completion.py"


def test_bash_offers_flags_choices_and_subcommands(script: Path) -> None:
    flags = {f"--{name}" for name in field_names()}
    assert offered(script, "--") >= {*flags, "--help", "--help_all", "--version"}
    assert set(cli.COMMANDS) <= offered(script, "")
    assert all(word.startswith("-") or word in cli.COMMANDS for word in offered(script, "")), "a line of help is no completion"
    assert offered(script, "--voting_function", "") == set(get_args(VotingFunction))
    assert offered(script, "da") == {"data"}
    assert offered(script, "score", "--l") == {"--levels"}
    assert offered(script, "trm", "ad") == {"adapt"}
    assert offered(script, "trm", "adapt", "--mode", "e") == {"embeddings", "embeddings_then_full"}
    assert offered(script, "trm", "build", "") >= {"arc", "sudoku", "maze", "demo"}
    assert offered(script, "sweep", "file.yaml", "--n_v") == {"--n_votes"}


def test_the_script_of_zsh_is_printed(capsys: Said, tmp_path: Path) -> None:
    assert main(["--tyro_print_completion", "zsh"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("#compdef sttrl") and "--voting_function" in said and "--help_all" in said
    if shutil.which("zsh"):
        (tmp_path / "_sttrl").write_text(said)
        subprocess.run(["zsh", "-n", str(tmp_path / "_sttrl")], check=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tyro-print-completion"], "does not have one shell behind it"),
        (["--tyro-print-completion", "csh"], "there is no shell 'csh'"),
        (["--tyro-write-completion", "bash"], "does not have a shell and a file behind it"),
        (["--tyro-write-completion", "bash", "/nowhere/x"], "there is no folder /nowhere"),
    ],
)
def test_what_is_wrong_is_one_line(arguments: list[str], message: str, capsys: Said) -> None:
    assert message in complaint(capsys, *arguments, code=2)

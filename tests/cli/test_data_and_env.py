"""The subcommands data and env."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from saying import DATA, Said, complaint

from sttrl.cli import main


def test_env(capsys: Said) -> None:
    assert main(["env"]) == 0
    found = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {"python", "cores", "memory_mib", "cuda", "torch", "verl", "vllm", "ray", "transformers", "sttrl", "engine"} <= set(found)
    assert found["python"] == sys.version.split()[0] and re.fullmatch(
        r"verl \+ Ray \+ vLLM on (cpu|cuda), in (bfloat16|float32)", found["engine"]
    )


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


VERL_ROW = {"prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1? <|im_end|>"}]}


def shown(capsys: Said, *flags: str) -> str:
    """The whole example that `data` shows of a file of one verl row."""
    Path("rows.jsonl").write_text(json.dumps(VERL_ROW))
    assert main(["data", "rows.jsonl", *flags]) == 0
    return "\n".join(line[4:] for line in capsys.readouterr().out.splitlines() if line.startswith("  | "))


def test_data_shows_one_whole_prompt_as_the_model_sees_it(capsys: Said, tiny_model: Path) -> None:
    flags = ("--model", str(tiny_model))
    whole = shown(capsys, "--model", "builtin/SmolLM2-135M-Instruct")
    asked = "1 + 1? <|im_end|>\nPlease reason step by step, and put your final answer within \\boxed{}."
    start = "<|im_start|>system\n"
    assert whole == f"{start}Be brief.<|im_end|>\n<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    mine = shown(capsys, "--model", "builtin/SmolLM2-135M-Instruct", "--system_prompt", "Be kind.")
    assert mine == whole.replace("Be brief.", "Be kind.")
    assert shown(capsys) == f"Be brief.\n{asked}"
    assert "reads no 'thinking'" in complaint(capsys, "data", "rows.jsonl", *flags, "--chat_template_kwargs", '{"thinking": 1}', code=2)
    assert "is no JSON object" in complaint(capsys, "data", "rows.jsonl", "--chat_template_kwargs", "thinking", code=2)


@pytest.mark.parametrize(("model", "code"), [("no/such-model", 4), ("nowhere", 2), ("./here", 2)])
def test_data_of_a_model_that_is_not_there_is_one_line(model: str, code: int, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "cache")
    assert model in complaint(capsys, "data", "arithmetic-demo", "--model", model, code=code)


@pytest.mark.parametrize("flags", [["--prompt_format", "{question}"], ["--system_prompt", "Be brief."], ["--trust_remote_code"]])
def test_data_refuses_what_would_do_nothing_without_a_model(flags: list[str], capsys: Said) -> None:
    assert f"{flags[0]} does nothing without --model" in complaint(capsys, "data", "arithmetic-demo", *flags, code=2)


@pytest.mark.skipif(DATA is None, reason="no benchmark data here")
def test_data_never_shows_what_its_authors_withhold(capsys: Said) -> None:
    import gzip

    assert main(["data", "GPQA-TTT", "--data_dir", str(DATA), "--model", "builtin/SmolLM2-135M-Instruct"]) == 0
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

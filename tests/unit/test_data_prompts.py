"""Prompts: the chat template or a format of one's own, the instruction, and the limit of tokens."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from jinja2 import TemplateError

from sttrl.data.registry import BOXED
from sttrl.data.table import Question
from sttrl.errors import DataError, DataRowError, UsageError
from sttrl.questions import build_problem, build_problems


class FakeTokenizer:
    """A token a character, 1000 before a plain text; the template writes <role>content."""

    def __init__(self, chat_template: str | None = "simple", default_system: str = "") -> None:
        self.chat_template = chat_template
        self.default_system = default_system
        self.tokenised = 0
        self.added_tokens_decoder: dict[int, Any] = {}

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = True,
        return_dict: bool = True,
        thinking: bool = True,
    ) -> Any:
        if self.chat_template == "strict" and conversation[0]["role"] == "system":
            raise TemplateError("System role not supported")
        text = self.default_system + "".join(f"<{message['role']}>{message['content']}" for message in conversation)
        text += "<assistant>" if add_generation_prompt else ""
        text += "" if thinking else "<think></think>"
        if not tokenize:
            return text
        self.tokenised += 1
        ids = [ord(char) for char in text]
        return {"input_ids": ids, "attention_mask": [1] * len(ids)} if return_dict else ids

    def encode(self, text: str, **options: Any) -> list[int]:
        self.tokenised += 1
        return [1000, *(ord(char) for char in text)]


def question(text: str, number: int = 0) -> Question:
    return Question(id=f"q{number}", index=number, text=text, kind="math", row=number + 1)


def prompt(text: str, tokenizer: FakeTokenizer, **options: Any) -> str:
    settings: dict[str, Any] = {"instruction": None, "prompt_format": None, "max_prompt_tokens": 500, **options}
    return "".join(map(chr, build_problem(question(text), tokenizer, **settings).prompt_T))


def test_the_chat_template_is_used_and_tokenised_once() -> None:
    tokenizer = FakeTokenizer()
    problem = build_problem(question("Why?", 3), tokenizer, instruction=BOXED, prompt_format=None, max_prompt_tokens=500)
    expected = f"<user>Why?\n{BOXED}<assistant>"
    assert problem.prompt_T == tuple(map(ord, expected))
    assert (problem.id, problem.index, problem.kind) == ("q3", 3, "math")
    assert tokenizer.tokenised == 1


def test_without_instruction_the_question_stands_alone_and_a_system_message_goes_first() -> None:
    assert prompt("Why?", FakeTokenizer()) == "<user>Why?<assistant>"
    assert prompt("Why?", FakeTokenizer(), system="Be brief.") == "<system>Be brief.<user>Why?<assistant>"


def test_a_row_s_system_message_goes_first_unless_another_is_given() -> None:
    settings: dict[str, Any] = {"instruction": None, "max_prompt_tokens": 500}

    def prompt_of(system: str | None, prompt_format: str | None = None) -> str:
        asked = dataclasses.replace(question("Why?"), system="Be kind.")
        built = build_problem(asked, FakeTokenizer(), system=system, prompt_format=prompt_format, **settings)
        return "".join(map(chr, built.prompt_T))

    assert prompt_of(None) == "<system>Be kind.<user>Why?<assistant>"
    assert prompt_of("Be brief.") == "<system>Be brief.<user>Why?<assistant>"
    assert prompt_of("") == "<user>Why?<assistant>"
    assert prompt_of("", "Q: {question}") == chr(1000) + "Q: Why?"
    with pytest.raises(UsageError, match="'q0' has a system message.*--system_prompt ''"):
        prompt_of(None, "Q: {question}")


def test_the_chat_template_is_given_its_settings() -> None:
    assert prompt("Why?", FakeTokenizer("thinking"), template_settings={"thinking": False}) == "<user>Why?<assistant><think></think>"


def test_an_instruction_that_is_there_already_is_not_said_twice() -> None:
    says_it = FakeTokenizer(default_system=f"<system>{BOXED}")
    assert prompt("Why?", says_it, instruction=BOXED) == f"<system>{BOXED}<user>Why?<assistant>"
    assert prompt(f"{BOXED} Why?", FakeTokenizer(), instruction=BOXED) == f"<user>{BOXED} Why?<assistant>"
    assert prompt("Why?", FakeTokenizer(None), instruction=BOXED, prompt_format=BOXED + "{question}") == chr(1000) + BOXED + "Why?"


def test_braces_and_percent_signs_of_a_question_survive_a_prompt_format() -> None:
    text = r"\frac{1}{2} {question} {} %s {0}"
    assert prompt(text, FakeTokenizer(None), prompt_format="Q: {question} {x} A:") == chr(1000) + f"Q: {text} {{x}} A:"


def test_a_prompt_format_goes_before_the_chat_template() -> None:
    assert prompt("Why?", FakeTokenizer(), prompt_format="{question}", instruction="Do.") == chr(1000) + "Why?\nDo."


@pytest.mark.parametrize(
    ("tokenizer", "options", "remedy"),
    [
        (FakeTokenizer(None), {}, "--prompt_format"),
        (FakeTokenizer(None), {"prompt_format": "Q: A:"}, "{question}"),
        (FakeTokenizer(None), {"prompt_format": ""}, "{question}"),
        (FakeTokenizer("strict"), {"system": "Be brief."}, "--system_prompt ''"),
        (FakeTokenizer(), {"template_settings": {"enable_thinkin": False}}, "reads no 'enable_thinkin'"),
        (FakeTokenizer(), {"system": "Be brief.", "prompt_format": "{question}"}, "--prompt_format"),
    ],
)
def test_where_no_prompt_can_be_made_the_remedy_is_said(tokenizer: FakeTokenizer, options: dict[str, str], remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        prompt("Why?", tokenizer, **options)
    assert remedy in str(caught.value)


def test_a_prompt_is_as_long_as_the_limit_or_an_error_and_never_cut() -> None:
    whole = "<user>Why?<assistant>"
    assert prompt("Why?", FakeTokenizer(), max_prompt_tokens=len(whole)) == whole
    with pytest.raises(DataRowError) as caught:
        prompt("Why?", FakeTokenizer(), max_prompt_tokens=len(whole) - 1)
    assert (caught.value.line, caught.value.field) == (1, "prompt")
    for said in ("'q0'", f"{len(whole)} tokens", f"--max_prompt_tokens {len(whole) - 1}"):
        assert said in str(caught.value)


def test_prompts_that_are_too_long_stop_or_are_counted() -> None:
    asked = [question("short", 0), question("long" * 50, 1), question("brief", 2)]
    settings: dict[str, Any] = {"instruction": None, "prompt_format": None, "max_prompt_tokens": 50, "file": "set.json"}
    with pytest.raises(DataRowError, match="set.json, row 2"):
        build_problems(asked, FakeTokenizer(), **settings)
    problems, skipped = build_problems(asked, FakeTokenizer(), on_bad_row="skip", **settings)
    assert [(problem.id, problem.index) for problem in problems] == [("q0", 0), ("q2", 2)]
    assert [(bad.file, bad.row) for bad in skipped] == [("set.json", 2)]
    with pytest.raises(DataError, match="short enough"):
        build_problems(asked[1:2], FakeTokenizer(), on_bad_row="skip", **settings)


def test_skipping_long_prompts_does_not_hide_a_missing_template() -> None:
    with pytest.raises(UsageError):
        build_problems(
            [question("Why?")], FakeTokenizer(None), instruction=None, prompt_format=None, max_prompt_tokens=50, on_bad_row="skip"
        )

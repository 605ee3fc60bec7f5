"""Codecs in themselves: what is written can be read, spans hold what they name, and prompts are beginnings of texts with answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from sttrl.arc.codecs.base import Span, Unreadable
from sttrl.arc.codecs.cells import Cells
from sttrl.arc.codecs.dialogue import Dialogue
from sttrl.arc.codecs.limits import Fitted, TooLong, character_count, fit, max_new_tokens
from sttrl.arc.codecs.loss import RULES, LossRule, loss_spans, weights
from sttrl.arc.codecs.numpy_text import NumpyText
from sttrl.arc.codecs.registry import CODECS, codec_for
from sttrl.arc.codecs.tokens import Encoded, encode
from sttrl.arc.grids import Grid
from sttrl.arc.tasks import Pair, Puzzle
from sttrl.errors import DataError, UsageError

SPECIAL = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>")
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def bpe(chat_template: str | None = CHAT, special: tuple[str, ...] = SPECIAL, add_bos: bool = False) -> Any:
    """A byte-level tokenizer with merges over several cells and line feeds."""
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    lines = [
        "00\n00\n",
        "12\n+/-=O34\n",
        "user\n010",
        " -> [[1 2]\n [3 4]]#\n",
        "Black Blue\nRed",
        "Output:\n",
        "assistant\n00",
        "O0",
        "\n+/-=O0\n",
    ] * 9
    model.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    if add_bos:
        from tokenizers.processors import TemplateProcessing

        model.post_processor = TemplateProcessing(single=f"{special[0]} $A", special_tokens=[(special[0], model.token_to_id(special[0]))])
    return PreTrainedTokenizerFast(
        tokenizer_object=model, bos_token=special[0], eos_token=special[1], pad_token=special[1], chat_template=chat_template
    )


@st.composite
def grids(draw: st.DrawFn, rows: int | None = None, columns: int | None = None) -> Grid:
    height, width = rows or draw(st.integers(1, 5)), columns or draw(st.integers(1, 5))
    return tuple(tuple(draw(st.integers(0, 9)) for _ in range(width)) for _ in range(height))


@st.composite
def puzzles(draw: st.DrawFn) -> Puzzle:
    """Outputs have their inputs' shapes, which the codec of differences needs."""
    pairs = []
    for _ in range(draw(st.integers(2, 4))):
        first = draw(grids())
        pairs.append(Pair(input=first, output=draw(grids(len(first), len(first[0])))))
    return Puzzle(demos=tuple(pairs[1:]), query=pairs[0].input, answer=pairs[0].output)


def without_answer(puzzle: Puzzle) -> Puzzle:
    return Puzzle(demos=puzzle.demos, query=puzzle.query)


TOKENIZERS = {"chat": bpe(), "begins": bpe(add_bos=True), "llama": bpe(chat_template=None)}
LAYOUTS = [(name, kind) for name in CODECS for kind in TOKENIZERS if not (name == "chat" and kind == "llama")]


@pytest.mark.parametrize(("name", "kind"), LAYOUTS)
@settings(max_examples=6)
@given(puzzle=puzzles())
def test_what_is_written_is_read_and_its_spans_hold_it(name: str, kind: str, puzzle: Puzzle) -> None:
    codec = codec_for(name, TOKENIZERS[kind])
    written = codec.write(puzzle)
    assert puzzle.answer is not None
    reply = codec.answer(puzzle.answer, puzzle.query)
    assert codec.read(reply, puzzle.query) == puzzle.answer
    assert written.text.startswith(codec.write(without_answer(puzzle)).text + reply)
    texts = {(span.kind, span.demo): written.text[span.start : span.end] for span in written.spans}
    assert texts["answer", None] == reply
    for number, demo in enumerate(puzzle.demos):
        read = codec.read(texts["demo_output", number].removeprefix(" "), demo.input)
        if not name.startswith("words"):  # a demonstration in colour words has no fences
            assert read == demo.output
        assert texts["demo_input", number] in written.text
    ends = [span.end for span in written.spans]
    assert ends == sorted(ends)


@pytest.mark.parametrize(("name", "kind"), LAYOUTS)
@settings(max_examples=6)
@given(puzzle=puzzles())
def test_a_prompt_is_the_beginning_of_the_text_with_its_answer(name: str, kind: str, puzzle: Puzzle) -> None:
    tokenizer = TOKENIZERS[kind]
    codec = codec_for(name, tokenizer)
    whole, prompt = encode(tokenizer, codec.write(puzzle)), encode(tokenizer, codec.write(without_answer(puzzle)))
    assert whole.token_T[: len(prompt.token_T)] == prompt.token_T
    text = codec.write(puzzle).text
    decoded = tokenizer.decode(whole.token_T, clean_up_tokenization_spaces=False)
    assert decoded.removeprefix("<|begin_of_text|>") == text.removeprefix("<|begin_of_text|>"), "special tokens became their ids"
    answer = next(span for span in whole.spans if span.kind == "answer")
    assert puzzle.answer is not None and answer.start == len(prompt.token_T)
    assert tokenizer.decode(whole.token_T[answer.start : answer.end]) == codec.answer(puzzle.answer, puzzle.query)
    assert whole.token_T.count(tokenizer.bos_token_id) == (kind == "begins" or text.startswith("<|begin_of_text|>"))


def test_a_token_over_the_boundary_is_split() -> None:
    tokenizer = TOKENIZERS["chat"]
    puzzle = Puzzle(demos=(Pair(input=((1,),), output=((1,),)),), query=((1,),), answer=((0,),))
    codec = codec_for("cells", tokenizer)
    text = codec.write(puzzle).text
    joined = tokenizer(text, add_special_tokens=False)["input_ids"]
    place = text.rindex("0")
    assert not any(start == place for start, _ in tokenizer(text, return_offsets_mapping=True)["offset_mapping"])
    whole = encode(tokenizer, codec.write(puzzle))
    assert list(whole.token_T) != joined
    assert tokenizer.decode(whole.token_T[whole.spans[-1].start :]) == "0\n<|end_of_text|>"


def test_the_end_mark_carries_loss_also_where_padding_is_the_same_token() -> None:
    tokenizer = TOKENIZERS["chat"]
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    puzzle = Puzzle(demos=(Pair(input=((1,),), output=((2,),)),) * 2, query=((1,),), answer=((0,),))
    encoded = encode(tokenizer, codec_for("cells", tokenizer).write(puzzle))
    ends = [place for place, token in enumerate(encoded.token_T) if token == tokenizer.eos_token_id]
    found = {name: [weights(encoded, rule)[place] for place in ends] for name, rule in RULES.items()}
    assert found == {
        "answer": [0.0, 0.0, 1.0],
        "outputs": [1.0, 1.0, 1.0],
        "outputs_but_first": [0.0, 1.0, 1.0],
        "marc": [0.0, 1.0, 1.0],
        "all": [1.0, 1.0, 1.0],
    }


@given(outputs=st.integers(0, 4), answer=st.booleans(), skipped=st.integers(0, 6), header=st.booleans())
def test_the_last_output_is_never_left_out(outputs: int, answer: bool, skipped: int, header: bool) -> None:
    spans = [Span(kind="demo_output", start=2 * n, end=2 * n + 1, demo=n) for n in range(outputs)]
    spans += [Span(kind="answer", start=20, end=25)] if answer else []
    kept = loss_spans(spans, LossRule(demo_outputs=True, skip_first=skipped, header=header))
    assert list(kept) == spans[min(skipped, max(len(spans) - 1, 0)) :]
    encoded = Encoded(token_T=tuple(range(26)), spans=tuple(spans))
    assert sum(weights(encoded, LossRule(demo_outputs=True, skip_first=skipped))) == sum(span.end - span.start for span in kept)


def test_demonstrations_alone() -> None:
    """They read like a task whose last demonstration is the query, and are learnt like it, whatever the rule: never nothing."""
    pairs = (Pair(input=((1,),), output=((2,),)), Pair(input=((3,),), output=((4,),)))
    alone = Puzzle(demos=pairs, query=None)
    as_query = Puzzle(demos=pairs[:1], query=((3,),), answer=((4,),))
    for name, codec in ((name, codec_for(name, TOKENIZERS["chat"])) for name in CODECS):
        written = codec.write(alone)
        assert written.text == codec.write(as_query).text, name
        for rule in RULES.values():
            mine, theirs = (
                [(span.start, span.end) for span in loss_spans(spans, rule)] for spans in (written.spans, codec.write(as_query).spans)
            )
            assert mine == theirs and (mine or rule.everything), name
    with pytest.raises(DataError):
        NumpyText().write(Puzzle(demos=(), query=None))


@pytest.mark.parametrize(
    ("name", "reply", "reason"),
    [
        ("cells", "12\n3\n", "row 2 has 1 cells, and row 1 has 2"),
        ("cells", "no digits", "no cells"),
        ("cells", "1\n" * 31, "31 rows"),
        ("dialogue", "<|im_end|>", "fewer than two tokens"),
        ("numpy", "The answer is [[1 2]]#", "'The' is no cell"),
        ("numpy", "", "no cells"),
        ("numpy", "[[12 3]]#", "row 1, column 1 is 12"),
        ("numpy_diff", "+ [[1 2]]#", "no query"),
        ("words", "Black Blue", "no ```"),
        ("words", "```\nBlack Mauve\n```", "'Mauve' is no colour"),
        ("chat", "I do not know.", "no line of digits"),
        ("chat", "12\n345", "row 2 has 3 cells"),
    ],
)
def test_a_reply_without_a_grid_has_a_reason(name: str, reply: str, reason: str) -> None:
    found = codec_for(name, TOKENIZERS["chat"]).read(reply)
    assert isinstance(found, Unreadable)
    assert reason in found.reason


@settings(max_examples=60)
@given(reply=st.text(alphabet="0123 \n[]#+-`x²<|im_end|>", max_size=80), name=st.sampled_from(sorted(CODECS)))
def test_no_reply_breaks_a_reader(reply: str, name: str) -> None:
    found = codec_for(name, TOKENIZERS["chat"]).read(reply, ((1, 2), (3, 4)))
    assert isinstance(found, Unreadable | tuple)


@pytest.mark.parametrize(
    "reply",
    ["12\n34", "The grid:\n```\n12\n34\n```<|im_end|>ignored 5", "1 2\n3 4", "[[1, 2],\n [3, 4]]", "Input\n99\nOutput:\n\n12\n34\n"],
)
def test_chat_replies_of_several_styles(reply: str) -> None:
    assert codec_for("chat", TOKENIZERS["chat"]).read(reply) == ((1, 2), (3, 4))


def test_limits() -> None:
    demos = tuple(Pair(input=((n,),), output=((n,),)) for n in range(4))
    puzzle = Puzzle(demos=demos, query=((9,),))
    codec = Cells(preprompt="")

    def length(written: Any) -> int:
        return character_count(written.text)

    whole, each = length(codec.write(puzzle)), 11
    last, first = (fit(codec, puzzle, length, whole - 1, drop=drop) for drop in ("last", "first"))
    assert isinstance(last, Fitted)
    assert isinstance(first, Fitted)
    assert (last.kept, last.dropped, last.length) == ((0, 1, 2), (3,), whole - each)
    assert (first.kept, first.dropped) == ((1, 2, 3), (0,))
    short = fit(codec, puzzle, length, 5)
    assert isinstance(short, TooLong)
    assert short.reason == f"{whole - 3 * each} tokens with 1 demonstration, and 5 are allowed"
    assert isinstance(fit(codec, puzzle, length, whole - 4 * each, least=0), Fitted)
    assert isinstance(fit(NumpyText(), Puzzle(demos=demos, query=None), length, 1, least=0), TooLong)


def test_most_tokens_of_a_reply() -> None:
    assert max_new_tokens(Cells(), character_count) == 932
    words = codec_for("words", TOKENIZERS["chat"])
    longest = words.answer(((8,) * 30,) * 30)
    assert max_new_tokens(words, len) == len(longest) + 1


def test_errors_name_what_there_is() -> None:
    with pytest.raises(UsageError, match="There is no codec 'cell'. Did you mean cells"):
        codec_for("cell", TOKENIZERS["chat"])
    with pytest.raises(UsageError, match="no chat template"):
        codec_for("chat", TOKENIZERS["llama"])
    with pytest.raises(UsageError, match="changes the text of a puzzle"):
        codec_for("numpy", bpe("{{ messages[0]['content'] | replace('1', 'x') }}", (*SPECIAL[:2], *SPECIAL[5:]))).write(
            Puzzle(demos=(), query=((1,),))
        )


def test_a_template_without_a_system_role() -> None:
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT
    codec = codec_for("numpy", bpe(template, (*SPECIAL[:2], *SPECIAL[5:])))
    written = codec.write(Puzzle(demos=(Pair(input=((1,),), output=((2,),)),), query=((3,),)))
    assert written.text.count("<|im_start|>") == 2
    assert [written.text[span.start : span.end] for span in written.spans] == ["[[1]]", " [[2]]#", "[[3]]", "<|im_start|>assistant\n"]


def test_dialogue_of_sixteen_tokens() -> None:
    alphabet = Dialogue().alphabet()
    assert len(alphabet.plain) + len(alphabet.special) == 16


def test_the_tiny_tokenizer_has_no_unsaid_needs(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    written = codec_for("dialogue", tokenizer).write(Puzzle(demos=(), query=((1, 2),)))
    assert encode(tokenizer, written).token_T  # any fast tokenizer will do

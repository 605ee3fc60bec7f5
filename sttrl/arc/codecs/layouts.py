"""How messages become one text: Llama 3's layout, or the chat template of a tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from sttrl.arc.codecs.base import Span, Written
from sttrl.arc.codecs.drafts import Draft, stripped
from sttrl.data.tokens import Tokenizer
from sttrl.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message before the reply, with the spans in its content."""

    role: Literal["system", "user"]
    written: Written

    @property
    def content(self) -> str:
        """The text of the message."""
        return self.written.text


class Layout(Protocol):
    """A way to join messages."""

    @property
    def end(self) -> str:
        """The special token that ends a turn."""

    @property
    def after(self) -> str:
        """What follows the answer's turn in a text for training; no span covers it."""

    def prompt(self, messages: Sequence[Message]) -> Written:
        """The text up to where the reply begins, with the messages' spans and the header's."""


def write_turns(layout: Layout, messages: Sequence[Message], answer: str | None) -> Written:
    """The messages without white space at their ends, and the answer's turn (with its end mark) where there is an answer."""
    draft = Draft()
    draft.add_written(layout.prompt([Message(role=message.role, written=stripped(message.written)) for message in messages]))
    if answer is not None:
        draft.add(answer, "answer")
        draft.add(layout.after)
    return draft.written()


@dataclass(frozen=True, kw_only=True)
class Llama3:
    """The layout that Llama 3 was trained with, without the lines about dates that its chat template adds."""

    begin: str = "<|begin_of_text|>"
    end: str = "<|eot_id|>"
    after: str = "<|end_of_text|>"

    def prompt(self, messages: Sequence[Message]) -> Written:
        """Each message after its header."""
        draft = Draft(self.begin)
        for message in messages:
            draft.add(self.header(message.role))
            draft.add_written(message.written)
            draft.add(self.end)
        draft.add(self.header("assistant"), "header")
        return draft.written()

    @staticmethod
    def header(role: str) -> str:
        """What opens a turn."""
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n"


@dataclass(frozen=True, kw_only=True)
class Template:
    """The chat template of a tokenizer. A template without a system role gets the system message at the head of the user's."""

    tokenizer: Tokenizer
    end: str
    after: str = ""

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Template:
        """The layout of a tokenizer. Raises `UsageError` if it has no chat template."""
        if not tokenizer.chat_template:
            raise UsageError("This codec asks in a chat, and the model has no chat template.", "Use --codec cells, or a chat model.")
        return cls(tokenizer=tokenizer, end=_end_of_turn(tokenizer))

    def prompt(self, messages: Sequence[Message]) -> Written:
        """The rendered conversation. Raises `UsageError` if the template changes a message."""
        turns = self._turns(messages)
        text = self._rendered(turns, begin_reply=True)
        spans: list[Span] = []
        place = 0
        for turn in turns:
            place = text.find(turn.content, place)
            if place < 0:
                raise UsageError("The model's chat template changes the text of a puzzle.", "Use --codec cells, or another model.")
            spans += [Span(kind=span.kind, start=span.start + place, end=span.end + place, demo=span.demo) for span in turn.written.spans]
            place += len(turn.content)
        bare = self._rendered(turns, begin_reply=False)
        header = [Span(kind="header", start=len(bare), end=len(text))] if text.startswith(bare) and len(bare) < len(text) else []
        return Written(text=text, spans=(*spans, *header))

    def _turns(self, messages: Sequence[Message]) -> Sequence[Message]:
        from jinja2 import TemplateError

        try:
            self._rendered(messages, begin_reply=True)
        except TemplateError:
            return _joined(messages)
        return messages

    def _rendered(self, messages: Sequence[Message], begin_reply: bool) -> str:
        conversation = [{"role": message.role, "content": message.content} for message in messages]
        return str(self.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=begin_reply))


def marc_layout(tokenizer: Tokenizer) -> Layout:
    """Llama 3's layout for a tokenizer that knows its marks, and its own chat template for any other."""
    known = {str(token.content) for token in tokenizer.added_tokens_decoder.values()}
    return Llama3() if {"<|start_header_id|>", "<|eot_id|>", "<|end_of_text|>"} <= known else Template.of(tokenizer)


def _joined(messages: Sequence[Message]) -> tuple[Message, ...]:
    """One user message for all."""
    draft = Draft()
    for number, message in enumerate(messages):
        draft.add("\n\n" if number else "")
        draft.add_written(message.written)
    return (Message(role="user", written=draft.written()),)


def _end_of_turn(tokenizer: Tokenizer) -> str:
    """The special token that the template puts after an assistant's message, or else the tokenizer's end of text."""
    turns = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "the-answer"}]
    rest = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition("the-answer")[2].lstrip()
    special = sorted((str(token.content) for token in tokenizer.added_tokens_decoder.values() if token.special), key=len, reverse=True)
    found = next((token for token in special if rest.startswith(token)), None) or getattr(tokenizer, "eos_token", None)
    if not found:
        raise UsageError("The model's tokenizer has no token that ends a turn.", "Use another model.")
    return str(found)

"""Writes a text piece by piece and remembers where its spans are."""

from __future__ import annotations

from sttrl.arc.codecs.base import Span, SpanKind, Written


class Draft:
    """A text that grows at its end."""

    def __init__(self, text: str = "") -> None:
        self._pieces = [text]
        self._length = len(text)
        self._spans: list[Span] = []

    def add(self, text: str, kind: SpanKind | None = None, demo: int | None = None) -> None:
        """Append a text; with a ``kind`` it is a span."""
        if kind is not None:
            self._spans.append(Span(kind=kind, start=self._length, end=self._length + len(text), demo=demo))
        self._pieces.append(text)
        self._length += len(text)

    def add_written(self, written: Written) -> None:
        """Append a text with its spans."""
        self._spans += [shifted(span, self._length) for span in written.spans]
        self.add(written.text)

    def written(self) -> Written:
        """The text so far."""
        return Written(text="".join(self._pieces), spans=tuple(self._spans))


def shifted(span: Span, distance: int) -> Span:
    """The same span, this many characters or tokens further on."""
    return Span(kind=span.kind, start=span.start + distance, end=span.end + distance, demo=span.demo)


def stripped(written: Written) -> Written:
    """The text without white space at its ends, and its spans without what was cut off."""
    text = written.text.strip()
    before = len(written.text) - len(written.text.lstrip())
    spans = (
        Span(kind=span.kind, start=max(span.start - before, 0), end=min(span.end - before, len(text)), demo=span.demo)
        for span in written.spans
    )
    return Written(text=text, spans=tuple(spans))

"""What a client sends, as pydantic models. A field that is unknown, or that the endpoint does not do, is an error that names it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=-(2**62), lt=2**62)]
Effort = Literal["none", "low", "medium", "high"]


class Strict(BaseModel):
    """A body whose fields are all known."""

    model_config = ConfigDict(extra="forbid", strict=False)


class Part(Strict):
    """A part of a message's content: text only."""

    type: Literal["text", "input_text", "output_text"]
    text: str
    annotations: list[Any] = []
    logprobs: list[Any] | None = None


class Message(Strict):
    """A message of a conversation. What replies add to theirs may come back with them."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]
    type: Literal["message"] = "message"
    id: str | None = None
    status: str | None = None
    refusal: None = None
    annotations: list[Any] | None = None
    reasoning_content: str | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Adapting(Strict):
    """``sttrl`` in a body: exactly how to adapt. What is not given is as ``reasoning_effort`` says."""

    method: str | None = None
    steps: Annotated[int, Field(ge=0)] | None = None
    n_votes: Annotated[int, Field(ge=2)] | None = None
    n_train: Annotated[int, Field(ge=2)] | None = None
    voting_function: str | None = None
    answer_kind: Literal["math", "number", "choice"] | None = None
    instruction: str | None = None
    lr: Annotated[float, Field(gt=0)] | None = None
    temp: Annotated[float, Field(gt=0)] | None = None
    max_response_tokens: Count | None = None
    budget_tokens: Count | None = None
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    keep_adapter: bool = False
    seed: Seed | None = None


class StreamOptions(Strict):
    """Options of a stream."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


class Sampled(Strict):
    """The fields that both kinds of request share. Those of ``_NEUTRAL`` may only have the value that changes nothing."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    stream: bool = False
    sttrl: Adapting = Adapting()
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    parallel_tool_calls: bool | None = None


class ChatBody(Sampled):
    """The body of ``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1)]
    n: Count = 1
    seed: Seed | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream_options: StreamOptions | None = None
    reasoning_effort: Effort | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    modalities: list[Literal["text"]] | None = None

    @field_validator("frequency_penalty", "presence_penalty", mode="before")
    @classmethod
    def _zero(cls, value: Any) -> Any:
        return 0 if value == 0 else value

    @model_validator(mode="after")
    def _together(self) -> ChatBody:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self


class Reasoning(Strict):
    """``reasoning`` of a response."""

    effort: Effort | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: None = None


class Text(Strict):
    """``text`` of a response."""

    format: dict[Literal["type"], Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None


class ResponseBody(Sampled):
    """The body of ``POST /v1/responses``."""

    input: str | Annotated[list[Message], Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Count | None = None
    reasoning: Reasoning | None = None
    background: bool = False
    text: Text | None = None
    truncation: Literal["disabled"] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None

    @field_validator("input", mode="before")
    @classmethod
    def _messages(cls, value: Any) -> Any:
        """Without the reasoning of earlier replies, which says how adapting went."""
        if not isinstance(value, list):
            return value
        return [item for item in value if not (isinstance(item, dict) and item.get("type") == "reasoning")]

    @model_validator(mode="after")
    def _together(self) -> ResponseBody:
        if self.background and self.stream:
            raise ValueError("background with stream: poll the response instead")
        return self

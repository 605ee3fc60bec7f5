"""A tiny random Llama with a tokenizer of sixty words: the real stack with it takes milliseconds where a model takes seconds.

Random words make a poor mathematician, so every fourth word ends the turn and most of the others are numbers: responses
are short, and many hold an answer. Numbers above 9 are words that it can say and never reads.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<|im_start|>", "<|im_end|>"]
DIGITS = [str(n) for n in range(10)]
WORDS = ["user", "assistant", "What", "is", "plus", "times", "+", "*", "?", "Reply", "with", "only", "the", "number", ".", "answer"]
ENDINGS = [f"<end-{letter}>" for letter in "abcdefghijklmn"]
NUMBERS = [str(n) for n in range(10, 27)]
VOCABULARY = [*SPECIAL, *DIGITS, *WORDS, *ENDINGS, *NUMBERS]
STOP_IDS = tuple(VOCABULARY.index(word) for word in ("<|im_end|>", *ENDINGS))
CHAT = (
    "{% for message in messages %}<|im_start|> {{ message['role'] }} {{ message['content'] }} <|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)


def make_tiny_model(folder: Path) -> Path:
    """Save model and tokenizer to ``folder``: two layers, 64 wide, bfloat16, weights from a fixed seed."""
    tokenizer = tiny_tokenizer()
    settings = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = LlamaForCausalLM(settings)
    network.generation_config.eos_token_id = list(STOP_IDS)
    network.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; a number is its digits."""
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex(r"\d|[.?]"), behavior="isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>",
        additional_special_tokens=ENDINGS, chat_template=CHAT,
    )  # fmt: skip

"""What of a prompt a text encoder does not read: tokenizers cut it at a length, without a word.

Pipelines call their tokenizers in many ways; here each tokenizer tells of itself where it cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frieze.cluster.thread_value import ThreadValue

from ..errors import ModelError

SHOWN = 200  # letters of what was cut
LEAST_WORDS = 16  # beside marks; an alphabet has more


@dataclass(frozen=True)
class Cut:
    """A tokenizer of a model, the tokens that its encoder reads, and the text that is not read."""

    tokenizer: str
    limit: int
    text: str

    def __str__(self) -> str:
        text = self.text if len(self.text) <= SHOWN else f"{self.text[:SHOWN]}..."
        return f"{self.tokenizer} reads {self.limit} tokens of the prompt; cut off: {text!r}"


# (tokenizer, limit, text, where it was cut) of this thread's calls, while somebody wants to know.
_calls: ThreadValue[list[tuple[str, int, str, int]]] = ThreadValue("calls")


@contextmanager
def calls() -> Iterator[list[tuple[str, int, str, int]]]:
    """Inside, the calls of `telling` tokenizers that cut their text."""
    found: list[tuple[str, int, str, int]] = []
    with _calls.set(found):
        yield found


def cuts(found: list[tuple[str, int, str, int]], *prompts: str | None) -> tuple[Cut, ...]:
    """What calls left out of these prompts, whatever a template put around them."""
    made = []
    for tokenizer, limit, text, end in found:
        inside = [(text.find(p), p) for p in prompts if p and p in text]
        lost = [p[max(0, end - start) :] for start, p in inside] or [text[end:]]
        made += [Cut(tokenizer, limit, part.strip()) for part in lost if part.strip()]
    return tuple(dict.fromkeys(made))


def tell(tokenizer: Any, name: str) -> None:
    """Have a tokenizer tell where it cuts; it does all else as before."""
    kind = type(tokenizer)
    if not getattr(tokenizer, "is_fast", False) or hasattr(kind, "tells_as"):
        return

    def call(self: Any, text: Any = None, *args: Any, **options: Any) -> Any:
        result = kind.__call__(self, text, *args, **options)
        found, limit = _calls.get(), options.get("max_length")
        if found is not None and limit and options.get("truncation"):
            shape = {"add_special_tokens": options.get("add_special_tokens", True)}
            for each in [text] if isinstance(text, str) else list(text):
                if (end := _end(kind, self, each, limit, shape)) is not None:
                    found.append((self.tells_as, limit, each, end))
        return result

    tokenizer.__class__ = type(kind.__name__, (kind,), {"__call__": call, "tells_as": name})


def _end(kind: Any, tokenizer: Any, text: str, limit: int, shape: dict[str, bool]) -> int | None:
    """Where a text is cut, in letters; None where it is read whole."""
    whole = kind.__call__(tokenizer, text, truncation=False, verbose=False, **shape)
    if len(whole["input_ids"]) <= limit:
        return None
    options = {"truncation": True, "max_length": limit, "return_offsets_mapping": True, **shape}
    kept = kind.__call__(tokenizer, text, **options)
    return max((end for _, end in kept["offset_mapping"]), default=0)


def check_vocabulary(tokenizer: Any, folder: Path) -> None:
    """Raise `ModelError` for a tokenizer that knows no words: it would leave out every prompt."""
    inner = getattr(tokenizer, "tokenizer", tokenizer)
    lost = (folder / "vocab.json").is_file() and not (folder / "merges.txt").is_file()
    if lost and not (folder / "tokenizer.json").is_file():
        raise ModelError(f"{folder / 'merges.txt'} is missing; fetch the model anew")
    if not hasattr(inner, "get_vocab"):
        return
    words = len(inner.get_vocab()) - len(set(getattr(inner, "all_special_ids", ())))
    if words < LEAST_WORDS:
        raise ModelError(
            f"{folder} has a vocabulary of {max(words, 0)} words: no prompt could be read; "
            "fetch the model anew"
        )

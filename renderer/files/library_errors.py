"""What diffusers and transformers raise over a checkpoint's files, as one `ModelError`.

They raise errors of any type over a config that no released model has: also plain `Exception`, as
tokenizers' and safetensors' own code does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import FriezeError, ModelError, first_line

MOST_TOLD = 400  # letters of the library's own words


@contextmanager
def as_model_error(what: Path, verb: str) -> Iterator[None]:
    """Within this a library does with a file or folder what `verb` says, as "be loaded".

    That there is too little memory is no fault of the files.
    """
    try:
        yield
    except (FriezeError, MemoryError):
        raise
    except Exception as error:  # of others' code
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            raise
        kind, told = type(error).__name__, first_line(error)[:MOST_TOLD]
        reason = kind if told == kind else f"{kind}: {told}"
        raise ModelError(f"{what} cannot {verb} ({reason}); fetch the model anew") from error

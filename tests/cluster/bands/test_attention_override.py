"""One thread's attention goes elsewhere, and nobody else's."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from frieze.cluster.bands import AttentionOverride
from tolerances import AMPLE

X = torch.randn(1, 2, 6, 4, generator=torch.Generator().manual_seed(0))


def nothing(plain: Any, *args: Tensor, **kwargs: Any) -> Tensor:
    return torch.zeros_like(args[0])


def test_only_the_thread_that_diverts_is_diverted() -> None:
    plain = F.scaled_dot_product_attention
    expected, found = plain(X, X, X), []
    diversion = AttentionOverride(nothing)
    diversion.open()
    other = threading.Thread(target=lambda: found.append(F.scaled_dot_product_attention(X, X, X)))
    other.start()
    other.join()
    diverted = F.scaled_dot_product_attention(X, X, X)
    diversion.close()
    assert torch.equal(found[0], expected)
    assert not diverted.any()
    assert F.scaled_dot_product_attention is plain


def test_what_is_called_instead_is_not_diverted_itself_and_may_call_what_was_there() -> None:
    depth = []

    def again(plain: Any, *args: Tensor, **kwargs: Any) -> Tensor:
        depth.append(plain)
        return F.scaled_dot_product_attention(*args, **kwargs) + plain(*args, **kwargs)

    plain = F.scaled_dot_product_attention
    diversion = AttentionOverride(again)
    diversion.open()
    try:
        found = F.scaled_dot_product_attention(X, X, X, scale=2.0)
    finally:
        diversion.close()
    assert depth == [plain]
    assert torch.equal(found, 2 * plain(X, X, X, scale=2.0))
    assert not torch.equal(found, 2 * plain(X, X, X))


def test_the_function_is_given_back_when_the_last_of_several_threads_closes() -> None:
    plain = F.scaled_dot_product_attention
    opened, may_close = threading.Barrier(3), threading.Event()

    def divert() -> None:
        diversion = AttentionOverride(nothing)
        diversion.open()
        opened.wait(AMPLE)
        may_close.wait(AMPLE)
        diversion.close()

    threads = [threading.Thread(target=divert) for _ in range(2)]
    for thread in threads:
        thread.start()
    opened.wait(AMPLE)
    assert F.scaled_dot_product_attention is not plain
    may_close.set()
    for thread in threads:
        thread.join()
    assert F.scaled_dot_product_attention is plain


def test_a_replacement_that_fails_leaves_the_thread_diverted_until_it_closes() -> None:
    def failing(plain: Any, *args: Tensor, **kwargs: Any) -> Tensor:
        raise ArithmeticError

    diversion = AttentionOverride(failing)
    diversion.open()
    try:
        for _ in range(2):
            with pytest.raises(ArithmeticError):
                F.scaled_dot_product_attention(X, X, X)
    finally:
        diversion.close()
    assert F.scaled_dot_product_attention(X, X, X).shape == X.shape

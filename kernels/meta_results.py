"""What operations give on meta tensors, remembered: a network asks the same of equal tensors.

torch works out shapes and strides anew for every call, most of them in Python, in a third of a
millisecond; a U-Net makes tens of thousands of calls, few of which are unlike.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class _Form(NamedTuple):
    """What tells a new tensor."""

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


class MetaResults:
    """Runs operations, those on meta tensors once for each form of their arguments.

    It remembers those whose results are tensors of their own: no views, nothing in place.
    """

    def __init__(self) -> None:
        self._forms: dict[Hashable, Any] = {}
        self._new: dict[Any, bool] = {}

    def run(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What the operation gives, or tensors of the same form."""
        is_new = self._new.get(func)
        if is_new is None:
            is_new = self._new[func] = _makes_new(func)
        key = _key(func, args, kwargs) if is_new else None
        if key is not None and (form := self._forms.get(key)) is not None:
            return _made(form)
        out = func(*args, **kwargs)
        if key is not None and _is_own(out):
            self._forms[key] = _form(out)
        return out


def _key(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Hashable | None:
    """All that the results' form depends on; None for what is not to be remembered."""
    try:
        parts = [_part(arg) for arg in args]
        named = tuple((name, _part(arg)) for name, arg in kwargs.items())
    except _Unknown:
        return None
    if not any(isinstance(part, tuple) for part in parts):
        return None  # it makes a tensor of nothing, at once
    return (func, *parts, named)


class _Unknown(Exception):
    """An argument of a kind that no key tells."""


# By equality alone 1, 1.0 and True are one, and give other dtypes.
_PLAIN = (int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout)


def _part(arg: Any) -> Hashable:
    kind = type(arg)
    if kind is Tensor or kind is nn.Parameter:
        if not arg.is_meta:
            raise _Unknown
        return arg.shape, arg.stride(), arg.dtype
    if kind in _PLAIN or kind is torch.memory_format:
        return kind.__name__ + repr(arg) if kind in (float, bool) else arg
    if kind is list or kind is tuple:
        return kind, *map(_part, arg)
    raise _Unknown


def _makes_new(func: Any) -> bool:
    """Whether an operation changes nothing that is there, and gives no views of it."""
    schema = func._schema
    return not (schema.is_mutable or any(each.alias_info for each in schema.returns))


def _is_own(out: Any) -> bool:
    """Whether all results are new tensors, each as large as its own memory."""
    found = out if isinstance(out, list | tuple) else [out]
    if not all(x is None or (type(x) is Tensor and x.is_meta) for x in found):
        return False
    tensors = [x for x in found if x is not None]
    storages = [x.untyped_storage() for x in tensors]
    if len({storage._cdata for storage in storages}) < len(storages) or not storages:
        return False
    forms = [_made(_form(x)) for x in tensors]
    return all(
        storage.nbytes() == made.untyped_storage().nbytes()
        for storage, made in zip(storages, forms, strict=True)
    )


def _form(out: Any) -> Any:
    """The same, a form for every tensor."""
    if isinstance(out, Tensor):
        return _Form(tuple(out.shape), out.stride(), out.dtype)
    return None if out is None else type(out)(map(_form, out))


def _made(form: Any) -> Any:
    """Tensors of these forms."""
    if isinstance(form, _Form):
        return torch.empty_strided(form.sizes, form.strides, dtype=form.dtype, device="meta")
    return None if form is None else type(form)(map(_made, form))

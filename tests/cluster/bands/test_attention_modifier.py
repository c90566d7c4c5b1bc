"""A modifier scales, measures, decays the attention of marked layers, on any number of ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frieze.cluster.attention import AttentionChange, Context
from frieze.cluster.bands import BandError, BandMode, Marks, band_mode, mark
from frieze.cluster.comm import Comm, run_threads, solo
from frieze.cluster.layout import Band, Canvas, Mesh
from frieze.cluster.strategies.bands import predict
from frieze.kernels.decay import Decay
from support.banded import BANDS, WIDTH, Attention, canvas, marked, rows_of
from tolerances import AMPLE, CONTROL, EXACT_FLOAT64

CANVAS = Canvas(1, 24, WIDTH)
WHOLE = (Band(0, 24),)
DECAY = Decay(window=1, alpha=0.8)
LAYERS = ["blocks.0", "blocks.1"]
Scaled = Callable[[str, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass
class Recorded:
    """A modifier that notes what it was asked."""

    scaled: Scaled = lambda layer, q, k: (q, k)
    times: float = 1.0
    measures: bool = False
    pooled: int | None = None
    decay: Decay | None = None
    calls: list[str] = field(default_factory=list)
    entropies: dict[str, Tensor] = field(default_factory=dict)

    def change(self, layer: str, q_BHSD: Tensor, k_BHSD: Tensor) -> AttentionChange:
        self.calls.append(layer)
        self.num_tokens = q_BHSD.shape[2]
        return AttentionChange(
            *self.scaled(layer, q_BHSD, k_BHSD),
            factor=self.times,
            decay=self.decay,
            probe=functools.partial(self.entropies.__setitem__, layer) if self.measures else None,
            pooled=self.pooled,
        )


def lambda_1H11(layer: str) -> Tensor:
    """A factor for each head, of another size in each layer."""
    return torch.tensor([1.3, 0.7], dtype=torch.float64).view(1, 2, 1, 1) + LAYERS.index(layer)


def sharpened(layer: str, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    return q * lambda_1H11(layer).to(q.dtype), k


def gained(layer: str, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    gain_D = torch.linspace(0.8, 1.4, q.shape[-1], dtype=q.dtype)
    return q * gain_D, k * gain_D


class Dense(nn.Module):
    """`Attention` by the formula: softmax(lambda q diag(gain^2) k^T) v."""

    def __init__(self, layer: str, scaled: Scaled) -> None:
        super().__init__()
        self.layer, self.scaled = layer, scaled

    def forward(self, x: Tensor) -> Tensor:
        q = x.unflatten(-1, (2, -1)).transpose(1, 2)
        logits = q @ q.mT * q.shape[-1] ** -0.5
        if self.scaled is sharpened:
            logits = lambda_1H11(self.layer) * logits
        if self.scaled is gained:
            gain_D = torch.linspace(0.8, 1.4, q.shape[-1], dtype=q.dtype)
            logits = torch.einsum("bhsd,d,bhkd->bhsk", q, gain_D**2, q) * q.shape[-1] ** -0.5
        return (logits.softmax(-1) @ q).transpose(1, 2).flatten(2)


class Net(nn.Module):
    """Two attentions between layers that mix rows otherwise."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        weight = torch.Generator().manual_seed(1)
        self.first, self.last = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        for conv in (self.first, self.last):
            nn.init.normal_(conv.weight, std=0.2, generator=weight)
            nn.init.zeros_(conv.bias)
        self.norm = nn.GroupNorm(2, 8)
        self.blocks = nn.ModuleList(blocks or (Attention(), Attention()))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        return self.last(tokens.transpose(1, 2).unflatten(2, x.shape[2:]))


def num_modes() -> int:
    """Torch function modes that this thread is in."""
    return torch._C._len_torch_function_stack()


def net(*blocks: nn.Module) -> tuple[Net, Marks]:
    model = Net(*blocks).double()
    return model, mark(model, lambda name, layer: isinstance(layer, (Attention, Dense)))


def drawn(
    bands: tuple[Band, ...], modifier: Any = None, mesh: Mesh | None = None, model: Any = None
) -> tuple[Tensor, list[Any]]:
    """(the picture, every rank's modifier)."""
    model, marks = model or net()

    def rank(comm: Comm) -> tuple[Tensor, Any]:
        own = modifier() if modifier is not None else None
        with band_mode(comm, bands, mesh=mesh, marks=(marks,), canvas=CANVAS, modifier=own):
            return model(rows_of(canvas(1, 8), bands[comm.rank])), own

    outs, modifiers = zip(*run_threads(rank, len(bands), timeout=AMPLE), strict=True)
    return torch.cat(outs, -2), list(modifiers)


WORLDS = {
    "one rank": (WHOLE, None),
    "two ranks": ((Band(0, 17), Band(17, 24)), None),
    "three ranks": (BANDS, Mesh(ring=3)),
    "ulysses x ring": ((Band(0, 4), Band(4, 11), Band(11, 22), Band(22, 24)), Mesh(1, 2, 2)),
}
worlds = pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)


@worlds
@pytest.mark.parametrize("change", [sharpened, gained])
def test_scaled_queries_and_keys_are_scaled_logits(world: Any, change: Scaled) -> None:
    bands, mesh = world
    found, _ = drawn(bands, lambda: Recorded(change), mesh)
    expected = Net(*(Dense(name, change) for name in LAYERS)).double()(canvas(1, 8))
    plain = Net(*(Dense(name, lambda *x: x[1:]) for name in LAYERS)).double()(canvas(1, 8))
    assert (found - expected).abs().max() <= EXACT_FLOAT64
    assert (plain - expected).abs().max() > CONTROL


@worlds
def test_a_factor_of_all_heads_is_that_of_their_logits(world: Any) -> None:
    bands, mesh = world
    scaled = lambda layer, q, k: (q * 1.7, k)  # noqa: E731
    plain, _ = drawn(bands, None, mesh)
    found, modifiers = drawn(bands, lambda: Recorded(times=1.7, measures=True), mesh)
    expected, others = drawn(bands, lambda: Recorded(scaled, measures=True), mesh)
    assert (found - expected).abs().max() <= EXACT_FLOAT64
    assert (plain - expected).abs().max() > CONTROL
    assert [t.num_tokens for t in modifiers] == [band.rows * WIDTH for band in bands]
    for ours, theirs in zip(modifiers, others, strict=True):
        for layer in LAYERS:
            assert (ours.entropies[layer] - theirs.entropies[layer]).abs().max() <= EXACT_FLOAT64


@worlds
def test_a_modifier_that_does_nothing_changes_no_bit(world: Any) -> None:
    bands, mesh = world
    plain, _ = drawn(bands, None, mesh)
    for change in (lambda layer, q, k: (q, k), lambda layer, q, k: (q * torch.ones(()), k)):
        found, modifiers = drawn(bands, lambda c=change: Recorded(c, measures=True), mesh)
        assert torch.equal(found, plain)
        assert all(modifier.calls == LAYERS for modifier in modifiers)


@pytest.mark.parametrize("pooled", [None, 32])
def test_every_layer_is_measured_once_as_changed_with_the_same_bits_on_every_rank(
    pooled: int | None,
) -> None:
    def measured(bands: tuple[Band, ...], mesh: Mesh | None, scaled: Scaled) -> list[Any]:
        modifier = lambda: Recorded(scaled, measures=True, pooled=pooled)  # noqa: E731
        return drawn(bands, modifier, mesh)[1]

    (one,) = measured(WHOLE, None, sharpened)
    (plain,) = measured(WHOLE, None, lambda layer, q, k: (q, k))
    assert list(one.entropies) == LAYERS
    for bands, mesh in WORLDS.values():
        for modifier in measured(bands, mesh, sharpened):
            assert modifier.calls == list(modifier.entropies) == LAYERS
            for layer in LAYERS:
                entropy_BH = modifier.entropies[layer]
                assert entropy_BH.shape == (1, 2)
                assert (entropy_BH - one.entropies[layer]).abs().max() <= EXACT_FLOAT64
                assert (entropy_BH - plain.entropies[layer]).abs().max() > CONTROL
    first, *others = measured(*WORLDS["ulysses x ring"], sharpened)
    assert all(torch.equal(first.entropies[n], t.entropies[n]) for t in others for n in LAYERS)


def test_on_one_rank_the_mode_changes_attention_only() -> None:
    """Elsewhere the plain functions run, unmarked attention too, and no bit changes."""
    model, marks = marked(Attention())
    x = canvas(1, 4)

    def work() -> Tensor:
        y = F.group_norm(F.interpolate(x, scale_factor=2, mode="bilinear"), 2)
        return model(x).sum() + y.mean() + F.scaled_dot_product_attention(x, x, x).sum()

    modifier = Recorded()
    with BandMode(solo(), WHOLE, marks=marks, canvas=CANVAS, modifier=modifier):
        found = work()
    assert torch.equal(found, work())
    assert modifier.calls == ["blocks.0"]


def test_on_one_rank_no_mode_is_entered_and_attention_is_what_it_was_whatever_fails() -> None:
    """A mode costs every torch call a detour."""
    model, marks = marked(Attention())
    plain = F.scaled_dot_product_attention
    inside: list[tuple[int, bool]] = []

    def look(*_: object) -> None:
        inside.append((num_modes(), F.scaled_dot_product_attention is plain))

    model.blocks[0].register_forward_pre_hook(look)

    def failing(layer: str, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        raise ArithmeticError(layer)

    with BandMode(solo(), WHOLE, marks=marks, canvas=CANVAS, modifier=Recorded()):
        assert F.scaled_dot_product_attention is plain
        model(canvas(1, 4))
        assert F.scaled_dot_product_attention is plain
    assert inside == [(0, False)]
    mode = BandMode(solo(), WHOLE, marks=marks, canvas=CANVAS, modifier=Recorded(failing))
    with pytest.raises(ArithmeticError, match=r"blocks\.0"), mode:
        model(canvas(1, 4))
    assert F.scaled_dot_product_attention is plain


def test_without_a_modifier_one_rank_needs_no_mode() -> None:
    assert isinstance(band_mode(solo(), WHOLE), nullcontext)
    assert isinstance(band_mode(solo(), WHOLE, modifier=Recorded()), BandMode)


@pytest.mark.parametrize("bands", [WHOLE, BANDS], ids=["one rank", "three ranks"])
def test_local_layers_are_left_alone(bands: tuple[Band, ...]) -> None:
    model = Net().double()
    whole = mark(model, lambda name, _: name == "blocks.0")
    local = mark(model, lambda name, _: name == "blocks.1", local=True)

    def rank(comm: Comm) -> Any:
        modifier = Recorded(measures=True)
        with BandMode(comm, bands, marks=(whole, local), canvas=CANVAS, modifier=modifier):
            model(rows_of(canvas(1, 8), bands[comm.rank]))
        return modifier.calls, list(modifier.entropies)

    assert run_threads(rank, len(bands)) == [(["blocks.0"], ["blocks.0"])] * len(bands)


def test_a_marked_layer_that_does_not_attend_is_missed_on_one_rank_too() -> None:
    model, marks = marked(Attention("by hand"))
    with (
        pytest.raises(BandError, match="made 0 attentions"),
        BandMode(solo(), WHOLE, marks=marks, canvas=CANVAS, modifier=Recorded()),
    ):
        model(canvas(1, 4))


class Clip(nn.Module):
    """Attention over text [1, 3, 4] and the tokens of a clip [1, 4, T, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()

    def forward(self, x: Tensor) -> Tensor:
        text = torch.linspace(-2, 2, 12, dtype=x.dtype).view(1, 3, 4)
        tokens = self.attention(torch.cat((text, x.flatten(2).transpose(1, 2)), dim=1))
        return tokens[:, 3:].transpose(1, 2).unflatten(2, x.shape[2:])


def clip(modifier: Recorded | None, bands: tuple[Band, ...], frames: int = 4) -> Tensor:
    model = Clip()
    marks = mark(model, lambda name, _: name == "attention", Context(3))
    x = 2 * canvas(1, 4, frames)

    def rank(comm: Comm) -> Tensor:
        own = rows_of(x, bands[comm.rank])
        return predict(lambda x, _: model(x), own, 0, comm, marks=(marks,), modifier=modifier)

    return torch.cat(run_threads(rank, len(bands)), -2)


def decayed_clip(frames: int = 4) -> Tensor:
    x = 2 * canvas(1, 4, frames)
    text = torch.linspace(-2, 2, 12, dtype=x.dtype).view(1, 3, 4)
    q = torch.cat((text, x.flatten(2).transpose(1, 2)), dim=1)
    q = q.unflatten(-1, (2, -1)).transpose(1, 2)
    frame = torch.cat((torch.zeros(3), torch.arange(frames).repeat_interleave(24 * WIDTH))).long()
    factor = DECAY.factors(frames)[(frame[:, None] - frame[None]).abs()]
    factor[:3] = factor[:, :3] = 1
    logits = q @ q.mT * q.shape[-1] ** -0.5
    out = torch.where(logits > 0, factor * logits, logits).softmax(-1) @ q
    return out.transpose(1, 2).flatten(2)[:, 3:].transpose(1, 2).unflatten(2, x.shape[2:])


@pytest.mark.parametrize("bands", [WHOLE, BANDS], ids=["one rank", "three ranks"])
def test_a_clip_decays_along_its_frames(bands: tuple[Band, ...]) -> None:
    found = clip(Recorded(decay=DECAY), bands)
    assert (found - decayed_clip()).abs().max() <= EXACT_FLOAT64
    assert (clip(None, bands) - decayed_clip()).abs().max() > CONTROL


def test_frames_are_not_guessed_without_a_canvas() -> None:
    model, marks = marked(Attention())
    with (
        pytest.raises(BandError, match=r"not known how many frames .* latent canvas"),
        BandMode(solo(), WHOLE, marks=marks, modifier=Recorded(decay=DECAY)),
    ):
        model(canvas(1, 4))

"""Attention where parts of a canvas ask the texts of different prompts, each in its share.

Every place of the canvas has a share in each prompt; shares add up to 1.  A layer answers an image
token with the mean, in these shares, of what it would answer under every prompt alone: to blend
answers is to blend outputs, since what follows is linear.  A prompt's text asks the whole image and
itself, and no other prompt's text.

Shape suffixes: B batch, H heads, S tokens, D head dim; of shares P prompts, R rows, C columns.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from frieze.kernels.attention import AttentionPartial, attend
from frieze.kernels.decay import Decay

from ..comm import AxisComms
from ..layout import TokenGrid
from .regions import Regions
from .sequence_parallel import Context, TokenLayout, around_the_ring, of_all_ranks


def regional_attention(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    *,
    comms: AxisComms,
    grid: TokenGrid,
    context: Context,
    scale: float | None = None,
    decay: Decay | None = None,
) -> Tensor:
    """`canvas_attention` whose image tokens ask the text of each prompt in their shares.

    The context has regions and a run of tokens for each of their prompts; those before them ask,
    and are asked by, all: they answer in the shares that prompts have of the whole canvas.
    """
    regions = context.regions
    assert regions is not None
    spread = TokenLayout.of(q_BHSD, comms, grid.tokens, context, grid.frames)
    (q_text, q), (k_text, k), (v_text, v) = (context.split(x) for x in (q_BHSD, k_BHSD, v_BHSD))
    asked = of_all_ranks(q_text, k, v, comms.world, scale)
    share_P1 = regions.means(q_text)[:, None]
    text = _text_rows(q_text, asked, _texts(context, k_text, v_text), share_P1, scale)
    q = spread.to_heads(q)
    shared, *texts = _texts(context, k_text[:, spread.mine], v_text[:, spread.mine])
    asked = around_the_ring(q, k, v, spread, scale, decay)
    if context.num_tokens > sum(context.runs):
        asked = asked + attend(q, *shared, scale=scale)
    image = _blended(q, texts, _shares(regions, grid, spread, q), scale, beside=asked)
    return context.join(text.to(q_BHSD.dtype), spread.to_tokens(image.to(q_BHSD.dtype)))


def regional_cross_attention(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    *,
    share_PS: Tensor,
    runs: Sequence[int],
    scale: float | None = None,
) -> Tensor:
    """Attention of image tokens to text alone, in their shares of each prompt.

    Prompts are runs of the keys, or lie along the batch, all those of one prompt together, where
    that has more entries than the queries'.
    """
    if k_BHSD.shape[0] != q_BHSD.shape[0]:
        k, v = (x.chunk(len(runs)) for x in (k_BHSD, v_BHSD))
    else:
        k, v = (x.split(list(runs), dim=2) for x in (k_BHSD, v_BHSD))
    texts = list(zip(k, v, strict=True))
    return _blended(q_BHSD, texts, share_PS, scale).to(q_BHSD.dtype)


def regional_text_attention(
    q_BHSD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    *,
    runs: Sequence[int],
    scale: float | None = None,
) -> Tensor:
    """Attention of each prompt's text to itself."""
    parts = zip(*(x.split(list(runs), dim=2) for x in (q_BHSD, k_BHSD, v_BHSD)), strict=True)
    return torch.cat([attend(*part, scale=scale).out_BHSD for part in parts], dim=2)


def _shares(regions: Regions, grid: TokenGrid, spread: TokenLayout, like: Tensor) -> Tensor:
    """Those of the tokens that this rank asks with after `to_heads`, [P, S]."""
    ring, step = spread.comms.ring, spread.comms.ulysses.size
    ranks = range(ring.rank * step, (ring.rank + 1) * step)
    return torch.cat([regions.of_band(grid, rank, like) for rank in ranks], dim=1)


def prompt_by_prompt(
    attention: Callable[..., Tensor],
    qkv: Sequence[Tensor],
    *,
    context: Context,
    share_PS: Tensor,
    share_P: Tensor,
) -> Tensor:
    """The same of any `attention(q, k, v, context=...)`, asked anew for every prompt.

    `share_PS` are those of this rank's image tokens, `share_P` those of the whole canvas.
    """
    texts, common, images = [], [], []
    for index, run in enumerate(context.runs):
        own = context.of_prompt(index)
        answer = attention(*(context.only(index, x) for x in qkv), context=own)
        text, image = own.split(answer)
        shared, alone = text.split([own.num_tokens - run, run], dim=2)
        texts.append(alone)
        common.append(share_P[index] * shared)
        images.append(share_PS[index][:, None] * image)
    text = torch.cat([functools.reduce(operator.add, common), *texts], dim=2)
    return context.join(text, functools.reduce(operator.add, images)).to(qkv[0].dtype)


Text = tuple[Tensor, Tensor]  # keys and values


def _texts(context: Context, k_text: Tensor, v_text: Tensor) -> list[Text]:
    """Keys and values of the tokens that are every prompt's, then of each prompt's own."""
    sizes = [context.num_tokens - sum(context.runs), *context.runs]
    return list(zip(k_text.split(sizes, dim=2), v_text.split(sizes, dim=2), strict=True))


def _blended(
    q: Tensor,
    texts: Sequence[Text],
    share_PS: Tensor,
    scale: float | None,
    beside: AttentionPartial | None = None,
) -> Tensor:
    """What queries are answered under each prompt, in their shares; float32 or wider.

    `beside` is what all prompts' answers have in common.
    """

    def part(text: Text, share_S: Tensor) -> Tensor:
        found = attend(q, *text, scale=scale)
        return share_S[:, None] * (found if beside is None else beside + found).out_BHSD

    return functools.reduce(operator.add, map(part, texts, share_PS))


def _text_rows(
    q_text: Tensor,
    asked: AttentionPartial,
    texts: Sequence[Text],
    share_P1: Tensor,
    scale: float | None,
) -> Tensor:
    """Each prompt's tokens ask itself and what is every prompt's; that asks all, in their shares.

    `asked` is what the image answers all of them.
    """
    (k_shared, v_shared), *own = texts
    sizes = [k.shape[2] for k, _ in texts]
    queries = q_text.split(sizes, dim=2)
    images = list(
        map(AttentionPartial, asked.out_BHSD.split(sizes, 2), asked.lse_BHS.split(sizes, 2))
    )
    first = images[0] + attend(queries[0], k_shared, v_shared, scale=scale)
    rows = [_blended(queries[0], own, share_P1, scale, beside=first)]
    for q, image, (k, v) in zip(queries[1:], images[1:], own, strict=True):
        keys = (torch.cat((k_shared, k), dim=2), torch.cat((v_shared, v), dim=2))
        rows.append((image + attend(q, *keys, scale=scale)).out_BHSD)
    return torch.cat(rows, dim=2)

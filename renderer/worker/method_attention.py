"""How a method changes attention in one stage: gains of channels, focus of heads, decay, windows.

Softmax of lambda S is softmax over lambda q: heads are concentrated by scaling their queries, and
no kernel and no mask is needed. Which heads, and how much, follows from the entropies that the
stage's first step measures (UltraImage, arXiv 2512.04504, section 4.2).
Shape suffixes: B batch, H heads, L layers, S tokens, D head dim, F frequencies of an axis.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from frieze.cluster.attention import AttentionChange, AttentionShape, KeyTurns
from frieze.cluster.bands import HookSites
from frieze.cluster.comm import Comm, Like
from frieze.cluster.thread_value import ThreadValue

from ..extrapolation.spectrum import spectrum, token_means

if TYPE_CHECKING:
    from frieze.kernels.decay import Decay

    from ..extrapolation.method import Method, Spectrum, StepContext
    from ..models.positions import RotaryAxis

# Of one half of the guidance: a layer's name -> the entropy of each of its heads, in nats.
Entropies = Mapping[str, Sequence[float]]
Gather = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class AttentionStep:
    """What a method's attention depends on at one step.

    `num_tokens` are the image tokens of the whole canvas, `num_own` this rank's. `context` is what
    windows depend on. `texts` are the tokens of each prompt's text where parts of the canvas have
    prompts of their own. `gather` makes of this rank's map those of all ranks, in rank order.
    """

    axes: tuple[RotaryAxis, ...]
    num_tokens: int
    num_own: int
    sigma: float = 1.0
    context: StepContext | None = None
    texts: tuple[int, ...] = ()
    is_first: bool = False  # of its stage: entropies are measured
    gather: Gather = lambda map_THW: [map_THW]


class MethodAttention:
    """The attention modifier of one stage for one half of the guidance, on one rank.

    `num_trained` are the image tokens of the size that the model was trained at. Every step
    `begin`s before it asks for changes.
    """

    step: AttentionStep

    def __init__(self, method: Method, num_trained: int) -> None:
        self.method, self.num_trained = method, num_trained
        self._measured: dict[str, Tensor] = {}
        self._turns: dict[tuple[RotaryAxis, ...], KeyTurns | None] = {}
        self._scale_H: dict[str, Tensor] = {}
        self._gains: list[Tensor | float] = []
        self._gain_D: Tensor | None = None
        # What queries of a layer are multiplied by, made when first asked for; None for 1.
        self._weights: dict[str, Tensor | None] = {}

    def begin(self, step: AttentionStep) -> None:
        """Prepare for a step; gains that follow from its tokens come with `on_tokens`."""
        self.step = step
        if not self.method.needs_spectrum:
            self._weigh(None)

    @property
    def is_beyond(self) -> bool:
        """Whether the canvas is larger than the model was trained on; else nothing is changed."""
        return any(axis.length > axis.trained for axis in self.step.axes)

    @property
    def is_idle(self) -> bool:
        """Whether attention is left as it is: then no mode is entered for it."""
        changes = self.method.gains is not None or self.method.focus is not None
        is_plain = self.decay is None and self.shape("") is None and not self.step.texts
        is_scaled = self._of_frame != 1 or self.turns is not None
        return is_plain and not is_scaled and not (changes and self.is_beyond)

    @property
    def decay(self) -> Decay | None:
        """How logits decay along a clip of more frames than the model was trained on."""
        policy = self.method.decay
        longer = [a for a in self.step.axes if a.name == "frame" and a.length > a.trained]
        return policy(longer[0]) if policy and longer else None

    def shape(self, layer: str) -> Callable[[int, int], AttentionShape | None] | None:
        """What a layer's queries ask of a canvas that is larger than trained."""
        windows, context = self.method.windows, self.step.context
        if windows is None or context is None or not context.is_beyond:
            return None
        return functools.partial(windows, context, layer)

    @property
    def turns(self) -> KeyTurns | None:
        """Where keys of a canvas that is larger than trained stand for each tile of queries."""
        policy, axes = self.method.key_positions, self.step.axes
        if policy is None:
            return None
        if axes not in self._turns:
            self._turns = {axes: policy(axes)}
        return self._turns[axes]

    @property
    def is_measuring(self) -> bool:
        """Whether this step measures entropies: a stage's first one, for heads to concentrate."""
        focus = self.method.focus
        measures = self.is_beyond and focus is not None and focus.scale is not None
        return self.step.is_first and measures

    def entropies(self) -> Entropies:
        """What the first step measured."""
        return {layer: entropy_H.tolist() for layer, entropy_H in self._measured.items()}

    def _keep(self, layer: str, entropy_BH: Tensor) -> None:
        self._measured[layer] = entropy_BH.mean(0).cpu()

    def concentrate(self, entropies: Entropies) -> None:
        """Turn the measured entropies of all layers into the factors of their heads."""
        focus = self.method.focus
        assert focus is not None
        assert focus.scale is not None
        widest = max(map(len, entropies.values()))
        # Layers may have different numbers of heads: absent ones must not count.
        entropy_LH = torch.full((len(entropies), widest), torch.nan, dtype=torch.float64)
        for row_H, values in zip(entropy_LH, entropies.values(), strict=True):
            row_H[: len(values)] = torch.tensor(values, dtype=torch.float64)
        scale_LH = focus.scale(entropy_LH)
        self._scale_H = {
            layer: scale_LH[index, : len(values)]
            for index, (layer, values) in enumerate(entropies.items())
        }
        self._weights.clear()

    def on_tokens(self, token_BSE: Tensor) -> None:
        """Take gains from the spectrum of the tokens that the network's first layer makes."""
        if not self.method.needs_spectrum:  # the hook is there for another render's method
            return
        frames, columns = (a.length for a in self.step.axes if a.name in ("frame", "column"))
        map_THW = token_means(token_BSE[:, : self.step.num_own], columns, frames)
        # The map of the whole canvas is no band: functions mean on it what they say.
        with torch._C.DisableTorchFunction():
            self._weigh(spectrum(torch.cat(self.step.gather(map_THW), dim=1)))

    def _weigh(self, tokens: Spectrum | None) -> None:
        gains = self.method.gains
        if gains is None or not self.is_beyond:
            return
        each = [gains(axis, self.step.sigma, tokens) for axis in self.step.axes]
        # Most methods' gains are numbers, and the same at every step.
        if not any(isinstance(gain, Tensor) for gain in each) and each == self._gains:
            return
        self._gains = each
        self._gain_D = torch.cat(list(map(_per_channel, each, self.step.axes)))
        self._weights.clear()

    def change(self, layer: str, q_BHSD: Tensor, k_BHSD: Tensor) -> AttentionChange:
        """Queries with their heads' factors and the squares of their channels' gains.

        A gain of queries and of keys is its square of either: logits sum over channels.
        """
        focus = self.method.focus if self.is_measuring else None
        alike = layer if layer in self._scale_H else ""  # gains are those of all layers
        if alike not in self._weights:
            self._weights[alike] = self._weight(layer, q_BHSD)
        weight_HSD = self._weights[alike]
        return AttentionChange(
            q_BHSD if weight_HSD is None else q_BHSD * weight_HSD,
            k_BHSD,
            factor=self._factor(q_BHSD.shape[2]),
            decay=self.decay,
            probe=functools.partial(self._keep, layer) if self.is_measuring else None,
            pooled=focus.pooled if focus else None,
            shape=self.shape(layer),
            turns=self.turns,
        )

    def _weight(self, layer: str, like: Tensor) -> Tensor | None:
        """What queries of a layer are multiplied by, one for all tokens; None for 1."""
        parts = []
        if self._gain_D is not None:
            parts.append(self._gain_D.square())
        if (scale_H := self._scale_H.get(layer)) is not None:
            parts.append(scale_H[:, None, None])
        if all(bool((part == 1).all()) for part in parts):
            return None
        return math.prod(parts[1:], start=parts[0]).to(like)

    @property
    def _of_frame(self) -> float:
        """One factor for all heads, from the image tokens of one latent frame."""
        focus, context = self.method.focus, self.step.context
        if focus is None or focus.of_frame is None:
            return 1.0
        return focus.of_frame(self.step.num_tokens // (context.canvas.frames if context else 1))

    def _factor(self, num_tokens: int) -> float:
        """One factor for all heads, from the number of tokens, text included."""
        focus = self.method.focus
        if focus is None or focus.constant is None or not self.is_beyond:
            return self._of_frame
        num_text = num_tokens - self.step.num_own
        if num_text >= sum(self.step.texts) > 0:  # nobody asks more than one of them
            num_text += max(self.step.texts) - sum(self.step.texts)
        return focus.constant(self.step.num_tokens + num_text, self.num_trained + num_text)


def gathering(comm: Comm, rows: Sequence[int]) -> Gather:
    """How maps [T, H, W] of bands of so many rows of tokens are gathered, in rank order."""

    def gather(map_THW: Tensor) -> list[Tensor]:
        like = Like.of(map_THW)
        return comm.all_gather(map_THW, [like.with_size(1, n) for n in rows])

    return gather


def collect_tokens(modifier: MethodAttention) -> AbstractContextManager[None]:
    """Inside, the tokens of this thread's networks go to the modifier."""
    return _modifier.set(modifier)


def register_token_hook(embedders: Sequence[nn.Module]) -> None:
    """Pass the tokens that these layers make to the modifier that collects, once for a layer."""
    for layer in embedders:
        _sites.hook(layer, {"tokens": functools.partial(layer.register_forward_hook, _pass_tokens)})


_modifier: ThreadValue[MethodAttention] = ThreadValue("tokens")
_sites = HookSites()


def _pass_tokens(layer: nn.Module, args: object, output: Tensor) -> None:
    if (modifier := _modifier.get()) is not None:
        # Clips come as [B, E, T, H, W].
        tokens = output.flatten(2).transpose(1, 2) if output.ndim == 5 else output
        modifier.on_tokens(tokens if tokens.ndim == 3 else tokens[None])


def _per_channel(gain: Tensor | float, axis: RotaryAxis) -> Tensor:
    """A gain for each channel of an axis: a frequency has two neighbours."""
    gain_F = torch.as_tensor(gain, dtype=torch.float64).expand(axis.dim // 2)
    return gain_F.repeat_interleave(2)

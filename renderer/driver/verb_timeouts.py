"""How long a verb may be silent before its ranks hang: by what verbs of their group took.

A verb that the group has run on the same canvas may take `FACTOR` times its median, and
`USUAL_SECONDS` at least. One that is new there may meet new shapes: it has `NEW_SECONDS` at least,
and `FACTOR` times the most that it and its kin in `KIN` come to. Their work grows with the
canvas's area, attention's with the area's square, so that is what is allowed for. Where nothing
was measured, as when weights are loaded and kernels compiled, it is `timeout`, which is also the
most. Processes that answer nothing at all are found sooner, by `cluster.ray.heartbeat`.
"""

from __future__ import annotations

import statistics

FACTOR = 10.0
USUAL_SECONDS = 10.0
NEW_SECONDS = 60.0
# Verbs of comparable work, and how many of them it is at most. A step that saves
# waits until a whole state is written. Decoders do less than a denoiser's step in most families.
KIN: dict[str, tuple[tuple[str, float], ...]] = {
    "step": (),
    "save": (("step", 1.0),),
    "latents": (("step", 1.0),),
    "entropies": (("step", 1.0),),
    "set_entropies": (("step", 1.0),),
    "memory": (("step", 1.0),),
    "decode_stage": (("step", 10.0),),
    "begin": (("decode_stage", 2.0), ("step", 10.0)),
    "decode": (("decode_stage", 1.0), ("step", 10.0)),
}


class VerbTimeouts:
    """What verbs of one group of ranks took, and so how long the next may be silent."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._taken: dict[str, list[tuple[int, float]]] = {}

    def took(self, verb: str, area: int, seconds: float) -> None:
        """Notes what a verb took on a canvas of so many latent positions."""
        self._taken.setdefault(verb, []).append((area, seconds))

    def limit(self, verb: str, area: int) -> float:
        """Seconds without a word after which a verb hangs."""
        if same := [seconds for size, seconds in self._taken.get(verb, ()) if size == area]:
            return self._within(statistics.median(same), USUAL_SECONDS)
        usual = [
            times * statistics.median(s * max(1.0, area / size) ** 2 for size, s in taken)
            for kin, times in ((verb, 1.0), *KIN.get(verb, ()))
            if (taken := self._taken.get(kin))
        ]
        return self._within(max(usual), NEW_SECONDS) if usual else self._timeout

    def _within(self, usual: float, least: float) -> float:
        return min(self._timeout, max(least, FACTOR * usual))

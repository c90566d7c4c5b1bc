"""Every solver on its table against diffusers' own scheduler, stepping with a bent denoiser."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from frieze.renderer.checkpoints.scheduler_config import SOLVER_OF
from frieze.renderer.sampling.noise_levels import NoiseLevel, NoiseSchedule, Table, x0_from
from frieze.renderer.sampling.schedule_table import table
from frieze.renderer.sampling.solver_step import SolverStep
from frieze.renderer.sampling.solvers import SOLVERS, noised, solver
from support.schedulers import (
    DPM_KARRAS,
    DYNAMIC,
    QWEN,
    SD3,
    SD15_PNDM,
    SD21_DDIM,
    SDXL_EULER,
    SDXL_TURBO,
    WAN,
    Config,
    schedule_of,
    stable_diffusion,
)
from tolerances import CONTROL, EXACT_FLOAT32, STOCK_STEPS

# numpy 2 dislikes how diffusers' schedulers make arrays of tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TOKENS = 1024
EXPLICIT = {"explicit_sigmas": True}
UNIPC = "UniPCMultistep"
DPM = "DPMSolverMultistep"
CASES: dict[str, tuple[Config, dict[str, Any]]] = {
    "SD1.5 PNDM": (SD15_PNDM, {}),
    "PNDM velocity": ({**SD15_PNDM, "prediction_type": "v_prediction"}, {}),
    "SD2.1 DDIM": (SD21_DDIM, {}),
    "DDIM to alpha 1": ({**SD21_DDIM, "set_alpha_to_one": True}, {}),
    "DDIM zero SNR": (
        {**SD21_DDIM, "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        {},
    ),
    "SDXL Euler": (SDXL_EULER, {}),
    "SDXL Euler karras": ({**SDXL_EULER, "use_karras_sigmas": True}, {}),
    "Euler linspace": ({**SDXL_EULER, "timestep_spacing": "linspace"}, {}),
    "Euler to sigma_min": ({**SDXL_EULER, "final_sigmas_type": "sigma_min"}, {}),
    "SDXL-Turbo": (SDXL_TURBO, {}),
    "LCM": (stable_diffusion("LCM", set_alpha_to_one=False), {}),
    "LCM of 25 steps": (
        stable_diffusion("LCM", original_inference_steps=25, prediction_type="v_prediction"),
        {},
    ),
    "LCM flow": ({**SD3, "_class_name": "FlowMatchLCMScheduler"}, {}),
    "LCM flow dynamic": ({**DYNAMIC, "_class_name": "FlowMatchLCMScheduler"}, EXPLICIT),
    "SDXL-Lightning": ({**SDXL_EULER, "timestep_spacing": "trailing"}, {}),
    "Hyper-SD": ({**SD15_PNDM, "_class_name": "DDIMScheduler", "timestep_spacing": "trailing"}, {}),
    "DPM++ 2M karras": (DPM_KARRAS, {}),
    "DPM++ 2M karras to sigma_min": ({**DPM_KARRAS, "final_sigmas_type": "sigma_min"}, {}),
    # With order 3 diffusers' last step divides zero by zero.
    "DPM++ 2M exponential to sigma_min": (
        stable_diffusion(DPM, use_exponential_sigmas=True, final_sigmas_type="sigma_min"),
        {},
    ),
    "UniPC karras to sigma_min": (
        stable_diffusion(UNIPC, use_karras_sigmas=True, final_sigmas_type="sigma_min"),
        {},
    ),
    "DPM++ 2M heun": (stable_diffusion(DPM, solver_type="heun", euler_at_final=True), {}),
    "DPM++ 3M": (stable_diffusion(DPM, solver_order=3, timestep_spacing="trailing"), {}),
    "DPM++ 3M to sigma_min": (
        stable_diffusion(DPM, solver_order=3, final_sigmas_type="sigma_min"),
        {},
    ),
    "DPM++ 1": (stable_diffusion(DPM, solver_order=1, use_exponential_sigmas=True), {}),
    "DPM++ SDE": (stable_diffusion(DPM, algorithm_type="sde-dpmsolver++"), {}),
    "DPM++ SDE heun": (
        stable_diffusion(DPM, algorithm_type="sde-dpmsolver++", solver_type="heun"),
        {},
    ),
    "DPM++ flow": (
        stable_diffusion(
            DPM, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        {},
    ),
    "UniPC": (stable_diffusion(UNIPC), {}),
    # To no noise bh1 of diffusers is 0 x infinity.
    "UniPC bh1": (
        stable_diffusion(UNIPC, solver_type="bh1", solver_order=3, final_sigmas_type="sigma_min"),
        {},
    ),
    "UniPC 3": (stable_diffusion(UNIPC, solver_order=3, disable_corrector=[0, 2]), {}),
    "UniPC to sigma_min": (
        stable_diffusion(
            UNIPC, solver_order=3, final_sigmas_type="sigma_min", lower_order_final=False
        ),
        {},
    ),
    "Wan 480p": (WAN, {}),
    "Wan 720p": ({**WAN, "flow_shift": 5.0}, {}),
    "SD3": (SD3, {}),
    "FLUX.1-dev": (DYNAMIC, EXPLICIT),
    "FLUX.1-dev karras": ({**DYNAMIC, "use_karras_sigmas": True}, EXPLICIT),
    "Qwen-Image": (QWEN, EXPLICIT),
    "Z-Image-Turbo": (SD3, EXPLICIT),
}


class Exact(torch.Tensor):
    """Stays float64 where a scheduler would round it to float32."""

    def to(self, *_: object, **__: object) -> Exact:
        return self


def bent(x: Tensor, timestep: float) -> Tensor:
    """A denoiser that no low order integrates exactly."""
    return 0.6 * torch.sin(1.7 * x + timestep / 400) + 0.2 * x


def noise(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, 2, 1, 4, 4, generator=generator, dtype=torch.float64)


def drawing(kind: torch.dtype) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(7)
    return lambda: torch.randn(1, 2, 1, 4, 4, generator=generator, dtype=kind)


def stock(config: Config, num_steps: int, explicit: bool) -> Tensor:
    """What a pipeline's loop around diffusers' scheduler gives, in float64."""
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    wanted: dict[str, Any] = {"num_inference_steps": num_steps}
    if explicit:
        wanted = {"sigmas": [1 - i / num_steps for i in range(num_steps)]}
    if config.get("use_dynamic_shifting"):
        slope = (config["max_shift"] - config["base_shift"]) / (config["max_image_seq_len"] - 256)
        wanted["mu"] = config["base_shift"] + slope * (TOKENS - 256)
    scheduler.set_timesteps(**wanted)
    for name in ("sigmas", "alphas_cumprod"):
        if hasattr(scheduler, name):
            setattr(scheduler, name, getattr(scheduler, name).double())
    x: Tensor = noise() * float(getattr(scheduler, "init_noise_sigma", 1.0))
    x = x.as_subclass(Exact)
    random = {"generator": torch.Generator().manual_seed(7)}
    for timestep in scheduler.timesteps:
        scaled = x
        if hasattr(scheduler, "scale_model_input"):
            scaled = scheduler.scale_model_input(x, timestep)
        output = bent(scaled, float(timestep))
        given = random if config["_class_name"] in STOCHASTIC else {}
        x = scheduler.step(output, timestep, x, **given).prev_sample
    return x.as_subclass(Tensor)


STOCHASTIC = (
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "FlowMatchLCMScheduler",
    "LCMScheduler",
)


def run(schedule: NoiseSchedule, made: Table, x: Tensor, stop: int | None = None) -> Tensor:
    """All steps; those from `stop` on by another solver, told only x, history and index."""
    kind = torch.float32 if schedule.solver == "dpm" else torch.float64
    draw = drawing(kind)
    used = solver(schedule)
    history = (torch.zeros_like(x),) * used.num_history
    for index, level in enumerate(made.levels[:-1]):
        if index == stop:
            used = solver(schedule)
            x, history = x.clone(), tuple(kept.clone() for kept in history)
        clean = x0_from(schedule.prediction, x, bent(x, level.timestep), level)
        x, history = used.step(SolverStep(index, made.levels, x, clean, history, draw))
        assert len(history) == used.num_history
    return x


def ours(schedule: NoiseSchedule, num_steps: int) -> Tensor:
    made = table(schedule, num_steps, tokens=TOKENS, training_tokens=4096)
    x = run(schedule, made, noise() * made.scale)
    if schedule.solver in ("euler", "ancestral") and "Euler" in schedule.options["_class_name"]:
        # Euler-discrete keeps x / alpha; flow ends at alpha 1.
        return x / made.levels[-1].alpha
    return x


def far(x: Tensor, y: Tensor) -> float:
    return float((x - y).abs().max() / y.abs().max())


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("name", CASES)
def test_a_render_equals_diffusers(tmp_path: Path, name: str, num_steps: int) -> None:
    config, facts = CASES[name]
    if name == "Qwen-Image" and num_steps == 1:
        pytest.skip("diffusers divides by zero")
    if name in ("DDIM zero SNR", "Hyper-SD") and num_steps == 3:
        pytest.skip("diffusers steps to a timestep and names the one before")
    schedule = schedule_of(tmp_path, config, **facts)
    expected = stock(config, num_steps, bool(facts))
    assert far(ours(schedule, num_steps), expected) < STOCK_STEPS


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("DPM++ 2M karras", {"solver_order": 1}),
        ("DPM++ 2M karras", {"solver_type": "heun"}),
        ("DPM++ 3M", {"solver_order": 2}),
        ("DPM++ flow", {"flow_shift": 4.0}),
        ("UniPC", {"solver_order": 3}),
        ("UniPC", {"solver_type": "bh1"}),
        ("UniPC 3", {"disable_corrector": []}),
        ("Wan 480p", {"flow_shift": 5.0}),
        ("SD3", {"shift": 4.0}),
        ("Qwen-Image", {"shift_terminal": None}),
        ("SD1.5 PNDM", {"_class_name": "DDIMScheduler"}),
        ("SDXL-Turbo", {"_class_name": "EulerDiscreteScheduler"}),
    ],
    ids=str,
)
def test_another_solver_or_shift_is_seen(tmp_path: Path, name: str, changed: Config) -> None:
    """The control of the test above."""
    config, facts = CASES[name]
    schedule = schedule_of(tmp_path, {**config, **changed}, **facts)
    assert far(ours(schedule, 5), stock(config, 5, bool(facts))) > CONTROL


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
@pytest.mark.parametrize("name", CASES)
def test_a_resumed_render_has_the_same_bits(tmp_path: Path, name: str, stop: int) -> None:
    config, facts = CASES[name]
    schedule = schedule_of(tmp_path, config, **facts)
    made = table(schedule, 6, tokens=TOKENS, training_tokens=4096)
    x = noise().float()
    assert torch.equal(run(schedule, made, x, stop), run(schedule, made, x))


@pytest.mark.parametrize("name", CASES)
def test_single_precision_is_enough(tmp_path: Path, name: str) -> None:
    config, facts = CASES[name]
    schedule = schedule_of(tmp_path, config, **facts)
    made = table(schedule, 20, tokens=TOKENS, training_tokens=4096)
    single = run(schedule, made, noise().float() * made.scale)
    assert far(single, run(schedule, made, noise() * made.scale)) < EXACT_FLOAT32


def test_a_history_that_was_lost_is_seen(tmp_path: Path) -> None:
    """The control: without its history a multistep solver goes elsewhere."""
    schedule = schedule_of(tmp_path, SD15_PNDM)
    made = table(schedule, 6, tokens=TOKENS, training_tokens=4096)
    step = solver(schedule).step
    lost = tuple(torch.zeros_like(noise()) for _ in range(4))
    kept = tuple(noise(seed) for seed in range(4))
    there, _ = step(SolverStep(4, made.levels, noise(), noise(1), lost))
    here, _ = step(SolverStep(4, made.levels, noise(), noise(1), kept))
    assert far(there, here) > CONTROL


@pytest.mark.parametrize("name", CASES)
def test_a_perfect_network_reaches_the_clean_latents(tmp_path: Path, name: str) -> None:
    config, facts = CASES[name]
    schedule = schedule_of(tmp_path, config, **facts)
    made = table(schedule, 6, tokens=TOKENS, training_tokens=4096, strength=0.7)
    clean, used = noise(1), solver(schedule)
    x = noised(clean, noise(), made.levels[0])
    history = (torch.zeros_like(x),) * used.num_history
    for index in range(len(made.levels) - 1):
        x, history = used.step(
            SolverStep(index, made.levels, x, clean, history, drawing(torch.float64))
        )
    last = made.levels[-1]
    # A consistency model is the identity at no noise (arXiv 2303.01469), and so keeps a little.
    kept = 1e-7 if name.startswith("LCM") else 1e-9
    assert far(x, last.alpha * clean) < kept + 2 * last.sigma
    assert last.sigma < 0.05


def test_solvers_converge_at_their_order(tmp_path: Path) -> None:
    """With twice the steps the error falls about as 2^-order; flow, so that no table differs."""
    flow = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 1.0}
    first = schedule_of(tmp_path, stable_diffusion(DPM, solver_order=1, **flow))
    second = schedule_of(tmp_path, stable_diffusion(DPM, solver_order=2, **flow))
    unipc = schedule_of(tmp_path, stable_diffusion(UNIPC, solver_order=2, **flow))

    exact = run(unipc, Table(between(0.9, 0.2, 2000), 1.0, None), noise())

    def error(schedule: NoiseSchedule, num_steps: int) -> float:
        levels = between(0.9, 0.2, num_steps)
        return far(run(schedule, Table(levels, 1.0, None), noise()), exact)

    gains = [error(schedule, 40) / error(schedule, 80) for schedule in (first, second, unipc)]
    assert 1.7 < gains[0] < 2.4
    assert gains[1] > 3
    assert gains[2] > 3


def between(top: float, bottom: float, num_steps: int) -> tuple[NoiseLevel, ...]:
    sigmas = [top + (bottom - top) * i / num_steps for i in range(num_steps + 1)]
    return tuple(NoiseLevel(1000 * s, 1 - s, s) for s in sigmas)


@pytest.mark.parametrize("prediction", ["velocity", "epsilon", "v_prediction", "sample"])
def test_every_prediction_of_the_truth_means_the_clean_latents(prediction: str) -> None:
    alpha = 0.6
    sigma = 1 - alpha if prediction == "velocity" else math.sqrt(1 - alpha**2)
    level, clean, eps = NoiseLevel(500.0, alpha, sigma), noise(1), noise(2)
    truth = {
        "velocity": eps - clean,
        "epsilon": eps,
        "v_prediction": alpha * eps - sigma * clean,
        "sample": clean,
    }
    found = x0_from(prediction, noised(clean, eps, level), truth[prediction], level)
    torch.testing.assert_close(found, clean)


def test_every_scheduler_that_is_read_has_a_solver() -> None:
    assert set(SOLVER_OF.values()) == set(SOLVERS)


def test_only_stochastic_solvers_draw(tmp_path: Path) -> None:
    drawn = {name: solver(schedule_of(tmp_path, CASES[name][0])).needs_noise for name in CASES}
    assert [n for n, needs in drawn.items() if needs] == [
        *("SDXL-Turbo", "LCM", "LCM of 25 steps", "LCM flow", "LCM flow dynamic"),
        *("DPM++ SDE", "DPM++ SDE heun"),
    ]


def test_a_solver_keeps_no_state_of_its_own(tmp_path: Path) -> None:
    """Rank threads share one: two renders by turns equal two renders."""
    schedule = schedule_of(tmp_path, WAN)
    levels = table(schedule, 5, tokens=TOKENS, training_tokens=4096).levels
    used = solver(schedule)
    states: list[tuple[Tensor, Sequence[Tensor]]]
    states = [(noise(seed), (torch.zeros_like(noise()),) * used.num_history) for seed in (0, 1)]
    for index, level in enumerate(levels[:-1]):
        for turn, (x, history) in enumerate(states):
            clean = x0_from("velocity", x, bent(x, level.timestep), level)
            states[turn] = used.step(SolverStep(index, levels, x, clean, tuple(history)))
    for seed in (0, 1):
        alone = run(replace(schedule), Table(levels, 1.0, None), noise(seed))
        assert torch.equal(states[seed][0], alone)

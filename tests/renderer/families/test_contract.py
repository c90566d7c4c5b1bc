"""Every family found in `renderer/families` keeps the contract, on tiny real checkpoints."""

from __future__ import annotations

import gc
from collections.abc import Container, Sequence
from pathlib import Path

import pytest

from contracts import family as contract
from contracts.gallery import CONTROLLED, MASKED, Gallery

# Diffusers and torch warn about each other; what is tested is the renderer.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.by_name,
]
EVERY = [name for _, name in contract.served() if name]
FIRST = contract.first_layouts()
whole = pytest.mark.parametrize("name", FIRST)
# Second layouts of a family: what the first one stands for is left to `make test-all`.
TWINS = ("flux2-dev", "sdxl", "wan-i2v", "sdxl-inpaint", "flux-fill")


def parted(names: Sequence[str], later: Container[str]) -> pytest.MarkDecorator:
    """Each name, some of them in `make test-all` alone."""
    marks = {name: [pytest.mark.slow] if name in later else [] for name in names}
    params = [pytest.param(name, marks=marks[name]) for name in names]
    return pytest.mark.parametrize("name", params)


single = parted(FIRST, TWINS)
# One of each kind of network: what is the same of all is left to `make test-all` for the others.
KINDS = ("flux", "sd15", "wan")
of_a_kind = parted(FIRST, {*FIRST} - {*KINDS})
# And the layouts that step in another way: with fresh noise, or by velocity.
STEPPED = [*FIRST, *(name for name in ("sdxl-turbo", "sd21") if name in EVERY)]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory, kept_encoders: None) -> Gallery:
    import checkpoints.clips
    import checkpoints.layouts  # noqa: F401

    gc.freeze()  # what those imported
    return Gallery(tmp_path_factory.mktemp("gallery"))


@pytest.mark.parametrize(("pipeline", "name"), contract.served())
def test_there_is_a_checkpoint_of_every_pipeline(pipeline: str, name: str) -> None:
    assert name, f"tests/checkpoints builds no {pipeline}; add its layout to PIPELINES"


# On three ranks; on one, second layouts too, where all that may be is left open.
@single
def test_it_equals_diffusers(gallery: Gallery, name: str) -> None:
    contract.equals_diffusers(gallery, name, workers=3)


# Those of Stable Diffusion 3 and of Wan's first frame differ by parts that are left out or counted.
@parted([name for name in EVERY if name not in FIRST], ("sd3-no-t5", "sd35", "wan22-i2v"))
def test_a_further_layout_on_ranks_equals_diffusers(gallery: Gallery, name: str) -> None:
    contract.equals_diffusers(gallery, name, workers=3)


# The others have controls of their own: a LoRA shows, and so does a band mode that is missing.
@of_a_kind
def test_control_seed_guidance_and_prompts_show(gallery: Gallery, name: str) -> None:
    contract.notices_seed_guidance_and_prompts(gallery, name)


@single
def test_a_long_prompt_unguided_equals_diffusers(gallery: Gallery, name: str) -> None:
    contract.equals_diffusers_unguided_of_a_long_prompt(gallery, name)


@whole
def test_what_is_left_open_is_the_pipelines_default(gallery: Gallery, name: str) -> None:
    contract.leaves_defaults_to_the_pipeline(gallery, name)


@pytest.mark.slow  # of diffusers they are told not to differ either, above
@pytest.mark.parametrize("name", EVERY)
def test_three_ranks_draw_the_same(gallery: Gallery, name: str) -> None:
    contract.draws_the_same_on_ranks(gallery, name, workers=3)


@of_a_kind
def test_ranks_may_share_heads(gallery: Gallery, name: str) -> None:
    contract.draws_the_same_on_ranks(gallery, name, workers=2, ulysses=2)


@pytest.mark.slow
@whole
def test_any_mesh_of_ranks_draws_the_same(gallery: Gallery, name: str) -> None:
    for ranks in ({"workers": 2}, {"workers": 4, "ulysses": 2}):
        contract.draws_the_same_on_ranks(gallery, name, **ranks)


@of_a_kind
def test_control_without_the_band_mode_ranks_disagree(
    gallery: Gallery, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract.needs_the_band_mode(gallery, name, monkeypatch)


@single
def test_a_lora_is_worn_as_diffusers_wears_it(gallery: Gallery, name: str) -> None:
    contract.wears_a_lora(gallery, name)


@of_a_kind
def test_control_the_weight_of_a_lora_shows(gallery: Gallery, name: str) -> None:
    contract.weighs_a_lora(gallery, name)


@pytest.mark.parametrize("name", ["wan", "wan22", "flux"])
def test_a_second_expert_has_loras_of_its_own(gallery: Gallery, name: str) -> None:
    contract.gives_its_second_expert_a_lora_of_its_own(gallery, name)


@parted(CONTROLLED, ("sd15",))
def test_a_controlnet_guides_as_in_diffusers(gallery: Gallery, name: str) -> None:
    contract.follows_a_controlnet(gallery, name)


@pytest.mark.parametrize("name", [name for name in FIRST if name != "sdxl"])
def test_a_controlnet_of_another_family_is_refused(gallery: Gallery, name: str) -> None:
    contract.takes_no_other_controlnet(gallery, name, "sdxl")


# One of each kind of autoencoder: `flows/` redraw with FLUX.1's, and Qwen's is scaled as Wan's.
# PLMS, begun in the middle, is its solver's test.
@parted(STEPPED, {*TWINS, "flux", "qwen", "sd3", "zimage", "sd21", "sd15"})
def test_a_picture_is_redrawn(gallery: Gallery, name: str) -> None:
    contract.redraws_a_picture(gallery, name)


# Pictures' families whose pipelines say the same; U-Nets that know masks are first layouts.
@parted(STEPPED, {*TWINS, "sd3", "zimage", "sd21", "sd15", *MASKED, "flux2"})
def test_a_part_of_a_picture_is_redrawn(gallery: Gallery, name: str) -> None:
    contract.redraws_a_part_of_a_picture(gallery, name)


# Their networks' own tests have all families, and whole renders that of the demo.
@pytest.mark.slow
@whole
def test_parts_may_have_prompts_of_their_own(gallery: Gallery, name: str) -> None:
    contract.tells_parts_of_a_picture_other_prompts(gallery, name)


@of_a_kind
def test_guidance_may_have_its_own_ranks(gallery: Gallery, name: str) -> None:
    contract.splits_guidance_over_ranks(gallery, name)


# Of a clip from its first frame; pictures are `flows/test_guided_flow.py`'s, U-Nets too, and the
# autoencoders' own tests have the others.
@parted(FIRST, {*FIRST} - {"wan-i2v"})
def test_a_cascade_is_the_same_on_ranks(gallery: Gallery, name: str) -> None:
    contract.draws_a_cascade_on_ranks(gallery, name)


@parted(FIRST, {*FIRST} - {"flux", "sd3", "wan"})  # sd3 stands for those without rotary positions
def test_positions_come_from_the_method(
    gallery: Gallery, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract.takes_positions_from_the_method(gallery, name, monkeypatch)


# One of each solver.
@parted(STEPPED, {*STEPPED} - {*KINDS, "sdxl-turbo"})
def test_a_stopped_render_resumes_to_the_same_bytes(gallery: Gallery, name: str) -> None:
    contract.resumes_where_it_stopped(gallery, name)


@parted(FIRST, {*FIRST} - {"flux", "sd15"})  # Wan's rounds alike on ranks, which is tested below
def test_half_precision_stays_close(gallery: Gallery, name: str) -> None:
    contract.stays_close_in_half_precision(gallery, name)


@of_a_kind
def test_half_precision_rounds_alike_on_ranks(gallery: Gallery, name: str) -> None:
    contract.rounds_alike_on_ranks(gallery, name)


@whole
def test_what_is_cut_off_a_prompt_is_told(gallery: Gallery, name: str) -> None:
    contract.tells_what_its_encoders_do_not_read(gallery, name)


@whole
def test_a_sequence_length_that_means_nothing_is_refused(gallery: Gallery, name: str) -> None:
    contract.refuses_a_sequence_length_that_means_nothing(gallery, name)


@whole
def test_a_tokenizer_without_its_vocabulary_is_refused(
    gallery: Gallery, name: str, tmp_path: Path
) -> None:
    contract.refuses_a_tokenizer_without_its_vocabulary(gallery, name, tmp_path)


@whole
def test_an_autoencoder_is_upcast_where_it_says_so(gallery: Gallery, name: str) -> None:
    contract.upcasts_an_autoencoder_that_says_so(gallery, name)


@whole
def test_facts_are_read_without_torch_modules(
    gallery: Gallery, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract.describes_without_making_modules(gallery, name, monkeypatch)


@pytest.mark.parametrize("name", EVERY)
def test_facts_give_the_shape_of_latents(gallery: Gallery, name: str) -> None:
    contract.describes_the_latents(gallery, name)


@whole
def test_what_cannot_be_drawn_is_refused(gallery: Gallery, name: str) -> None:
    contract.refuses_what_it_cannot_draw(gallery, name)


@whole
def test_a_missing_file_is_named(gallery: Gallery, name: str, tmp_path: Path) -> None:
    contract.names_the_file_that_is_missing(gallery, name, tmp_path)

"""Fields of a spec as options of commands: what their help says."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from frieze.renderer.cli.batch import batch
from frieze.renderer.cli.options.spec_fields import takes_fields
from frieze.renderer.cli.render import render
from frieze.renderer.cli.train import decoder
from frieze.renderer.spec.render_spec import RenderSpec


def helps(command: Callable[..., None]) -> dict[str, str]:
    """What the help says of each option."""
    parameters = inspect.signature(command).parameters
    return {
        name: parameter.annotation.__metadata__[0].help for name, parameter in parameters.items()
    }


def test_a_field_is_described_as_what_it_is_to_the_command() -> None:
    words = helps(render)["workers"]
    assert words.startswith("ranks the canvas is cut over: 4, or 2..8")
    for command in (batch, decoder):  # neither takes 2..8
        assert ".." not in helps(command)["workers"]
        assert "default 1" in helps(command)["workers"]
    assert helps(decoder)["seed"] != helps(render)["seed"]
    assert helps(decoder)["wait"] == helps(render)["wait"]


def test_what_an_option_means_when_it_is_left_out_may_be_said() -> None:
    @takes_fields("workers", left_out="as it was begun")
    def command(**fields: object) -> None: ...

    assert (
        helps(command)["workers"]
        == "ranks the canvas is cut over: 4, or 2..8; default: as it was begun"
    )


def test_what_checks_a_value_is_no_part_of_the_type_that_the_help_names() -> None:
    for name, parameter in inspect.signature(render).parameters.items():
        kind, *_ = parameter.annotation.__args__
        assert "Annotated" not in str(kind), name
    checked = RenderSpec.model_fields["place"].annotation
    assert "Annotated" in str(checked)  # what the help named before

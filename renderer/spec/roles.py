"""What a field of the spec is for: where the help shows it, and whether it decides pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic.fields import FieldInfo

from .stage_spec import Record

Panel = Literal["Picture", "Model", "Work", "Output"]
PANELS: tuple[Panel, ...] = get_args(Panel)  # in the order of the help


@dataclass(frozen=True)
class Role:
    """Stated once, beside the field's type; flags, panels and the fingerprint follow from it.

    `panel` is the part of the help that shows the field's flag; None: it has no flag.
    `decides_pixels`: with another value it may be another picture, so that a store which was begun
    with one is not finished with another. `came_later`: there are stores that do not name the
    field; they were drawn with its default.
    """

    panel: Panel | None
    decides_pixels: bool = True
    came_later: bool = False


# Of fields that decide pixels those with which an upscale is begun, beside its picture, its size,
# its frames and its decoder; all others are about what is denoised.
OF_AN_UPSCALE = (
    *("model", "revision", "variant", "dtype", "seed", "bits", "watermark", "watermark_options"),
)
# Of these others those with which a picture is redrawn (`--with render`).
OF_A_REDRAW = (
    *("prompt", "negative_prompt", "creativity", "guide", "num_inference_steps", "guidance_scale"),
    *("guidance_scale_2", "true_cfg_scale", "max_sequence_length", "lora", "lora_2"),
    *("quantization", "storage_dtype", "method", "method_options", "attend", "shift", "strategy"),
)

IN_PICTURE, IN_MODEL = Role("Picture"), Role("Model")
IN_WORK = Role("Work", decides_pixels=False)
IN_OUTPUT = Role("Output", decides_pixels=False)


def role(field: FieldInfo) -> Role:
    """The role that a field states; ValueError if it does not state exactly one."""
    (stated,) = (each for each in field.metadata if isinstance(each, Role))
    return stated


class RoleRecord(Record):
    """Fields with a `Role` each, of which a fingerprint, flags and panels are made."""

    def picture(self) -> dict[str, Any]:
        """The fields that decide the picture's pixels, as JSON values."""
        roles = self.roles()
        return self.model_dump(mode="json", include={n for n in roles if roles[n].decides_pixels})

    def identity(self) -> dict[str, Any]:
        """The same, but for fields that came later and are as it was before them.

        What was begun before them is told to be the same picture by this.
        """
        roles, plain = self.roles(), type(self)().picture()
        return {
            name: value
            for name, value in self.picture().items()
            if not (roles[name].came_later and value == plain[name])
        }

    @classmethod
    def roles(cls) -> dict[str, Role]:
        """What each field is for, in the order of the fields."""
        return {name: role(field) for name, field in cls.model_fields.items()}

"""What a pack says of itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from selfsup_cli.config.blocks import Size

Place = Annotated[int, Field(ge=0)]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Parts(_Plain):
    """One split: who made it, and where in `order` its two parts begin and end."""

    rule: str
    train: tuple[Place, Place]
    test: tuple[Place, Place]


class Coding(_Plain):
    """How frames are stored: height and width, as JPEG of a quality (1 … 100) or raw."""

    size: Size
    encoding: Literal["jpeg", "raw"]
    quality: Annotated[int, Field(ge=1, le=100)] | None

    def __str__(self) -> str:
        height, width = self.size
        how = "raw" if self.quality is None else f"JPEG quality {self.quality}"
        return f"{height}×{width}, {how}"


class ImageCoding(_Plain):
    """How images are stored: as the files that they are, or scaled down to a `shorter` side.

    Those that are larger than that become JPEGs of a quality (1 … 100), upright; the others stay.
    """

    encoding: Literal["files"] = "files"
    shorter: Annotated[int, Field(ge=8, le=8192)] | None
    quality: Annotated[int, Field(ge=1, le=100)] | None

    def __str__(self) -> str:
        if self.shorter is None:
            return "image files as they are"
        return f"image files, shorter side at most {self.shorter}, JPEG quality {self.quality}"


class Loss(_Plain):
    """What JPEG changed in a sample of frames, in grey levels of 255."""

    mean: Annotated[float, Field(ge=0, le=255)]
    largest: Annotated[int, Field(ge=0, le=255)]
    frames: int


class About(_Plain):
    """What a pack was made from, and how.

    `source` is the fingerprint of what was packed. `splits` are the divisions that the data brings
    along, by their number; without any, it is divided by the seeded hash. `rule` is the phrase for
    all of it. `reasons` says of each video that was left out (by its place) why; `unnamable` lists
    files that have no proper name.
    """

    schema_: Literal["selfsup.pack/1"] = Field(alias="schema", default="selfsup.pack/1")
    name: Annotated[str, Field(pattern=r"^[^/\x00]{1,255}$")]
    source: str
    coding: Coding | ImageCoding
    classes: tuple[str, ...] | None
    attributes: tuple[str, ...] | None = None
    rule: str
    splits: dict[Annotated[str, Field(pattern="^[1-9][0-9]?$")], Parts]
    reasons: dict[str, str]
    unnamable: tuple[tuple[str, str], ...]
    loss: Loss | None

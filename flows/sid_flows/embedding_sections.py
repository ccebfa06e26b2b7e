"""The sections of a recipe that make vectors: [pairs], [[embed]] and [fuse]."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from sid_flows.sections import Section, check, parameters
from sid_pipelines.collaborative import model_named
from sid_pipelines.encoders import options_of as text_options
from sid_pipelines.enriched import FIELD as ENRICHED
from sid_pipelines.fusion import fusion_named
from sid_pipelines.image_encoders import options_of as image_options
from sid_pipelines.pairs import PairsParams
from sid_pipelines.text import fields_of
from sid_pipelines.text import parse as parse_template
from sid_schemas import DataError

FUSED = "fused"  # the name of the embedding that [fuse] makes
MODELS = {"text": "sentence-transformers/all-MiniLM-L6-v2", "collaborative": "als"}
OWNERS = {"template": "text", "clean_text": "text", "enriched": "text", "images": "image"}  # by modality
MISSING = {"text": "refuse", "image": "mask", "collaborative": "mask"}


class PairsSection(Section):
    """Pairs of items derived from train events; `sid_pipelines.pairs.PairsParams` says what each key does."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="after")
    def _parameters_fit(self) -> "PairsSection":
        try:
            check(PairsParams(**self.parameters))
        except DataError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """Give every parameter of pairs; the defaults live only there."""
        return parameters("pairs", PairsParams, self)


class EmbedSection(Section):
    """One table of vectors, `embeddings_<name>`; the options of the encoder or model stand beside its name.

    modality: what is embedded. model: of text a folder, an installed package, a hub id, "hashing" or
    "tfidf-svd"; of images an .onnx file, a folder, a package or a hub id; of behaviour one of the
    collaborative models. template, clean_text: of text. enriched: of text, the file whose texts fill
    {enriched}: JSON lines or Parquet with item_id, text, model and prompt. images: of images, the folder that
    image_ref is relative to, where that is not the dump's own. missing: what an item without this modality
    gets: "refuse", a zero vector ("mask"), the mean of the others ("mean"), or what a ridge regression from
    the vectors named by map_from gives ("map").

    name: of the table, the modality where it is left out. map_from: the embedding that stands in, with
    missing = "map". dtype: of the vectors in the release.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    modality: Literal["text", "image", "collaborative"] = "text"
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)] = ""
    model: str = ""
    template: str | None = None
    clean_text: bool | None = None
    enriched: str | None = None
    images: str | None = None
    missing: Literal["refuse", "mask", "mean", "map"] | None = None
    map_from: str | None = None
    dtype: Literal["float32", "float16"] = "float32"

    @field_validator("template")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        if value is not None:
            parse_template(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        """Fill in what the modality decides."""
        if not isinstance(values, dict):
            return values
        modality = values.get("modality", "text")
        defaults = {"name": modality, "model": MODELS.get(modality), "missing": MISSING.get(modality)}
        return {**{name: value for name, value in defaults.items() if value}, **values}

    @model_validator(mode="after")
    def _options_fit(self) -> "EmbedSection":
        for name, owner in OWNERS.items():
            if getattr(self, name) is not None and self.modality != owner:
                raise ValueError(f"{name} is for modality = {owner!r}, not {self.modality!r}")
        asked = self.template is not None and ENRICHED in fields_of(self.template)
        if asked != (self.enriched is not None):
            raise ValueError(
                "enriched = 'a file' and {enriched} in the template go together, as in "
                "template = '{title}. {enriched}'"
            )
        if not self.model:
            raise ValueError("model is missing; expected an .onnx file, a folder, a package or a hub id")
        if (self.missing == "map") != (self.map_from is not None):
            raise ValueError("missing = 'map' and map_from = 'the name of another [[embed]]' go together")
        if self.missing == "map" and self.modality == "text":
            raise ValueError("missing = 'map' is for images and behaviour; a text can be refused or masked")
        try:
            check(self.owner(**self.options))
        except DataError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def further(self) -> list[str]:
        """Give the endings of the tables that are written beside the main one."""
        return [suffix for suffix in getattr(self.owner, "tables", ()) if suffix]

    @property
    def owner(self) -> type:
        """Give the dataclass whose fields are the options of this model."""
        match self.modality:
            case "text":
                return text_options(self.model)
            case "image":
                return image_options(self.model)
            case _:
                return model_named(self.model)

    @property
    def options(self) -> dict[str, Any]:
        """Give every option of the encoder or model; the defaults live only there."""
        return parameters("embed", self.owner, self)


class FuseSection(Section):
    """How several embeddings become one; a method's own options stand beside its name.

    inputs: names of embeddings, in this order; all of them where it is empty.

    method: one of the fusions of `sidmill embeddings`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str = "concat"
    inputs: list[str] = Field(default_factory=list)

    @property
    def options(self) -> dict[str, Any]:
        """Give every option of the method; the defaults live only there."""
        return parameters("fuse", fusion_named(self.method), self)

"""[export]: which trainers' files a run writes once its release is published; they shape no release."""

from pydantic import Field, model_validator

from sid_flows.sections import Section, listed


class ExportSection(Section):
    """Trainers' formats to write, each into a folder of its own in the warehouse.

    formats: names, as `sidmill formats` lists them. settings: by format, what may be chosen of it, as with
    `sidmill export --set`.
    """

    formats: list[str] = Field(default_factory=list)
    settings: dict[str, dict[str, str | bool | int | float]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> "ExportSection":
        if not (self.formats or self.settings):
            return self
        from sid_pipelines.trainers import TRAINERS
        from sid_pipelines.trainers.export import settings_of

        for name in (*self.formats, *self.settings):
            if name not in TRAINERS:
                raise ValueError(f"no trainer's format is called {name!r}; {listed(TRAINERS)}")
        if len(set(self.formats)) < len(self.formats):
            raise ValueError(f"formats = {self.formats}: expected each name once")
        for name, given in self.settings.items():
            settings_of(TRAINERS[name], given)
            if name not in self.formats:
                raise ValueError(f"settings.{name} is of no format that is written; add it to formats")
        return self

    def unfit(self, protocol: str) -> str:
        """Say why a format cannot hold any release of a split protocol, "" where all may."""
        if not self.formats:
            return ""
        from sid_pipelines.trainers import TRAINERS

        for form in map(TRAINERS.__getitem__, self.formats):
            if form.protocols and protocol not in form.protocols:
                expected = " or ".join(map(repr, form.protocols))
                return f"{form.name} is of a trainer that makes its own split; expected {expected}"
        return ""

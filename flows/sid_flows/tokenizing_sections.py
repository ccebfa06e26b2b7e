"""The sections of a recipe that make IDs of vectors: [tokenize], [collisions], [pieces] and [users]."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sid_flows.sections import Count, Section, parameters
from sid_pipelines.pieces import PiecesParams
from sid_pipelines.users import UsersParams
from sid_schemas import DataError
from sid_tokenizers import POLICIES, Scheme, Tokenizer, tokenizer_named
from sid_tokenizers.collisions import policy_named


class TokenizeSection(BaseModel):
    """The tokenizer; its own parameters stand beside its name and have the constructor's defaults.

    vectors: the embedding it reads, the fused one or else the only one where it is empty. cf: that of
    behaviour, for schemes that read one too; the only one where it is empty. each: embeddings that are
    tokenized besides, each on its own, as tables `sids_<name>`. fit_scope: fit on items with a train event,
    or on all. fit_items: at most so many of them, drawn by the seed, for catalogues that do not fit into
    memory; 0 for all. soft: how many of the likeliest codes of each level to publish as `soft_sids`;
    soft_temperature: of their probabilities, 0 for the one that the scheme was trained at, else 1.

    tokenizer: one of `sidmill tokenizers`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    tokenizer: str = "rq-kmeans"
    vectors: str = ""
    cf: str = ""
    each: list[str] = Field(default_factory=list)
    fit_scope: Literal["train", "all"] = "train"
    fit_items: Count = 1_000_000
    soft: Count = 0
    soft_temperature: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _parameters_fit(self) -> "TokenizeSection":
        scheme = self.scheme
        try:
            self.made.check_params()
        except DataError as error:
            raise ValueError(str(error)) from None
        made = self.made
        if self.soft and not (scheme.traits.soft and isinstance(made, Tokenizer)):
            raise ValueError(f"soft = {self.soft}: {scheme.name} has no soft codes")
        if self.soft and isinstance(made, Tokenizer) and self.soft > min(made.levels):
            raise ValueError(f"soft = {self.soft}: expected at most {min(made.levels)}, the codes of a level")
        if self.each and not (isinstance(made, Tokenizer) and made.needs == ("vectors",)):
            raise ValueError(
                f"each: {scheme.name} needs more than an embedding; expected a scheme that codes one, such "
                "as rq-kmeans"
            )
        return self

    @property
    def scheme(self) -> type[Scheme]:
        """Give the class of the tokenizer."""
        return tokenizer_named(self.tokenizer)

    @property
    def made(self) -> Scheme:
        """Give the tokenizer with its parameters, not fitted."""
        return self.scheme(**self.parameters)

    @property
    def parameters(self) -> dict[str, Any]:
        """Give every parameter of the tokenizer's constructor; the defaults live only there."""
        return parameters("tokenize", self.scheme, self)


class CollisionsSection(Section):
    """What happens to items with equal codes; a policy's own parameters stand beside its name.

    Where nothing is said and the tokenizer gives every item an ID of its own, the policy is "none".

    policy: one of `sidmill policies`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    policy: str = "next-nearest"

    @field_validator("policy")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in POLICIES:
            raise ValueError(f"there are: {', '.join(POLICIES)}")
        return value

    @model_validator(mode="after")
    def _parameters_fit(self) -> "CollisionsSection":
        try:
            policy_named(self.policy, self.parameters)
        except DataError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """Give every parameter of the policy; the defaults live only there."""
        return parameters("collisions", POLICIES[self.policy], self)


class PiecesSection(Section):
    """Pieces of SIDs; `sid_pipelines.pieces.PiecesParams` says what each key does."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="after")
    def _parameters_fit(self) -> "PiecesSection":
        try:
            for scheme in self.made.made().values():
                scheme.check_params()
        except DataError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """Give every parameter of pieces; the defaults live only there."""
        return parameters("pieces", PiecesParams, self)

    @property
    def made(self) -> PiecesParams:
        """Give what the stage depends on."""
        given = self.parameters
        return PiecesParams(**{**given, "schemes": tuple(given["schemes"])})


class UsersSection(Section):
    """User SIDs and mixtures; the tokenizer's own parameters stand beside its name.

    sids: write `user_sids`. mixtures: write `user_mixtures`, over the first codes of items. vectors: the
    embedding whose mean over a user's train items the user is; the tokenized one where it is empty. last:
    train events of a user that count, the latest; 0 for all.

    tokenizer: one of `sidmill tokenizers` that codes vectors.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    sids: bool = True
    mixtures: bool = False
    vectors: str = ""
    last: Count = 0
    tokenizer: str = "rq-kmeans"

    @model_validator(mode="after")
    def _parameters_fit(self) -> "UsersSection":
        try:
            self.made("mean").check_params()
        except DataError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """Give every parameter of the tokenizer's constructor; the defaults live only there."""
        return parameters("users", tokenizer_named(self.tokenizer), self)

    def made(self, vectors: Literal["mean", "cf"]) -> UsersParams:
        """Give what the stage depends on."""
        return UsersParams(vectors, self.last, self.tokenizer, self.parameters, self.sids, self.mixtures)

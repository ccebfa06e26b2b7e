"""Which policies go with which tokenizer: the menu follows what the tokenizer declares."""

from sid_tokenizers.base import Tokenizer
from sid_tokenizers.collisions.base import Policy
from sid_tokenizers.scheme import Scheme
from sid_tokenizers.vocabulary import MAX_LEVELS


def misfit(policy: Policy, tokenizer: Scheme) -> str | None:
    """Say why a policy cannot follow a tokenizer, or give None where it can."""
    traits = tokenizer.traits
    if traits.gives != "codes" and policy.name != "none":
        return f"it settles codes, but the tokenizer gives {traits.gives}; choose none"
    if traits.unique and policy.name != "none":
        return "the tokenizer gives no two items one SID; choose none"
    if not traits.fixed_length and policy.name != "none":
        return "it needs SIDs of one length, and the tokenizer's vary; choose none"
    if not isinstance(tokenizer, Tokenizer):
        return None
    if policy.needs_reconstruction and not tokenizer.reconstructs:
        return "it codes what the tokenizer left over, but these parameters do not decode to the vectors"
    if len(tokenizer.levels) + policy.adds > MAX_LEVELS:
        return f"it adds a level to {len(tokenizer.levels)}, but there are letters for {MAX_LEVELS} only"
    return None

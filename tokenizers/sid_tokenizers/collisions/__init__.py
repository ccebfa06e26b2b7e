"""Make every SID unique, or say plainly that it is not: the policies that follow a tokenizer.

In the order of thought: groups and repeats find what collides, base says what a policy is, leaves and
greedy place items on free SIDs; then a file per kind of policy; menu names them and runs one.

A policy sees all codes that may matter to each other (apart.py) and a ranking of alternatives
(`Tokenizer.distances`), never row order: ties are settled by item id. What was published stays: new
items are settled around `taken`.
"""

from sid_tokenizers.collisions.base import Policy, Ranker, Resolution
from sid_tokenizers.collisions.groups import group_sizes, slots_of
from sid_tokenizers.collisions.matching import misfit
from sid_tokenizers.collisions.menu import POLICIES, policy_named, resolve

__all__ = [
    "POLICIES",
    "Policy",
    "Ranker",
    "Resolution",
    "group_sizes",
    "misfit",
    "policy_named",
    "resolve",
    "slots_of",
]

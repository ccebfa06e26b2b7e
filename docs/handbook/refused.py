"""Formats that the example's release cannot be written in: what the command says, and what it would fit.

The pages show both, and tests/test_guides_generated.py sees that the command says so.
"""

from collections.abc import Mapping

BEHAVIOUR = (
    'a release with a second `[[embed]]` of `modality = "collaborative"`, '
    "of 64 numbers where the settings say so"
)
SEARCHES = "a release of events with queries, as a `table` with the column `query` gives them"
REFUSED: Mapping[str, tuple[str, str]] = {
    "discrec": (
        "DiscRec expects SIDs of 4 codes; got 3. ...",
        "a release of four levels: `[tokenize] levels = [64, 64, 64, 64]`",
    ),
    "domains": (
        "GMC expects items of 2 to 1,000 domains; got 1. ...",
        "a release of several catalogues, or `--set by=category`",
    ),
    "hype": (
        "HyPE expects a table 'item_paths'; got a release without it. ...",
        'a release of `tokenizer = "category-path"` with `flat = true`',
    ),
    "identities": (
        "a format of several IDs expects SIDs of several embeddings, or of users; got one SID for each "
        "item and none for users. ...",
        "a release of `examples/schemes/mscgrec.toml` or `ttds.toml`",
    ),
    "letter": ("has no embedding 'collaborative'; there are: text", BEHAVIOUR),
    "mult-vae": (
        "Mult-VAE expects users held out whole, protocol user-holdout; got leave-one-out. ...",
        'a release of `[split] protocol = "user-holdout"`',
    ),
    "prism": ("has no embedding 'collaborative'; there are: text", BEHAVIOUR),
    "recgpt": (
        "RecGPT expects SIDs of 4 codes; got 3. ...",
        "a release of four levels: `[tokenize] levels = [64, 64, 64, 64]`",
    ),
    "setrec": ("has no embedding 'collaborative'; there are: text", BEHAVIOUR),
    "slates": (
        "FINN.no's slates expects a table 'impressions'; got a release without it. ...",
        "a release of a source with lists as shown; `sidmill sources` has them",
    ),
    "suggestions": (
        "query completion expects events with the query before them; got a release none of whose events "
        "has one. ...",
        SEARCHES,
    ),
    "timeline": (
        "a time line of search and recommendation expects events with the query before them; got a release "
        "none of whose events has one. ...",
        SEARCHES,
    ),
    "uditsr": (
        "UDITSR expects events with the query before them; got a release none of whose events has one. ...",
        SEARCHES,
    ),
}

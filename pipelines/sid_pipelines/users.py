"""Users: SIDs and cluster mixtures of those who have a train event, made of train events alone.

    clean, split, vectors -> user_sids, users/tokenizer/, users/vocabulary.json
    split, collisions     -> user_mixtures

The same quantizers that number items (tokenize.py) number users here: a user is the mean of the vectors of
items in his train events. Codebooks and tokens are the users' own, and users may share a SID. What an event
of another split says of a user is never read, and a user without a train event has no row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.collaborative.events import TrainEvents
from sid_pipelines.stage import Outcome, Stage, Work, count
from sid_pipelines.vectors import StoredVectors
from sid_schemas import DataError
from sid_schemas.tables import USER_MIXTURES, USER_SIDS
from sid_tokenizers import Tokenizer, Vocabulary, load, tokenizer_named
from sid_tokenizers.base import Codes, Vectors
from sid_tokenizers.collisions import slots_of
from sid_tokenizers.metrics import collision_metrics, per_level
from sid_tokenizers.vocabulary import sid_key
from sid_warehouse.arrays import codes_column

FOLDER = "users"
PREFIX = "u"  # of token strings: <ua_12>
FIT_SCOPE = "users with a train event"
BLOCK = 8_192  # users whose items' vectors are held at a time
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class UsersParams:
    """What users depend on. TTDS [D] (its text names user SIDs, not how they are made), kNN-Embed [S].

    vectors: what the role `vectors` holds, and so whose mean a user is: the vectors that items are tokenized
    from ("mean"), or behaviour vectors ("cf", AlphaRec's mean of train items). last: events of a user that
    count, the latest; 0 for all. tokenizer, params: a scheme fitted on vectors alone, and its constructor's
    parameters. sids: write `user_sids`. mixtures: write `user_mixtures`.
    """

    vectors: Literal["mean", "cf"] = "mean"
    last: int = 0
    tokenizer: str = "rq-kmeans"
    params: Mapping[str, Any] = field(default_factory=dict)
    sids: bool = True
    mixtures: bool = False

    def check_params(self) -> None:
        """Raise DataError naming what is out of range, or a scheme that users cannot have."""
        if self.vectors not in ("mean", "cf"):
            raise DataError(f"vectors = {self.vectors!r}, expected 'mean' or 'cf'")
        if self.last < 0:
            raise DataError(f"last = {self.last}, expected 0 or more")
        if not (self.sids or self.mixtures):
            raise DataError("neither sids nor mixtures is asked for; set one, or leave the section out")
        self.made.check_params()

    @property
    def made(self) -> Tokenizer:
        """Give the scheme with its parameters; raises DataError for one that needs more than vectors."""
        scheme = tokenizer_named(self.tokenizer)
        if not issubclass(scheme, Tokenizer) or scheme.traits.inputs != ("vectors",):
            raise DataError(
                f"tokenizer = {self.tokenizer!r}: expected a scheme that gives vectors codes and is fitted "
                f"on nothing else, such as 'rq-kmeans'; this one is on {', '.join(scheme.traits.inputs)}"
            )
        return scheme(**self.params)


def run(work: Work) -> Outcome:
    """Write `user_sids` and `user_mixtures`, as far as they are asked for."""
    params: UsersParams = work.params
    params.check_params()
    clean = work.inputs["clean"].read("users", ["user_index", "user_id"])
    items = work.inputs["collisions"].read("sids", ["sid"])
    events = TrainEvents.of(work.inputs["split"].parts("interactions"), len(clean), len(items))
    if not len(events):
        raise DataError("users: no train event; expected some. Choose another [split] protocol")
    facts: dict[str, Any] = {"users": len(np.unique(events.users)), "without_train_event": 0}
    facts["without_train_event"] = len(clean) - facts["users"]
    said = [count(facts["users"], "user")]
    if params.sids:
        facts |= _write_sids(work, params, clean, events)
        said.append(f"{facts['distinct']:,} SIDs, at most {facts['groups']['max_group']} users share one")
    if params.mixtures:
        clusters = pc.list_element(items["sid"].combine_chunks(), 0).to_numpy()
        facts["mixtures"] = _write_mixtures(work, events, clusters)
        said.append(f"mixtures over {count(facts['mixtures']['clusters'], 'cluster')}")
    return Outcome(facts, ", ".join(said))


# --- SIDs


def _write_sids(work: Work, params: UsersParams, clean: pa.Table, events: TrainEvents) -> dict[str, Any]:
    """Fit on all users, or in an append take the base's codebooks; write SIDs and what they are made by."""
    embedded = work.inputs["vectors"]
    if params.vectors == "cf" and embedded.manifest["stage"] != "embed_collaborative":
        raise DataError(f"users: vectors = 'cf' with {embedded.facts['name']}, which is not of behaviour")
    people, X = user_vectors(last_events(events, params.last), StoredVectors.of(embedded))
    base = work.inputs.get("base")
    tokenizer = load(base.folder / FOLDER / "tokenizer") if base else _fitted(params, X)
    assert isinstance(tokenizer, Tokenizer)
    tokenizer.save(work.out.folder / FOLDER / "tokenizer")
    vocabulary = Vocabulary(tuple(tokenizer.levels), prefix=PREFIX)
    vocabulary.save(work.out.folder / FOLDER / "vocabulary.json")
    codes = tokenizer.encode(X)
    work.out.write(USER_SIDS, user_sids_table(clean.take(people), codes, vocabulary))
    groups = collision_metrics(codes)
    return {
        "vectors": embedded.facts["name"],
        "of": params.vectors,
        "last": params.last,
        "tokenizer": params.tokenizer,
        "params": dict(params.params),
        "seed": tokenizer.seed,
        "fit_scope": "none: the base's codebooks" if base else FIT_SCOPE,
        "events_sha256": events.digest(),
        "distinct": groups["distinct_sids"],
        "groups": groups,
        "levels": per_level(codes, tokenizer.levels),
    }


def _fitted(params: UsersParams, X: Vectors) -> Tokenizer:
    try:
        return params.made.fit(X)
    except DataError as error:
        raise DataError(f"users, whose vectors take the place of items': {error}") from None


def last_events(events: TrainEvents, last: int) -> TrainEvents:
    """Give each user's latest events, as many as `last`; all for 0."""
    if not last:
        return events
    end = np.searchsorted(events.users, events.users, side="right")
    kept = end - np.arange(len(events)) <= last
    return TrainEvents(events.users[kept], events.items[kept], events.n_users, events.n_items)


def user_vectors(events: TrainEvents, vectors: StoredVectors) -> tuple[Rows, Vectors]:
    """Give the users who have an event, (m,), and the mean over each one's events of the items' vectors.

    An item that a user had twice counts twice. Vectors are (m, d) float32, summed in float64.
    """
    people, first = np.unique(events.users, return_index=True)
    edges = np.append(first, len(events))
    X = np.empty((len(people), vectors.dim), dtype=np.float32)
    for start in range(0, len(people), BLOCK):
        stop = min(start + BLOCK, len(people))
        own = slice(edges[start], edges[stop])
        X[start:stop] = _means(events.items[own], edges[start : stop + 1] - edges[start], vectors)
    return people.astype(np.int64), X


def _means(items: npt.NDArray[np.int32], edges: Rows, vectors: StoredVectors) -> npt.NDArray[np.float64]:
    """Give the mean of vectors of items[edges[i]:edges[i + 1]] for every i."""
    from scipy.sparse import csr_matrix

    known, columns = np.unique(items, return_inverse=True)
    events = csr_matrix((np.ones(len(items)), columns, edges), shape=(len(edges) - 1, len(known)))
    means: npt.NDArray[np.float64] = (events @ vectors.rows(known.astype(np.int64))) / np.diff(edges)[:, None]
    return means


def user_sids_table(people: pa.Table, codes: Codes, vocabulary: Vocabulary) -> pa.Table:
    """Give table `user_sids`. people: (user_index, user_id) of each row of codes, by user_index."""
    tokens = [vocabulary.tokens(row) for row in codes.tolist()]
    return pa.table(
        {
            "user_index": people["user_index"],
            "user_id": people["user_id"],
            "sid": codes_column(codes),
            "sid_key": pa.array(map(sid_key, codes.tolist()), pa.string()),
            "slot": pa.array(slots_of(codes)),
            "token_ids": codes_column(vocabulary.token_ids(codes)),
            "tokens": pa.array(tokens, pa.list_(pa.string())),
            "text": pa.array(map("".join, tokens), pa.string()),
        }
    )


# --- mixtures


def _write_mixtures(work: Work, events: TrainEvents, clusters: Rows) -> dict[str, Any]:
    mixtures = user_mixtures(events, clusters)
    work.out.write(USER_MIXTURES, mixtures)
    spread = pc.list_value_length(mixtures["clusters"]).to_numpy()
    return {
        "clusters": len(np.unique(clusters)),
        "clusters_per_user": float(spread.mean()),
        "users_of_one": int((spread == 1).sum()),
    }


def user_mixtures(events: TrainEvents, clusters: Rows) -> pa.Table:
    """Give table `user_mixtures`: kNN-Embed's counts of a user's events by cluster, as shares.

    clusters: (n_items,) the cluster of each item. The most frequent stands first, equal ones by number.
    """
    k = int(clusters.max(initial=0)) + 1
    pairs, counts = np.unique(events.users.astype(np.int64) * k + clusters[events.items], return_counts=True)
    owners, own = np.divmod(pairs, k)
    order = np.lexsort([own, -counts, owners])
    own, counts = own[order], counts[order]  # owners stand as they are
    people, first, place = np.unique(owners, return_index=True, return_inverse=True)
    offsets = pa.array(np.append(first, len(pairs)).astype(np.int32))
    weights = counts / np.bincount(place, weights=counts)[place]
    return pa.table(
        {
            "user_index": pa.array(people.astype(np.int32)),
            "clusters": pa.ListArray.from_arrays(offsets, pa.array(own.astype(np.int32))),
            "weights": pa.ListArray.from_arrays(offsets, pa.array(weights)),
        }
    )


STAGE = Stage("users", revision=3, parents=("clean", "split", "collisions"), run=run)

"""Pieces: cut every SID into rows of one smaller table, by how often train events have seen it.

    sids, interactions -> sid_pieces, pieces/<scheme>/

SIDs stay what they are; a trainer that wants pieces embeds `piece_ids` in the place of single codes. Where
there is a role `base`, its pieces cut all SIDs again, and nothing is fitted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sid_pipelines.catalogue import train_events
from sid_pipelines.stage import Needs, Outcome, Stage, Work
from sid_schemas import DataError
from sid_schemas.tables import SID_PIECES
from sid_tokenizers import Vocabulary
from sid_tokenizers.base import Codes
from sid_tokenizers.pieces import Pieces, load, pieces_named
from sid_warehouse import parquet
from sid_warehouse.arrays import codes_column, padded_matrix


@dataclass(frozen=True)
class PiecesParams:
    """What pieces depends on. table_size: of each scheme, 0 for twice the codes; n: codes of an n-gram.

    schemes: which ways to cut, as `sidmill pieces` lists them. seed: of what is learned or hashed.
    """

    schemes: tuple[str, ...] = ("unigram",)
    table_size: int = 0
    n: int = 2
    seed: int = 0

    def made(self) -> dict[str, Pieces]:
        """Give each scheme by its name, not fitted yet, in order of the names."""
        given = {"table_size": self.table_size, "n": self.n, "seed": self.seed}
        schemes = {}
        for name in sorted(set(self.schemes)):
            scheme = pieces_named(name)
            known = scheme().get_params()
            schemes[name] = scheme(**{key: value for key, value in given.items() if key in known})
        return schemes


def run(work: Work) -> Outcome:
    """Write `sid_pieces` for every scheme, and the fitted schemes."""
    params: PiecesParams = work.params
    resolved = work.inputs["collisions"]
    items = resolved.read("sids", ["item_index", "item_id", "sid"])
    vocabulary = Vocabulary.load(resolved.folder / "vocabulary.json")
    sids = padded_matrix(items["sid"], vocabulary.length, -1)
    events = train_events(work.inputs["split"], len(sids))
    seen = np.bincount(events.items, minlength=len(sids)).astype(np.int64)
    facts, tables, schemes = {}, [], params.made()
    for number, (name, scheme) in enumerate(schemes.items(), start=1):
        if "base" in work.inputs:
            scheme = _published(work, name, vocabulary)
        else:
            scheme.fit(sids, levels=vocabulary.sizes, weight=seen, sequences=events)
            scheme.save(work.out.folder / "pieces" / name)
        pieces = scheme.pieces(sids)
        _check_published(work, name, pieces)
        facts[name] = {"params": scheme.get_params(), **measures(pieces, seen, scheme)}
        tables.append(_table(items, name, pieces))
        work.progress(number, len(schemes))
    work.out.write(SID_PIECES, pa.concat_tables(tables))
    said = "; ".join(f"{name} {one['mean_pieces']:.2f}" for name, one in facts.items())
    return Outcome({"schemes": facts}, f"pieces an SID: {said}")


def _published(work: Work, name: str, vocabulary: Vocabulary) -> Pieces:
    """Take the base's pieces over; raises DataError where SIDs have codes now that these do not know."""
    fitted = Path("pieces") / name
    base = work.inputs["base"]
    (work.out.folder / fitted).mkdir(parents=True)
    for file in sorted((base.folder / fitted).iterdir()):
        parquet.link(file, work.out.folder / fitted / file.name)
    scheme = load(base.folder / fitted)
    if scheme.levels != vocabulary.sizes:
        raise DataError(
            f"pieces: {name} cuts SIDs of levels {list(scheme.levels)}, and new ones need "
            f"{list(vocabulary.sizes)}; nothing was published. Build anew, with a [collisions] policy whose "
            "digits do not grow, such as next-nearest"
        )
    return scheme


def _check_published(work: Work, name: str, pieces: Codes) -> None:
    """Assert that SIDs which the base has published are cut as they were."""
    base = work.inputs.get("base")
    if base is None:
        return
    before = base.read(SID_PIECES.name, ["scheme", "piece_ids"])
    own = before.filter(pc.equal(before["scheme"], name))["piece_ids"]
    assert pa.chunked_array([codes_column(pieces[: len(own)])]).equals(own), f"pieces: {name} moved"


def measures(pieces: Codes, seen: npt.NDArray[np.int64], scheme: Pieces) -> Mapping[str, Any]:
    """Give what pieces are like. seen: train events of each item.

    spearman: of train events and numbers of pieces, below 0 where what is seen often has few; None where all
    items have as many. distinct: SIDs told apart by their pieces.
    """
    from scipy.stats import spearmanr

    counts = (pieces >= 0).sum(axis=1)
    told = len(np.unique(counts)) > 1 and len(np.unique(seen)) > 1
    return {
        "table_size": scheme.size,
        "used": len(np.unique(pieces[pieces >= 0])),
        "mean_pieces": float(counts.mean()),
        "spearman": round(float(spearmanr(seen, counts).statistic), 6) if told else None,
        "distinct": len(np.unique(pieces, axis=0)),
        **scheme.report(),
    }


def _table(items: pa.Table, scheme: str, pieces: Codes) -> pa.Table:
    """Give `sid_pieces` of one scheme; items: (item_index, item_id, ...)."""
    return pa.table(
        {
            "item_index": items["item_index"],
            "item_id": items["item_id"],
            "scheme": pa.array([scheme] * len(pieces), pa.string()),
            "piece_ids": codes_column(pieces),
        }
    )


def _needs(params: PiecesParams) -> Needs:
    for name in params.schemes:
        traits = pieces_named(name).traits
        if traits.package and traits.extra:
            return traits.package, traits.extra
    return None


STAGE = Stage("pieces", revision=3, parents=("collisions", "split"), run=run, needs=_needs)

"""DDRO: documents, their PQ docids past T5's vocabulary, queries, which documents answer, and triples.

A docid is token ids 32,128 + m * 256 + code, as the trainer's own encoder writes them
(generate_encoded_docids.py 68); title docids it makes itself of the documents here, with T5's tokenizer (79
to 125). Its hard negatives are BM25's; ours are drawn among items that neither the user has nor the same
search found [D].
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import Feed, one_line
from sid_pipelines.trainers.reading.queries import Kind, Queries
from sid_pipelines.trainers.writing.folder import Folder
from sid_tokenizers.dialects import shifted_ids
from sid_tokenizers.docid_tokens import T5_TOKENS

READER = "DDRO"
ADDED = 24 * 256  # tokens that the trainer adds to T5, train_ddro_encoder_decoder.py 153
SPLITS = {"train": "train", "valid": "dev", "test": "test"}


class DdroSettings(Settings):
    """query: `search` for what was searched, `history` for titles of what a user had, `auto` for either.

    titles: the newest items of a history whose titles make a query. seed: of the draw of negatives.
    """

    query: Kind = "auto"
    titles: int = 10
    seed: int = 0


def write(feed: Feed, out: Folder, settings: DdroSettings) -> str:
    """Write documents, docids, and for each split queries, answers and triples."""
    feed.require_levels(READER)
    length = feed.require_length(READER)
    if (total := sum(feed.vocabulary.levels)) > ADDED:
        raise feed.refuse(
            READER,
            f"at most {ADDED:,} codes on all levels, 24 of 256",
            f"{total:,}",
            "Choose fewer [tokenize] levels",
        )
    queries = Queries(feed, settings.query, READER, settings.titles)
    out.json_lines("docs.json", "every item as a document, one a line", _documents(feed))
    codes = shifted_ids(feed.sids, feed.vocabulary, first=T5_TOKENS)
    with out.text("encoded_docid/pq_docid.txt", "`[document]`, a tab, its token ids") as file:
        file.writelines(f"[d{item}]\t{','.join(map(str, row))}\n" for item, row in enumerate(codes.tolist()))
    rows = ((_name(item), one_line(one)) for item, one in enumerate(feed.item_ids))
    out.csv("item_ids.tsv", "the source's id of every document", (), rows, delimiter="\t")
    for split, name in SPLITS.items():
        if feed.count(split):
            _write_split(feed, out, queries, split, name, settings.seed)
    return f"""
{queries.says} Documents are called `D0`, `D1`, ... by item number; `docid_path` is
`encoded_docid/pq_docid.txt`, with {length} tokens each: pass `--max_docid_length {length}`.

- Fine-tuning: `generate_train_instances.py --current_data query --data_path docs.json --docid_path
  encoded_docid/pq_docid.txt --query_path train-queries.tsv.gz --qrels_path train-qrels.tsv.gz`.
- Preference pairs: `train_ddro_encoder_decoder.py --train_file train-triples.tsv --dev_file dev-triples.tsv
  --train_queries_file train-queries.tsv.gz --dev_queries_file dev-queries.tsv.gz`. It compares document
  names in upper case (73), so triples have them so.
- Title docids: `generate_encoded_docids.py --encoding url --input_doc_path docs.json`; `url` is empty here,
  so it takes titles. Equal titles then share a docid.
- No pseudo-queries: those come of a model, `generate_pseudo_queries.py`.
- Negatives are drawn at random, not by BM25: never an item that the user has, or that the same search found.
"""


def _documents(feed: Feed) -> Iterator[dict[str, Any]]:
    for row in feed.items(("item_index", "title", "text", "description")):
        title, text = one_line(row["title"] or ""), one_line(row["description"] or row["text"])
        yield {"docid": f"d{row['item_index']}", "url": "", "title": title, "body": text, "sents": [text]}


def _write_split(feed: Feed, out: Folder, queries: Queries, split: str, name: str, seed: int) -> None:
    with out.text(f"{name}-queries.tsv.gz", f"the {split} queries: number, text") as file:
        file.writelines(f"{one.id}\t{one.text}\n" for one in queries.of(split))
    with out.text(f"{name}-qrels.tsv.gz", f"which document answers each {split} query") as file:
        file.writelines(f"{one.id} 0 {_name(one.item)} 1\n" for one in queries.of(split))
    with out.text(
        f"{name}-triples.tsv", f"{split} query, a document that answers, one that does not"
    ) as file:
        file.writelines(
            f"{query}\t{_name(positive)}\t{_name(negative)}\n"
            for query, positive, negative in _triples(feed, queries, split, seed)
        )


def _triples(feed: Feed, queries: Queries, split: str, seed: int) -> Iterator[tuple[str, int, int]]:
    """Yield (query, item, negative item); what the user has, or the same search found, is no negative.

    Queries come in the order of users, so one user's items are held at a time; what searches found is held by
    text. A query that leaves no negative is left out.
    """
    draw = np.random.default_rng([seed, list(SPLITS).index(split)])
    found = _found(queries) if queries.kind == "search" else {}
    users = feed.users()
    user = next(users)
    for one in queries.of(split):
        while user.index != one.user:
            user = next(users)
        taken = found.get(one.text, set()).union(user.items.tolist())
        if len(taken) < feed.n_items:
            negative = int(draw.integers(feed.n_items))
            while negative in taken:
                negative = (negative + 1) % feed.n_items
            yield one.id, one.item, negative


def _found(queries: Queries) -> dict[str, set[int]]:
    """Give all items that answer each text, in any split."""
    found: dict[str, set[int]] = defaultdict(set)
    for split in SPLITS:
        for one in queries.of(split):
            found[one.text].add(one.item)
    return found


def _name(item: int) -> str:
    return f"D{item}"


FORMAT = Format(
    "ddro",
    "DDRO (kidist-amde/ddro at cd5d1f7)",
    "documents, docids past T5's vocabulary, queries and triples",
    write,
    DdroSettings,
    papers=(55,),
)

"""Items as documents: text to docid, and query to docid, as differentiable search indexes are trained.

The lines are those of DSI-QG (and of DSI-transformers, whose reader it took over); the `.source` and
`.target` files beside them those of sequence-to-sequence trainers, as CorpusBrain's. Docids are SIDs, text
docids, or item numbers.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from sid_pipelines.trainers.base import Format, Settings
from sid_pipelines.trainers.feed import SPLITS, Feed, one_line
from sid_pipelines.trainers.writing.folder import Folder

READER = "DSI"
README = """
For DSI-QG: `python3 run.py --task DSI --train_file <this>/train.json --valid_file <this>/valid.json ...`
(`data.py` 8 to 29). A line is `text_id`, the docid as text, and `text`: "Passage: " before an item's text,
"Question: " before a query; `--remove_prompt True` takes both off again.

* `train.json`: every item's text, then the queries of train events: {queries}.
* `valid.json`, `test.json`: the queries of those splits, with the docid of the item that followed. They may
  be empty.
* `msmarco_corpus.tsv`: item number and text, from which `--task generation` makes pseudo-queries by a model
  of yours; the name has to have `msmarco` in it (`data.py` 63). Pseudo-queries come from outside: no
  release holds any.
* `train.source`, `train.target`: the same rows of train without the words before them, line by line, as
  fairseq's preprocessing takes them (GENRE, CorpusBrain; secondary: their reader was not run).
* Docids: {docids}.
"""


class DocumentsSettings(Settings):
    """What names an item, and how much of it is text.

    docid: `sid`, its SID as tokens; `text`, that of table `docids`, as title and text docids give it; or its
    `number`. words: of an item's text that are kept.
    """

    docid: Literal["sid", "text", "number"] = "sid"
    words: int = Field(default=64, ge=1)


def write(feed: Feed, out: Folder, settings: DocumentsSettings) -> str:
    """Write documents and queries."""
    docids = _docids(feed, settings.docid)
    counts = {}
    for split in SPLITS:
        rows = _prompted(feed, docids, split, settings.words)
        counts[split] = out.json_lines(f"{split}.json", f"{split} rows: docid and text", rows)
    says = "number and text of every item"
    with out.text("msmarco_corpus.tsv", says) as file:
        file.writelines(f"{number}\t{text}\n" for number, text in enumerate(_texts(feed, settings.words)))
    for name, place in (("source", 1), ("target", 0)):
        with out.text(
            f"train.{name}", "docids of train rows" if name == "target" else "texts of train rows"
        ) as file:
            file.writelines(f"{row[place]}\n" for row in _rows(feed, docids, "train", settings.words))
    kinds = {
        "sid": "SIDs as tokens",
        "text": "the release's docids",
        "number": "item numbers, the naive string",
    }
    return README.format(queries=f"{counts['train'] - feed.n_items:,}", docids=kinds[settings.docid])


def _docids(feed: Feed, kind: str) -> list[str]:
    if kind == "number":
        return [str(number) for number in range(feed.n_items)]
    if kind == "text":
        instead = "Choose a tokenizer that gives text, such as title, or set docid=sid"
        feed.require_table(READER, "docids", instead)
        return [one_line(row["docid"]) for row in feed.rows("docids", ["docid"])]
    feed.require_unique(READER)
    return list(feed.release.table("sids", ["text"])["text"].to_pylist())


def _texts(feed: Feed, words: int) -> Iterator[str]:
    """Yield the text of every item on one line; its title where nothing was embedded, its id without one."""
    for row in feed.items(["text", "title", "item_id"]):
        text = one_line(row["text"] or row["title"] or "") or one_line(row["item_id"])
        yield " ".join(text.split(" ")[:words])


def _rows(feed: Feed, docids: list[str], split: str, words: int) -> Iterator[tuple[str, str, str]]:
    """Yield (docid, text, what it is): items with train, then queries of the split."""
    if split == "train":
        yield from ((one, text, "Passage") for one, text in zip(docids, _texts(feed, words), strict=True))
    for batch in feed.tables("interactions", ["item_index", "query", "split"]):
        found = batch.filter(batch["query"].is_valid())
        columns = (found[name].to_pylist() for name in ("item_index", "query", "split"))
        for item, query, label in zip(*columns, strict=True):
            if label == split and one_line(query):
                yield docids[item], one_line(query), "Question"


def _prompted(feed: Feed, docids: list[str], split: str, words: int) -> Iterator[dict[str, str]]:
    for docid, text, what in _rows(feed, docids, split, words):
        yield {"text_id": docid, "text": f"{what}: {text}"}


FORMAT = Format(
    "documents",
    "DSI-QG (ArvinZhuang/DSI-QG, 389c8b8) and sequence-to-sequence trainers such as CorpusBrain's",
    "items' texts and queries with the docid that they lead to",
    write,
    DocumentsSettings,
    papers=(18, 21, 36, 48),
)

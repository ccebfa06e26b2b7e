"""TIGER from a release: a small T5 reads a user's history as semantic IDs and writes the SID that comes next.

python examples/train_tiger.py [--warehouse W] [--release REF] [--epochs N] [--seed N]
                               [--ids released|shuffled] [--baselines]

The release has the samples of each split, the token ids of every item, the tree of SIDs that beam search may
not leave, and the way back to items. What is left to a trainer is a model, a loop, and a fair comparison:
`--baselines` asks what is simpler (baselines.py), and `--ids shuffled` deals the same SIDs to other items, so
that only what they say about their items is gone.

After Rajput et al. 2023 (Recommender Systems with Generative Retrieval), without its user tokens and with a
fiftieth of its weights, for MovieTweetings has 20,396 train samples. All was chosen on `valid`; a run asks
`test` once. It takes one core, so that a seed gives the same numbers again.
"""

import argparse
import copy
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from baselines import Items, Score, baselines, measure, questions, table

import sidmill
from sid_schemas import DataError, MissingExtraError, SidmillError

try:
    import torch
    from torch.utils.data import DataLoader
    from transformers import T5Config, T5ForConditionalGeneration, get_cosine_schedule_with_warmup

    from sid_warehouse.loading.collator import Collator
except ImportError:
    sys.exit(str(MissingExtraError("Training a T5", "transformers")))

Batch = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What was chosen on valid. history: the newest items that are read; beams: SIDs that are searched."""

    epochs: int = 12
    seed: int = 0
    history: int = 10
    width: int = 64
    layers: int = 2
    dropout: float = 0.1
    learning_rate: float = 2e-3
    batch_size: int = 128
    beams: int = 50
    check_every: int = 3  # epochs


class Data:
    """A release as batches for a T5, and the way back from what it writes.

    shuffled: deal the SIDs to other items, by the seed. The release is then read at level "item", where a
    token is item_index + 1 and 0 is padding, and `dealt` has the token ids that stand for each of them.
    """

    def __init__(self, release: sidmill.Release, settings: Settings, *, shuffled: bool = False) -> None:
        """Open the train split and what beam search needs; raises DataError where SIDs differ in length."""
        self.release, self.vocabulary, self.settings = release, release.vocabulary, settings
        sids = release.table("sids", ["token_ids"])["token_ids"].to_pylist()
        if {len(sid) for sid in sids} != {self.vocabulary.length}:
            raise DataError(f"{release.ref}: SIDs differ in length; this example has no end token for them")
        order = np.arange(len(sids))  # whose SID each item has
        if shuffled:
            np.random.default_rng(settings.seed).shuffle(order)
        padding = [[self.vocabulary.pad] * self.vocabulary.length]
        self.dealt = torch.tensor(padding + [sids[other] for other in order]) if shuffled else None
        self.owner = np.append(np.argsort(order), -1)  # who has an item's SID; -1, no item, stays -1
        self.processor = release.logits_processor()  # gives -inf to every token that leads to no SID
        self.join = Collator("encoder-decoder", pad=self.vocabulary.pad)
        self.train = self.open("train", batch_size=settings.batch_size, shuffle=True, seed=settings.seed)

    def open(self, split: str, **stream: Any) -> Any:
        """Open a split as an iterable dataset of batches."""
        level = "sid" if self.dealt is None else "item"
        history = self.settings.history
        return self.release.sequences(split, max_history=history, level=level, iterable=True, **stream)

    def collate(self, batch: Batch) -> Batch:
        """Give input_ids, attention_mask and labels, no longer than the batch's longest history."""
        if self.dealt is not None:
            batch = batch | {name: self.dealt[batch[name]].flatten(1) for name in ("history", "target")}
        return self.join(batch)

    def epoch(self, number: int) -> DataLoader[Batch]:
        """Give the train samples, in an order that seed and epoch decide."""
        self.train.set_epoch(number)
        return DataLoader(self.train, batch_size=None, collate_fn=self.collate)

    def asked(self, split: str) -> DataLoader[Batch]:
        """Give the samples of `valid` or `test`, one for each user, in their order."""
        return DataLoader(self.open(split, batch_size=64), batch_size=None, collate_fn=self.collate)

    def items(self, written: torch.Tensor) -> Items:
        """Turn what `generate` gave, (n * beams, tokens), into items: (n, beams), best first, -1 for none."""
        codes = self.processor.codes(written)
        beams = codes.reshape(-1, self.settings.beams, codes.shape[1])
        return self.owner[self.release.sid_items().ranked(beams, top=self.settings.beams)]


def network(data: Data) -> T5ForConditionalGeneration:
    """Make a T5 whose words are the tokens of the SIDs, with random weights."""
    settings, vocabulary = data.settings, data.vocabulary
    config = T5Config(
        vocab_size=len(vocabulary),
        d_model=settings.width,
        d_kv=settings.width // 4,
        num_heads=4,
        d_ff=4 * settings.width,
        num_layers=settings.layers,
        dropout_rate=settings.dropout,
        pad_token_id=vocabulary.pad,
        decoder_start_token_id=vocabulary.bos,
        eos_token_id=None,  # SIDs of one length need no end
    )
    return T5ForConditionalGeneration(config)


@torch.no_grad()
def answers(model: T5ForConditionalGeneration, data: Data, split: str) -> Iterator[Items]:
    """Yield for each user of a split the items that beam search finds, best first."""
    model.eval()
    beams = data.settings.beams
    for batch in data.asked(split):
        written = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=data.vocabulary.length,
            num_beams=beams,
            num_return_sequences=beams,
            do_sample=False,
            logits_processor=[data.processor],
        )
        yield from data.items(written)


def train(data: Data) -> T5ForConditionalGeneration:
    """Train, and give the weights of the epoch whose NDCG@10 on valid was best."""
    settings = data.settings
    torch.manual_seed(settings.seed)
    model = network(data)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.05)
    steps = settings.epochs * len(data.train)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    valid, best, kept = questions(data.release, "valid"), -1.0, model.state_dict()
    for epoch in range(settings.epochs):
        model.train()
        losses = []
        for batch in data.epoch(epoch):
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
            loss = model(**inputs).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        told = f"epoch {epoch + 1}: loss {np.mean(losses):.3f}"
        if (epoch + 1) % settings.check_every == 0 or epoch + 1 == settings.epochs:
            score = measure(answers(model, data, "valid"), valid)
            told += f", valid Recall@10 {score.recall:.4f}, NDCG@10 {score.ndcg:.4f}"
            if score.ndcg > best:
                best, kept = score.ndcg, copy.deepcopy(model.state_dict())
        print(told, flush=True)
    model.load_state_dict(kept)
    return model


def run(release: sidmill.Release, settings: Settings, *, shuffled: bool = False) -> Score:
    """Train on a release and measure on test."""
    data = Data(release, settings, shuffled=shuffled)
    model = train(data)
    return measure(answers(model, data, "test"), questions(release, "test"))


def main(arguments: list[str] | None = None) -> None:
    """Read the command line, and print the table."""
    parser = argparse.ArgumentParser(description="Train a small TIGER on a release, and measure it.")
    parser.add_argument("--warehouse", default=os.environ.get("SIDMILL_WAREHOUSE", "warehouse/data"))
    parser.add_argument("--release", default="movietweetings")
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--seed", type=int, default=Settings.seed)
    parser.add_argument("--ids", choices=("released", "shuffled"), default="released")
    parser.add_argument(
        "--baselines", action="store_true", help="measure popularity, item-kNN and SASRec too"
    )
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = Settings(epochs=given.epochs, seed=given.seed)
    try:
        release = sidmill.open(given.warehouse).release(given.release)
        began = time.process_time()
        rows = {f"TIGER, {given.ids} SIDs": run(release, settings, shuffled=given.ids == "shuffled")}
        minutes = (time.process_time() - began) / 60
        if given.baselines:
            rows = baselines(release, seed=given.seed) | rows
    except SidmillError as error:
        sys.exit(f"Error: {error}")
    print(
        f"\n{release.ref}, test, seed {given.seed}; TIGER: {given.epochs} epochs, {minutes:.1f} CPU minutes"
    )
    print(table(rows))


if __name__ == "__main__":
    main()

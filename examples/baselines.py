"""What a trainer's numbers stand beside: popularity, item-kNN, a small SASRec; and how all are measured.

Each is trained on train events alone and asked for every user's next item: on `valid` while it is chosen, on
`test` once. It answers with items, best first. What the user has already is left out (in MovieTweetings no
target is among it), the rest is cut at 10, and Recall@10 and NDCG@10 ask whether and where the one target
stands there. Equal scores go by item number, so nobody gains by scoring all items alike. The questions, the
count and the baselines without torch are those of `sidmill evaluate`; SASRec stands here.
"""

import copy

import sidmill
from sid_pipelines.evaluation.baselines import TUNED, item_knn, popularity
from sid_pipelines.evaluation.questions import Items, Questions, exam
from sid_pipelines.evaluation.ranking import Score, Scorer, Scores, measure, rank

__all__ = ["Items", "Questions", "Score", "baselines", "measure", "questions", "sasrec", "table"]


def questions(release: sidmill.Release, split: str) -> Questions:
    """Give the questions of `valid` or `test`; histories are whole: all events before the target."""
    return exam(release, split).asked


def sasrec(
    valid: Questions,
    *,
    seed: int = 0,
    dim: int = 64,
    length: int = 50,
    dropout: float = 0.2,
    rate: float = 3e-3,
    epochs: int = 30,
    patience: int = 5,
) -> Scorer:
    """Train a SASRec: a causal transformer over item embeddings, softmax over all items at every event.

    valid: its histories are what is trained on; its targets tell which epoch is kept, and training ends
    `patience` epochs after it. rate: of learning.
    """
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy
    from torch.nn.utils.rnn import pad_sequence

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items = nn.Embedding(valid.n_items + 1, dim, padding_idx=valid.n_items)
            self.places = nn.Embedding(length, dim)
            layer = nn.TransformerEncoderLayer(
                dim, nhead=1, dim_feedforward=2 * dim, dropout=dropout, batch_first=True, norm_first=True
            )
            self.blocks = nn.TransformerEncoder(layer, 2, nn.LayerNorm(dim), enable_nested_tensor=False)
            self.drop = nn.Dropout(dropout)
            for weights in (self.items.weight, self.places.weight):
                nn.init.normal_(weights, std=dim**-0.5)

        def forward(self, items: torch.Tensor) -> torch.Tensor:
            states = self.drop(self.items(items) + self.places.weight[: items.shape[1]])
            mask = nn.Transformer.generate_square_subsequent_mask(items.shape[1])
            return self.blocks(states, mask=mask, is_causal=True)

        def scores(self, states: torch.Tensor) -> torch.Tensor:
            return states @ self.items.weight[:-1].T

    torch.manual_seed(seed)
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.01)

    def padded(histories: list[Items], width: int) -> torch.Tensor:  # on the right, where nobody looks
        rows = [torch.from_numpy(items[-width:]) for items in histories]
        return pad_sequence(rows, batch_first=True, padding_value=valid.n_items)

    @torch.no_grad()
    def scorer(histories: list[Items]) -> Scores:
        network.eval()
        scores = []
        for start in range(0, len(histories), 256):
            rows = padded(histories[start : start + 256], length)
            last = (rows < valid.n_items).sum(1) - 1
            scores.append(network.scores(network(rows)[torch.arange(len(rows)), last]))
        return torch.cat(scores).double().numpy()

    rows = padded(valid.histories, length + 1)
    best, best_epoch, kept = -1.0, 0, network.state_dict()
    for epoch in range(epochs):
        network.train()
        for batch in torch.split(rows[torch.randperm(len(rows))], 64):
            batch = batch[:, : int((batch < valid.n_items).sum(1).max())]
            there = batch[:, 1:] < valid.n_items
            loss = cross_entropy(network.scores(network(batch[:, :-1])[there]), batch[:, 1:][there])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ndcg = measure(rank(scorer, valid), valid).ndcg
        if ndcg > best:
            best, best_epoch, kept = ndcg, epoch, copy.deepcopy(network.state_dict())
        if epoch - best_epoch >= patience:
            break
    network.load_state_dict(kept)
    return scorer


def baselines(release: sidmill.Release, *, seed: int = 0) -> dict[str, Score]:
    """Train all on a release, and measure them on test."""
    valid, test = questions(release, "valid"), questions(release, "test")
    train, n = exam(release, "valid").train, valid.n_items
    scorers = {
        "popularity": popularity(train, n),
        "item-kNN": item_knn(train, n),
        "item-kNN, tuned on valid": item_knn(train, n, **TUNED),
        "SASRec": sasrec(valid, seed=seed),
    }
    return {name: measure(rank(scorer, test), test) for name, scorer in scorers.items()}


def table(rows: dict[str, Score]) -> str:
    """Lay scores out as text."""
    lines = [f"{'':26} Recall@10  NDCG@10"]
    return "\n".join(lines + [f"{name:26} {one.recall:9.4f} {one.ndcg:8.4f}" for name, one in rows.items()])

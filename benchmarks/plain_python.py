"""The references of prepare.py, in plain Python: what research repositories ship, and the least it takes.

python benchmarks/plain_python.py research|lean FILE [FOLDER]     prints the counts as JSON

research  the shape of those scripts (MiniOneRec's, LC-Rec's): every review is kept as a dictionary with its
          text, the 5-core loops over all of them until nothing is marked, then users are sorted and every
          prefix is written out as a line with a history of at most 50 items.
lean      one pass that keeps only user, item and time in dictionaries, and writes one line per user.
"""

import gzip
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

Review = dict[str, Any]
HISTORY = 50


def research(path: Path, folder: Path, k: int = 5) -> dict[str, int]:
    reviews: list[Review] = []
    broken = 0
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            try:
                reviews.append(json.loads(line))
            except ValueError:
                broken += 1
    reviews.sort(key=lambda review: review["unixReviewTime"])
    seen: set[tuple[str, str]] = set()
    first = []
    for review in reviews:
        pair = (review["reviewerID"], review["asin"])
        if pair not in seen:
            seen.add(pair)
            first.append(review)
    reviews = _k_core_of_reviews(first, k)
    histories: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for review in reviews:
        histories[review["reviewerID"]].append((review["asin"], int(review["unixReviewTime"])))
    users = {user: number for number, user in enumerate(histories)}
    items: dict[str, int] = {}
    for history in histories.values():
        for item, _ in history:
            items.setdefault(item, len(items))
    splits: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for user, history in histories.items():
        history.sort(key=lambda event: event[1])
        numbers = [items[item] for item, _ in history]
        for end in range(1, len(numbers)):
            split = {len(numbers) - 1: "test", len(numbers) - 2: "valid"}.get(end, "train")
            before = " ".join(map(str, numbers[max(0, end - HISTORY) : end]))
            splits[split].append(f"{users[user]}\t{before}\t{numbers[end]}\n")
    for name, lines in splits.items():
        (folder / f"{name}.inter").write_text("user_id\titem_id_list\titem_id\n" + "".join(lines))
    return {"users": len(users), "items": len(items), "interactions": len(reviews), "broken": broken}


def _k_core_of_reviews(reviews: list[Review], k: int) -> list[Review]:
    removed_users: set[str] = set()
    removed_items: set[str] = set()
    while True:
        user_count: dict[str, int] = {}
        item_count: dict[str, int] = {}
        kept = []
        for review in reviews:
            if review["reviewerID"] in removed_users or review["asin"] in removed_items:
                continue
            user_count[review["reviewerID"]] = user_count.get(review["reviewerID"], 0) + 1
            item_count[review["asin"]] = item_count.get(review["asin"], 0) + 1
            kept.append(review)
        few_users = {user for user, number in user_count.items() if number < k}
        few_items = {item for item, number in item_count.items() if number < k}
        reviews = kept
        if not few_users and not few_items:
            return reviews
        removed_users |= few_users
        removed_items |= few_items


def lean(path: Path, folder: Path, k: int = 5) -> dict[str, int]:
    first: dict[tuple[str, str], int] = {}
    broken = 0
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            try:
                review = json.loads(line)
                pair, time = (review["reviewerID"], review["asin"]), int(review["unixReviewTime"])
            except (ValueError, KeyError):
                broken += 1
                continue
            first[pair] = min(time, first.get(pair, time))
    events: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for (user, item), time in first.items():
        events[user].append((time, item))
    before = -1
    while before != (before := sum(map(len, events.values()))):
        count: dict[str, int] = defaultdict(int)
        for history in events.values():
            for _, item in history:
                count[item] += 1
        kept = {
            user: [event for event in history if count[event[1]] >= k] for user, history in events.items()
        }
        events = defaultdict(list, {user: history for user, history in kept.items() if len(history) >= k})
    items: dict[str, int] = {}
    with (folder / "sequences.txt").open("w") as file:
        for number, history in enumerate(events.values()):
            numbers = [items.setdefault(item, len(items)) for _, item in sorted(history)]
            file.write(f"{number} {' '.join(map(str, numbers))}\n")
    return {"users": len(events), "items": len(items), "interactions": before, "broken": broken}


if __name__ == "__main__":
    made = {"research": research, "lean": lean}[sys.argv[1]]
    print(json.dumps(made(Path(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) > 3 else "."))))

"""Others at work beside a publisher: publishers of the same and of other releases, and readers."""

import os
import time
from contextlib import suppress

import duckdb
from atomic_world import DATASET, World, answers_of, broken, hashed, leftovers
from trials import Fork, Result, summary, told

from sid_warehouse import catalog, releases

PAUSE = 0.2  # seconds between a reader's rounds, that publishers come to their turn


def race(world: World, *, rounds: int, same: bool, publishers: int = 2) -> Result:
    """Publish from several processes at once, the same or different releases."""
    tried = []
    for number in range(rounds):
        gate, opener = os.pipe()

        def work(name: str, gate: int = gate) -> int:
            os.read(gate, 1)
            return int(world.publish(name)["version"])

        names = ["same" if same else f"{number} of {n}" for n in range(publishers)]
        forks = [Fork(lambda name=name: work(name)) for name in names]  # type: ignore[misc]
        os.write(opener, b"." * publishers)
        results = [fork.wait() for fork in forks]
        os.close(gate)
        os.close(opener)
        expected = [1, 2] if same else list(range(1, publishers + 2))

        def after(expected: list[int] = expected) -> list[str]:
            problems = broken(world, expected)
            folders = [world.parent / f"v{version}" for version in expected]
            if len({releases.read(folder)["fingerprint"] for folder in folders}) != len(folders):
                problems.append("a release was published twice")
            if not catalog.is_current(world.warehouse):
                problems.append("the catalog is not current")
            return problems + [f"{path} is left" for path in leftovers(world.warehouse)]

        problems = Fork(after).wait()[1]
        problems = problems if isinstance(problems, list) else [str(problems)]
        given = sorted(result for _, result in results if isinstance(result, int))
        if given != ([2] * publishers if same else expected[1:]):
            problems.append(f"the publishers gave {results}")
        tried.append(
            {"at": f"round {number}", "ended": "done", "seen": "new", "refused": None, "problems": problems}
        )
        world.restore()
    return summary(tried)


def readers(world: World, *, publishes: int) -> Result:
    """Read v1's files and a catalog that was opened before, again and again, while others publish."""
    stop, stopper = os.pipe()
    os.set_blocking(stop, False)

    def read() -> Result:
        folder, rounds, problems = world.parent / "v1", 0, set()
        path = str(world.warehouse / catalog.NAME)
        with duckdb.connect(path, read_only=True) as held:
            before = answers_of(held)
            while True:
                rounds += 1
                time.sleep(PAUSE)
                if hashed(folder) != world.expected["v1"]:
                    problems.add("v1 changed")
                if answers_of(held) != before:
                    problems.add("the catalog that was open changed")
                with suppress(BlockingIOError):
                    if os.read(stop, 1) == b".":
                        return {"rounds": rounds, "problems": sorted(problems)}

    def reopen() -> Result:
        """Open the catalog anew each time: it always answers, and never with an older release."""
        latest, rounds, problems = 0, 0, set()
        while True:
            rounds += 1
            time.sleep(PAUSE)
            with duckdb.connect(str(world.warehouse / catalog.NAME), read_only=True) as connection:
                query = f"select max(version), count(*), (select count(*) from {DATASET}.sids) from releases"
                [(version, count, items)] = connection.execute(query).fetchall()
            if version < latest or count != version or items != 9:
                problems.add(
                    f"after v{latest} the catalog showed v{version}, {count} releases, {items} items"
                )
            latest = version
            with suppress(BlockingIOError):
                if os.read(stop, 1) == b".":
                    return {"rounds": rounds, "problems": sorted(problems)}

    forks = [Fork(read), Fork(reopen)]
    published = [
        Fork(lambda n=n: world.publish(f"number {n}")["version"]).wait()[1]  # type: ignore[misc]
        for n in range(publishes)
    ]
    os.write(stopper, b"..")
    found = [fork.wait()[1] for fork in forks]
    problems = [told(one, "crashed") or "; ".join(one["problems"]) for one in found]
    problems += [] if published == list(range(2, publishes + 2)) else [f"published {published}"]
    problems += broken(world, list(range(1, publishes + 2)))
    world.restore()
    rounds = [one.get("rounds", 0) for one in found]
    return {"rounds": rounds, "problems": [problem for problem in problems if problem]}

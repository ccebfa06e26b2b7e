"""A publisher in a process of its own, disturbed; and what is looked at when it has ended."""

import json
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from atomic_world import World, leftovers, look, recover

from sid_schemas import SidmillError

Result = dict[str, Any]


class Fork:
    """Work in a forked process. Its result is {"refused": message} for an error that is the user's to mend,
    {"crashed": traceback} for any other, and None where it was killed.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self.reader, writer = os.pipe()
        self.child = os.fork()
        if self.child:
            os.close(writer)
            return
        signal.alarm(300)  # rather ended by it than waited for without end
        try:
            result = work()
        except SidmillError as error:
            result = {"refused": str(error)}
        except BaseException:
            result = {"crashed": traceback.format_exc()}
        pending = json.dumps(result).encode()
        while pending:
            pending = pending[os.write(writer, pending) :]
        os._exit(0)

    def kill(self) -> None:
        os.kill(self.child, signal.SIGKILL)

    def wait(self) -> tuple[int, Any]:
        """Give how it ended, 0 or minus a signal, and its result."""
        with os.fdopen(self.reader) as pipe:
            said = pipe.read()
        ended = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        with suppress(ValueError):  # killed while it said it
            return ended, json.loads(said)
        return ended, None


def told(result: Any, what: str) -> str | None:
    return result.get(what) if isinstance(result, dict) else None


def trial(
    world: World,
    work: Callable[[], Any],
    *,
    delay: float | None = None,
    recovering: bool = True,
    tidy: bool = False,
    unreadable: bool = False,
) -> Result:
    """Publish in a process that `work` disturbs, look; publish again, look again, and put v1 back.

    delay: seconds after which it is killed. recovering: False leaves what it left to the next trial, as long
    as readers see the old release. tidy: a publisher that lives on must have removed what it had begun.
    unreadable: see `look`.
    """
    publisher = Fork(work)
    if delay is not None:
        time.sleep(delay)
        publisher.kill()
    ended, said = publisher.wait()

    def after() -> Result:
        seen, problems = look(world, unreadable=unreadable)
        if tidy and ended == 0:
            problems += [f"{path} is not removed" for path in leftovers(world.warehouse)]
        again = recovering or seen == "new" or bool(problems)
        return {"seen": seen, "problems": problems, "then": recover(world) if again else None}

    found = Fork(after).wait()[1]
    then, refused = found.get("then"), told(said, "refused")
    problems = [*found.get("problems", ()), *(f"after the next run: {one}" for one in then or ())]
    problems += [crash for crash in (told(said, "crashed"), told(found, "crashed")) if crash]
    if "refused" in found:
        problems.append(f"the next run was refused: {found['refused']}")
    if refused and "\n" in refused:
        problems.append("the refusal has several lines")
    if ended not in (0, -signal.SIGKILL):
        problems.append(f"ended by {ended}")
    if then is not None or problems:
        world.restore()
    how = "killed" if ended else "refused" if refused else "finished"
    return {"ended": how, "seen": found.get("seen"), "refused": refused, "problems": problems}


def summary(tried: list[Result], *, expected: str | None = None, **more: Any) -> Result:
    """Count how trials ended and what was seen; expected: how all must have ended."""
    for one in tried:
        if expected and one["ended"] != expected:
            one["problems"].append(f"expected it {expected}, got {one['ended']}")
    failures = [{"at": one["at"], "problems": one["problems"]} for one in tried if one["problems"]]
    return {
        **more,
        "tried": len(tried),
        "survived": len(tried) - len(failures),
        "outcomes": dict(Counter(f"{one['ended']}, {one['seen']} release seen" for one in tried)),
        "refusals": sorted({one["refused"] for one in tried if one["refused"]}),
        "failures": failures,
    }

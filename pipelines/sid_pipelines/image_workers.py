"""Images decoded by other processes, which a file may kill or hang: it then costs that image alone.

    parent                                        worker (python -m sid_pipelines.image_workers)
    one line per image: {"slot", "path"}  ->      reads, decodes, puts the pixels into the slot
    takes the pixels out of the slot      <-      one line: {"key", "status", "reason"}

A worker is a plain Python process without torch that shares one mapped file with its parent: a few slots,
so that it works ahead while the parent computes, and memory does not grow with the number of images. The
kernel's alarm clock ends a worker that is too long at one image. Unlike multiprocessing this starts from
anywhere: threads, daemons, scripts without a main guard.
"""

import contextlib
import importlib.util
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from sid_pipelines.image_decoding import Frame, Limits, Pixels, UnreadableError, content_key, decode
from sid_schemas import MissingExtraError, WarehouseError

MODULE = "sid_pipelines.image_workers"
AHEAD = 32  # images that a worker may be ahead, at most,
BUDGET = 64 << 20  # and bytes of all slots together
SHARE = 64  # images that are worth another worker
MOST = 16  # workers
HEADROOM = 1 << 30  # bytes of address space that a worker may have beside an image's pixels
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads' buffers count as memory
PER_PIXEL = 24  # bytes: the decoded image and two copies, 16-bit ones widened


@dataclass(frozen=True)
class Decoded:
    """One file: the key of the bytes that were read, and its pixels or why there are none."""

    key: bytes
    pixels: Pixels | None
    status: str = "ok"
    reason: str = ""


def decoded(
    paths: Sequence[Path], frame: Frame, limits: Limits, workers: int | None = None
) -> Generator[Decoded, None, None]:
    """Decode files in other processes, in the order given.

    workers: 1 per core by default, fewer for few images. What is yielded depends on the files alone; but an
    image that takes longer than `limits.seconds` on a busy machine may not do so on another. Close it where
    it is not read to its end: until then the processes stay. Raises WarehouseError where the folder for
    temporary files is full.
    """
    from sid_tokenizers.blocks import cores  # not for a worker, which starts faster without it

    number = min(workers or cores(), -(-len(paths) // SHARE), MOST)
    if not number:
        return
    if importlib.util.find_spec("PIL") is None:
        raise MissingExtraError("Reading images (Pillow)", "image")
    size = frame.height * frame.width * 3
    slots = max(1, min(AHEAD, BUDGET // (number * size)))
    crew: list[_Worker] = []
    try:
        for first in range(number):
            crew.append(_Worker(paths[first::number], frame, limits, slots))
        for place in range(len(paths)):
            yield crew[place % number].next()
    finally:
        for worker in crew:
            worker.stop()
            worker.file.close()


class _Worker:
    """A process that decodes some files, one after the other, and is started again when it dies."""

    def __init__(self, paths: Sequence[Path], frame: Frame, limits: Limits, slots: int) -> None:
        self.paths, self.frame, self.limits, self.slots = paths, frame, limits, slots
        self.file = _file(slots * frame.height * frame.width * 3)
        self.pixels = _mapped(self.file.fileno(), frame, slots)
        self.done = self.sent = 0
        self._start()

    def next(self) -> Decoded:
        """Give the next file's outcome, and send the worker one more."""
        answer = self._answer()
        place, self.done = self.done, self.done + 1
        if answer is None:
            status, reason = self._died()
            if self.done < len(self.paths):
                self._start()
            return Decoded(b"", None, status, reason)
        there = answer["status"] == "ok"
        pixels = self.pixels[place % self.slots].copy() if there else None
        self._send()
        return Decoded(bytes.fromhex(answer["key"]), pixels, answer["status"], answer["reason"])

    def stop(self) -> int:
        """End the process, whatever it is doing, and give its exit code."""
        self.process.kill()  # of no effect where it is dead
        code = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):  # what was not sent to it yet
                pipe.close()
        return code

    def _start(self) -> None:
        """Start a process on the first file that has no outcome yet.

        -P keeps out the modules of the current folder, which may be anyone's.
        """
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(self.file.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[self.file.fileno()],
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        self.ready = False
        self._write({"frame": asdict(self.frame), "limits": asdict(self.limits), "slots": self.slots})
        self.sent = self.done
        self._send()

    def _send(self) -> None:
        while self.sent < min(self.done + self.slots, len(self.paths)):
            self._write({"slot": self.sent % self.slots, "path": os.fspath(self.paths[self.sent])})
            self.sent += 1

    def _write(self, message: Any) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died; the next answer will say so
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def _answer(self) -> Any:
        """Give the next line, or None where the process has died."""
        if not self.ready and self._line() != "ready":
            raise RuntimeError(
                f"a process that decodes images did not start ({_ended(self.stop())}); expected "
                f"`{sys.executable} -m {MODULE}` to run here. Check limits on memory and processes"
            )
        self.ready = True
        return self._line()

    def _line(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def _died(self) -> tuple[str, str]:
        """Say how a process ended that gives no more answers."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)  # its pipe closes a moment before it is gone
        code = self.stop()
        if code == -signal.SIGALRM:
            return "hung", f"it took longer than {self.limits.seconds:g} seconds"
        return "crashed", f"the process that decoded it died ({_ended(code)})"


def _ended(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _file(size: int) -> IO[bytes]:
    """Give a file whose bytes are really there: to write into a hole of a full disk would end a process."""
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 (closed when all is done)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:  # macOS
            file.truncate(size)
    except OSError as error:
        raise WarehouseError(
            f"{tempfile.gettempdir()}: no room for {size:,} bytes of pixels ({error.strerror}). "
            "Make room there, or set TMPDIR to another folder"
        ) from error
    return file


def _mapped(descriptor: int, frame: Frame, slots: int) -> Pixels:
    shape = (slots, frame.height, frame.width, 3)
    return np.frombuffer(mmap.mmap(descriptor, 0), np.uint8).reshape(shape)


def _main() -> None:
    """Do a worker's work until its parent closes the pipe."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a parent that ignores it hands that on
    task = json.loads(sys.stdin.buffer.readline())
    frame, limits = Frame(**task["frame"]), Limits(**task["limits"])
    slots = _mapped(int(sys.argv[1]), frame, task["slots"])
    most = HEADROOM + PER_PIXEL * limits.pixels + 4 * limits.bytes
    with contextlib.suppress(ValueError, OSError):  # where the system has such a limit
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))

    def answer(message: Any) -> None:
        answers.write(json.dumps(message).encode() + b"\n")
        answers.flush()

    answer("ready")
    for line in sys.stdin.buffer:
        task = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, limits.seconds)
        key, status, reason = b"", "ok", ""
        try:
            content = _read(Path(task["path"]), limits)
            key = content_key(content)
            slots[task["slot"]] = decode(content, frame, limits)
        except UnreadableError as error:
            status, reason = error.status, error.reason
        signal.setitimer(signal.ITIMER_REAL, 0)
        answer({"key": key.hex(), "status": status, "reason": reason})


def _read(path: Path, limits: Limits) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limits.bytes + 1)
    except OSError as error:
        raise UnreadableError("missing_file", f"{error.strerror}") from error


if __name__ == "__main__":
    _main()

"""A worker of a stream: a process of its own that holds one network, and answers line by line."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from hierarch import errors
from hierarch.bench.memory import environment
from hierarch.errors import BenchError


@dataclass(frozen=True)
class Worker:
    """A process of `hierarch.bench.stream_worker`. Every message, and every answer, is a line of
    JSON."""

    name: str
    """Of the contender, for errors."""
    process: subprocess.Popen[str]
    log: IO[bytes]

    def ask(self, message: object) -> Any:
        """The answer. Raises the error that the process answers with, or `BenchError` if it ends
        without an answer."""
        assert self.process.stdin
        assert self.process.stdout
        with suppress(BrokenPipeError):  # it has ended, so there is no answer either
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise BenchError(self._last_words())
        answer = json.loads(line)
        if isinstance(answer, Mapping) and "error" in answer:
            raise getattr(errors, answer["error"])(answer["message"])
        return answer

    def _last_words(self) -> str:
        status = self.process.wait()
        self.log.seek(0)
        message = self.log.read().decode(errors="replace").strip().splitlines() or ["no message"]
        return f"{self.name}: its process ended with status {status}: {message[-1][:200]}"


@contextmanager
def worker(name: str, threads: int) -> Iterator[Worker]:
    """A new process, which ends with the context. torch has so many threads in it from the start:
    where they are set later, its own attention is slower."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "hierarch.bench.stream_worker"],
            env=environment() | {"OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            encoding="utf-8",
        )
        try:
            yield Worker(name, process, log)
        finally:
            process.kill()
            with suppress(BrokenPipeError):  # of what was not written yet
                process.communicate()

"""Occurrences of words in a book; a regular expression in a process of its own, which can be ended.

Python's `re` cannot be interrupted, and an expression such as (a+)+b may take longer than the
universe is old. As a command it reads JSON from its input and writes lines of JSON, PAGE hits each.
"""

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from hlm_jax.analysis.stylometry.concordance import Hit, kwic
from hlm_jax.book.chapters import Chapter
from hlm_jax.errors import UserError
from hlm_jax.serving.http import Refusal, busy

SECONDS = 5  # of processor time for a regular expression, and twice as many by the clock
MEMORY = 2**31  # bytes of address space
HITS = 100_000  # that are counted; more would be a search for nothing
TOO_MUCH_MEMORY = 3  # the exit code of such a search
PAGE = 1000  # hits of a line that such a process writes
CHILDREN = 2  # searches by regular expression at a time


@dataclasses.dataclass(frozen=True)
class Search:
    """What is looked for.

    Attributes:
      words: several are found together; one regular expression where `regex`.
      width, sort: as concordance.kwic.
    """

    words: tuple[str, ...]
    width: int = 15
    sort: str = "place"
    regex: bool = False


def plain_hits(chapters: Sequence[Chapter], search: Search) -> list[Hit]:
    """Every occurrence of the words.

    Raises:
      UserError: as concordance.kwic, or more than HITS of them.
    """
    text_of = [chapter.text for chapter in chapters]
    if sum(text.count(word) for text in text_of for word in search.words) > HITS:
        raise too_many()
    return kwic(chapters, search.words, width=search.width, sort=search.sort)


def too_many() -> UserError:
    return UserError(f"more than {HITS:,} occurrences: look for something rarer")


class Regex:
    """Searches by regular expression, CHILDREN at a time."""

    def __init__(self) -> None:
        self._running = 0

    async def hits(self, chapters: Sequence[Chapter], search: Search) -> list[Hit]:
        """Every occurrence; the process ends when the caller is cancelled.

        Raises:
          Refusal: 400 for an expression that cannot be read, takes too long or too much memory, or
            is found more than HITS times; 429 where CHILDREN searches are in work.
        """
        if self._running >= CHILDREN:
            raise busy("other searches by regular expression are in work: try again in a second")
        self._running += 1
        try:
            return await _in_a_child(chapters, search)
        finally:
            self._running -= 1


async def _in_a_child(chapters: Sequence[Chapter], search: Search) -> list[Hit]:
    request = {
        "chapters": [(chapter.number, chapter.text) for chapter in chapters],
        "search": dataclasses.asdict(search),
        "seconds": SECONDS,
    }
    # The package is found where this process found it; one thread of numpy needs little memory.
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | paths,
        close_fds=False,  # so that it is spawned: a fork of a process with JAX's threads may hang
    )
    try:
        answer = await asyncio.to_thread(_answer, child, request)
    finally:
        child.kill()  # where the caller was cancelled; else it has ended
    if child.returncode > 0 and child.returncode != TOO_MUCH_MEMORY:
        raise RuntimeError(f"the search ended with code {child.returncode}")
    if child.returncode:
        raise Refusal(
            400,
            f"the regular expression takes more than {SECONDS} seconds or too much memory: "
            "make it simpler",
            param="words",
            code="search_too_long",
        )
    return await asyncio.to_thread(_hits, answer)


def _hits(answer: bytes) -> list[Hit]:
    """Read line by line: no other thread goes on while json.loads works."""
    found = []
    for line in map(json.loads, answer.splitlines()):
        if "error" in line:
            raise Refusal(400, line["error"], param="words")
        found += [Hit(*hit) for hit in line["hits"]]
    return found


def _answer(child: subprocess.Popen[bytes], request: dict[str, Any]) -> bytes:
    """What the process writes; it is killed where it takes too long."""
    try:
        return child.communicate(json.dumps(request).encode(), timeout=2 * SECONDS)[0]
    except subprocess.TimeoutExpired:
        child.kill()
        return child.communicate()[0]


def _limit(seconds: int) -> None:
    """The process ends itself where nobody is left to end it."""
    try:
        import resource
    except ImportError:  # not on Windows; the parent's clock remains
        return
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def main() -> None:
    request = json.loads(sys.stdin.buffer.read())
    _limit(request["seconds"])
    chapters = [Chapter(number, "", text) for number, text in request["chapters"]]
    search = Search(**request["search"])
    try:
        found = kwic(chapters, search.words, width=search.width, sort=search.sort, regex=True)
        if len(found) > HITS:
            raise too_many()
        hits = [dataclasses.astuple(hit) for hit in found]
        lines: list[dict[str, object]] = [
            {"hits": hits[start : start + PAGE]} for start in range(0, len(hits), PAGE)
        ]
    except (UserError, RecursionError, OverflowError) as error:
        lines = [{"error": str(error)}]
    except MemoryError:
        sys.exit(TOO_MUCH_MEMORY)
    for line in lines:
        print(json.dumps(line))


if __name__ == "__main__":
    main()

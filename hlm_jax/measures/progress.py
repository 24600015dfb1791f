"""How far a measurement is: a bar on the terminal, moved by one stage of the work after another."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

Progress = Callable[[int, int], None]  # told how much is done, of how much


def stages(progress: Progress | None, sizes: Sequence[int]) -> Iterator[Progress]:
    """A Progress for every stage of a longer work, in their order.

    Args:
      progress: told how far the whole work is; None for none.
      sizes: of the stages, in one unit.
    """
    total, before = sum(sizes), 0
    for size in sizes:

        def told(done: int, of: int, before: int = before, size: int = size) -> None:
            if progress:
                progress(before + size * done // max(1, of), total)

        yield told
        before += size


@contextmanager
def progress_bar(what: str) -> Iterator[Progress]:
    """A bar on stderr where that is a terminal; elsewhere nothing is shown."""
    import tqdm

    form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    bar = tqdm.tqdm(desc=what, bar_format=form, disable=None, dynamic_ncols=True)

    def show(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    with bar:
        yield show

"""Progress bars of the steps before the run has its own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(name: str, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error if it is a terminal; the value moves it to `done` of `total`."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield _nothing
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=14))
    with Progress(*columns, console=console, transient=True) as live:
        task = live.add_task(name, total=None)
        yield lambda done, total: live.update(task, completed=done, total=total)


def _nothing(done: int, total: int) -> None:
    pass

"""Flower's SuperNode beside a warm launcher: it looks sooner for the reply of its process.

Started as a file (`python -P supernode.py flower-supernode ARGUMENTS`), it imports nothing of this
package.
"""

import importlib
import importlib.metadata
import sys
import time
from collections.abc import Callable
from typing import Any

COMMAND = "flower-supernode"
MODULE = "flwr.supernode.start_client_internal"
FLOWERS_PAUSE, PAUSE = 0.5, 0.1  # seconds between two looks


class Clock:
    """The module `time`, with a shorter sleep in place of the one between two looks."""

    def __getattr__(self, name: str) -> Any:
        """Everything else is the module's."""
        return getattr(time, name)

    def sleep(self, seconds: float) -> None:
        """Sleep, between two looks for less long."""
        time.sleep(PAUSE if seconds == FLOWERS_PAUSE else seconds)


def hurry() -> None:
    """Give the loop that looks for replies the other clock."""
    program: Any = importlib.import_module(MODULE)
    program.time = Clock()


def main() -> None:
    """Be Flower's program, with its arguments."""
    (found,) = importlib.metadata.entry_points(group="console_scripts", name=COMMAND)
    command: Callable[[], object] = found.load()
    hurry()
    sys.argv = sys.argv[1:]  # Flower's name is there for those who look for its process
    sys.exit(command())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()

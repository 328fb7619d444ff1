"""The warm launcher's program: has Flower's client process loaded, and forks one for each message.

It is started as a file (`python -P forkserver.py FOLDER MODULE...`) and imports nothing of this
package: the app that runs in its children comes from the run's bundle, and must be found there.
"""

import contextlib
import gc
import hashlib
import importlib
import importlib.metadata
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

COMMAND = "flwr-clientapp"
SOCKET = "fork.sock"
MAX_REQUEST = 1 << 16  # bytes
REQUEST_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 0.2  # seconds
# What would start threads while it is imported: OpenBLAS', and those of pyarrow's allocator.
_NO_THREADS = {"OPENBLAS_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}


def main(folder: Path, modules: Sequence[str]) -> None:
    """Load, and then serve for ever; in a forked process, be Flower's client process.

    Args:
        folder: an existing one that no other user can open, for the socket.
        modules: what to import beside Flower.
    """
    with _variables(_NO_THREADS):
        (found,) = importlib.metadata.entry_points(group="console_scripts", name=COMMAND)
        command: Callable[[], object] = found.load()
        for name in modules:
            importlib.import_module(name)
    if trouble := threads():
        sys.exit(f"LauncherError: after its imports {trouble}")
    _hurry()
    gc.collect()
    gc.freeze()  # a collection in a child would otherwise copy every page it looks at
    arguments = serve(_listen(folder))
    sys.argv = [COMMAND, *arguments]
    sys.exit(command())  # type: ignore[arg-type]


def serve(listener: socket.socket) -> list[str]:
    """Fork for each request; returns in the forked processes alone, with their arguments."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    print("the warm launcher is ready", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                arguments, outputs = _receive(connection)
            except (OSError, ValueError) as error:
                print(f"a request was not understood: {error}", file=sys.stderr, flush=True)
                continue
            try:
                # Nothing that another thread holds, a lock say, may be held for ever in a child.
                answer = f"refused: {trouble}" if (trouble := threads()) else ""
                pid = 0 if answer else os.fork()
                if not answer and pid == 0:
                    try:
                        listener.close()
                        _become_child(outputs)
                    except BaseException:
                        os._exit(1)  # what handles errors here is the server's
                    return arguments
                with contextlib.suppress(OSError):
                    connection.sendall((answer or f"started: {pid}").encode())
            except OSError as error:  # no memory, or too many processes
                with contextlib.suppress(OSError):
                    connection.sendall(f"refused: {error.strerror}".encode())
            finally:
                for output in outputs:
                    with contextlib.suppress(OSError):  # closed already, in a child
                        os.close(output)


def threads() -> str:
    """What keeps this process from being forked, if anything: other threads than the one."""
    try:
        names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    except OSError as error:
        return f"its threads cannot be counted: {error.strerror}"
    if len(names) == 1:
        return ""
    return f"{len(names)} threads run ({', '.join(names)}): expected one, or a fork is not safe"


def _listen(folder: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    former = Path.cwd()
    os.chdir(folder)  # the name of a socket is short: a relative one always fits
    try:
        Path(SOCKET).unlink(missing_ok=True)
        listener.bind(SOCKET)
        Path(SOCKET).chmod(0o600)
    finally:
        os.chdir(former)
    listener.listen(128)
    return listener


def _receive(connection: socket.socket) -> tuple[list[str], list[int]]:
    """The arguments of a request, and where its output is to go."""
    connection.settimeout(REQUEST_SECONDS)
    credentials = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    if struct.unpack("3i", credentials)[1] != os.getuid():
        raise ValueError("it is of another user")
    text, outputs, _, _ = socket.recv_fds(connection, MAX_REQUEST, 2)
    try:
        while text and (more := connection.recv(MAX_REQUEST)):
            text += more
            if len(text) > MAX_REQUEST:
                raise ValueError(f"more than {MAX_REQUEST} bytes")
        if len(outputs) != 2 or not text.endswith(b"\0"):
            raise ValueError("expected arguments and two files")
        return [word.decode() for word in text.split(b"\0")[:-1]], outputs
    except (OSError, ValueError):
        for output in outputs:
            os.close(output)
        raise


def _become_child(outputs: Sequence[int]) -> None:
    """Leave behind what is the server's, and what two processes must not share."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for output, number in zip(outputs, (1, 2), strict=True):
        os.dup2(output, number)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(COMMAND)  # what `ps` and `top` show
    # What protects a release never comes from here; but two messages are not to draw the same.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def _hurry() -> None:
    """Spare what is forked half of a light message's work, and most of its waiting.

    Flower's client process unpacks the run's bundle and checks its files for every message, and
    then takes what was unpacked before, whatever that is: here it unpacks what is not there yet.
    And it waits a second, then two, and so on, for a part of the message that its SuperNode still
    fetches, up to 500 times: here for less, as often as it takes within the same longest time.
    """
    inflatable = sys.modules.get("flwr.supercore.inflatable.inflatable_utils")
    program: Any = sys.modules.get("flwr.supernode.runtime.run_clientapp")
    if inflatable is None or program is None:
        return
    for pull in (inflatable.pull_objects, inflatable.pull_and_inflate_object_from_tree):
        pull.__kwdefaults__.update(
            initial_backoff=FIRST_PAUSE, backoff_cap=LONGEST_PAUSE, max_tries_per_object=None
        )
    unpack = program.install_from_fab

    def unpack_once(bundle: bytes, **options: object) -> object:
        from flwr.common.constant import APP_DIR, FAB_HASH_TRUNCATION
        from flwr.supercore.utils import get_flwr_home

        name = hashlib.sha256(bundle).hexdigest()[:FAB_HASH_TRUNCATION]
        found = next(get_flwr_home().joinpath(APP_DIR).glob(f"*.{name}"), None)
        return found or unpack(bundle, **options)

    program.install_from_fab = unpack_once


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    former = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

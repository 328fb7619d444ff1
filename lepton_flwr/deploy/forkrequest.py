"""Stands where Flower looks for `flwr-clientapp`: has the warm launcher fork one in its place.

`python -IS forkrequest.py FOLDER ARGUMENT...`: without `site`, for it runs for every message.
"""

import os
import socket
import sys
import time

SOCKET = "fork.sock"
# While the launcher is started again. Flower gives a message up 30 s after it asked for a process.
PATIENCE_SECONDS = 25.0
ANSWER_SECONDS = 30.0


def main(folder: str, arguments: list[str]) -> str:
    """Ask for a process.

    Args:
        folder: of the launcher's socket.
        arguments: of the process.

    Returns:
        What went wrong; empty if nothing did. Then there is no process, and none is started here.
    """
    os.chdir(folder)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(SOCKET)
            break
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                return f"the warm launcher does not answer: {error.strerror}"
            time.sleep(0.05)
    with connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            text = b"".join(argument.encode() + b"\0" for argument in arguments)
            socket.send_fds(connection, [text], [1, 2])
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096).decode()
        except OSError as error:
            return f"the warm launcher does not answer: {error.strerror or error}"
    if not answer.startswith("started: "):
        return f"the warm launcher has started nothing: {answer or 'it ended'}"
    return ""


if __name__ == "__main__":
    trouble = main(sys.argv[1], sys.argv[2:])
    if trouble:
        sys.exit(f"LauncherError: {trouble}; see warm.log beside this log")

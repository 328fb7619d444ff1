"""How fast a large CSV file is encrypted: `python -m simulations.benchmarks.encryption`.

A file of `--megabytes` (1,000 if not given) is made in a temporary folder below `--folder`. Its
stream, from the file through `lepton_flwr.crypto.body` to where nothing has to be stored, is
compared with AES-256-GCM alone: the cryptography package's, over chunks of the same size in
memory, in turn with it in the same run. Beside it stand whole files, with all that the disk takes,
a plain copy, and SHA-256. Each number is the best of `--repeats`. Compared are times of the
processor, which other work on the machine does not change much; the memory is the peak of a process
that does nothing else.
"""

import argparse
import hashlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rich.console import Console
from rich.table import Table

from lepton_flwr._files import replace
from lepton_flwr.crypto import body as bodies
from lepton_flwr.crypto.encrypted_file import decrypt_file, encrypt_file, rewrap_file
from lepton_flwr.crypto.header import Body
from lepton_flwr.crypto.recipients import DecryptionKey

REQUIRED = 0.6
_LINE = b"%d,%d,carrier-%d,%d.5,on time\n"
_MEMORY = """
import re, sys
from pathlib import Path
from lepton_flwr.crypto.encrypted_file import decrypt_file, encrypt_file
from lepton_flwr.crypto.recipients import DecryptionKey
folder, key = Path(sys.argv[1]), DecryptionKey.generate()
def peak():  # not getrusage, which counts the process that started this one
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\\s*(\\d+)", status)[1]) / 1024
before = peak()
encrypt_file(folder / "plain.csv", folder / "memory.lepton", [key.recipient])
between = peak()
decrypt_file(folder / "memory.lepton", folder / "memory.csv", key)
print(before, between, peak())
"""


def make_csv(path: Path, length: int) -> None:
    """Write a CSV file of `length` bytes."""
    with path.open("wb") as file:
        left, number = length, 0
        while left:
            lines = (
                _LINE % (n, n * n % 9973, n % 35, n % 977) for n in range(number, number + 5000)
            )
            block = b"".join(lines)[:left]
            file.write(block)
            left, number = left - len(block), number + 5000


def raw(length: int) -> Callable[[], None]:
    """AES-256-GCM of `length` bytes in memory, in chunks of the format's size."""
    cipher, chunk = AESGCM(os.urandom(32)), 1 << bodies.CHUNK_BITS
    plain, sealed = bytearray(os.urandom(chunk)), bytearray(chunk + bodies.TAG_BYTES)

    def work() -> None:
        for number in range(length // chunk):
            cipher.encrypt_into(number.to_bytes(12, "big"), plain, None, sealed)

    return work


def stream(source: Path, decrypting: bool) -> Callable[[], None]:
    """The body of a file, to where nothing is stored."""
    length = source.stat().st_size
    key = bytes(32)
    if decrypting:
        body = Body(bodies.CHUNK_BITS, length, "benchmark")
        sealed = source.with_suffix(".body")
        with source.open("rb", buffering=0) as file, sealed.open("wb", buffering=0) as out:
            bodies.encrypt(file, out, body, key, _ignore)
        source = sealed
    body = Body(bodies.CHUNK_BITS, length, "benchmark")
    work = bodies.decrypt if decrypting else bodies.encrypt

    def run() -> None:
        with source.open("rb", buffering=0) as file, open(os.devnull, "wb", buffering=0) as out:
            work(file, out, body, key, _ignore)

    return run


def copy(source: Path, target: Path) -> None:
    """Copy a file as the encrypted one is written: beside it, forced to disk, renamed."""
    chunk = bytearray(1 << bodies.CHUNK_BITS)

    def write(beside: Path) -> None:
        with source.open("rb", buffering=0) as file, beside.open("wb", buffering=0) as out:
            while count := file.readinto(chunk):
                bodies.write(out, memoryview(chunk)[:count])

    replace(target, write)


def sha256(source: Path) -> None:
    """The digest of a file."""
    with source.open("rb", buffering=0) as file:
        hashlib.file_digest(file, "sha256")


class Times(NamedTuple):
    """Best times of one work.

    Attributes:
        seconds: by the clock.
        processor: by the processor, in seconds.
    """

    seconds: float
    processor: float


def measure(folder: Path, length: int, repeats: int) -> dict[str, Times]:
    """Best times of each work, by its name; they take turns."""
    plain, sealed, found = (folder / name for name in ("plain.csv", "plain.lepton", "found.csv"))
    make_csv(plain, length)
    key, other = DecryptionKey.generate(), DecryptionKey.generate()
    encrypt_file(plain, sealed, [key.recipient])
    works: dict[str, Callable[[], object]] = {
        "AES-256-GCM in memory": raw(length),
        "encrypt, stream": stream(plain, decrypting=False),
        "decrypt, stream": stream(plain, decrypting=True),
        "encrypt, file to file": lambda: encrypt_file(
            plain, sealed, [key.recipient, other.recipient], overwrite=True
        ),
        "decrypt, file to file": lambda: decrypt_file(sealed, found, key, overwrite=True),
        "decrypt, with SHA-256": lambda: decrypt_file(
            sealed, found, key, overwrite=True, digest=True
        ),
        "rewrap": lambda: rewrap_file(sealed, key, [key.recipient]),
        "copy, file to file": lambda: copy(plain, found),
        "SHA-256 of a file": lambda: sha256(plain),
    }
    times: dict[str, list[Times]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start, processor = time.perf_counter(), time.process_time()
            work()
            took = time.perf_counter() - start, time.process_time() - processor
            times[name].append(Times(*took))
    return {name: Times(*map(min, zip(*found, strict=True))) for name, found in times.items()}


def memory(folder: Path) -> tuple[float, float, float]:
    """Peak MiB of a process: before, with encryption, with decryption."""
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(folder)], capture_output=True, text=True, check=True
    )
    before, between, after = map(float, done.stdout.split())
    return before, between, after


def _ignore(_chunk: memoryview) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and fail if encryption streams too slowly."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the file")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    options = parser.parse_args(arguments)
    length = options.megabytes * 1_000_000
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="lepton-") as name:
        folder = Path(name)
        best = measure(folder, length, options.repeats)
        peaks = memory(folder)
    table = Table(title=f"CSV of {options.megabytes:,} MB, {platform.machine()}")
    for column in ("work", "seconds", "processor", "GB/s of it", "of AES-256-GCM"):
        table.add_column(column, justify="left" if column == "work" else "right", no_wrap=True)
    floor = best["AES-256-GCM in memory"].processor
    for work, (seconds, processor) in best.items():
        speed = length / processor / 1e9
        table.add_row(
            work, f"{seconds:.2f}", f"{processor:.2f}", f"{speed:.2f}", f"{floor / processor:.0%}"
        )
    console = Console()
    console.print(table)
    before, encrypting, decrypting = peaks
    console.print(
        f"peak memory of a process: {before:.1f} MiB before, {encrypting:.1f} MiB with encryption, "
        f"{decrypting:.1f} MiB with decryption as well",
        highlight=False,
    )
    ratio = floor / best["encrypt, stream"].processor
    console.print(f"encryption streams at {ratio:.0%} of AES-256-GCM: expected {REQUIRED:.0%}")
    return 0 if ratio >= REQUIRED else 1


if __name__ == "__main__":
    sys.exit(main())

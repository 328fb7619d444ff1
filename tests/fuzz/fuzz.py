"""Coverage-guided fuzzing with atheris (extra `fuzz`): a target, then libFuzzer's options.

    python tests/fuzz/fuzz.py encrypted_data -max_total_time=15 -max_len=200

A finding ends the process with an error and leaves the input in a file.
"""

import importlib
import sys

import atheris

# Each target, and what of the library it shall cover.
TARGETS = {"secagg_client": "lepton_flwr.secagg", "encrypted_data": "lepton_flwr.crypto"}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"error: expected a target: {', '.join(TARGETS)}")
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=[TARGETS[name]]):
        target = importlib.import_module(name)
    target.run(b"")  # makes what every input starts from
    atheris.Setup(sys.argv, lambda data: target.run(data) and None)
    atheris.Fuzz()

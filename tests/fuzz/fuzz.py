"""Coverage-guided fuzzing with atheris (extra `fuzz`), with libFuzzer's options.

    python tests/fuzz/fuzz.py -max_total_time=25 -max_len=200

A finding ends the process with an error and leaves the input in a file.
"""

import sys

import atheris

with atheris.instrument_imports(include=["lepton_flwr.secagg"]):
    import secagg_client

if __name__ == "__main__":
    for size in secagg_client.CLIENTS:
        secagg_client.rehearsal(size)
    atheris.Setup(sys.argv, lambda data: secagg_client.run(data) and None)
    atheris.Fuzz()

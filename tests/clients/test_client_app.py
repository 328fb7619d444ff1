"""The ClientApp as a device starts it."""

import os
import subprocess
import sys


def test_importing_the_app_loads_nothing_heavy():
    heavy = ("tensorflow", "keras", "pandas", "ray", "sklearn", "matplotlib", "dp_accounting")
    code = (
        "import sys, clients.client_app; "
        f"sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

"""A Flower app whose clients' updates are fixed: for measuring, and for comparing, what carries it.

Its server and its protection are the real ones; only the work is missing. `bundle` makes an app of
it, or of the real clients with a clock around them.
"""

import shutil
import tomllib
from pathlib import Path

from simulations.app_bundle import assemble

PACKAGE = "measured"  # its name within the app
FIXED = f"{PACKAGE}.client:app"
REAL = f"{PACKAGE}.real:app"
SERVER = f"{PACKAGE}.server:app"


def bundle(parent: Path, *, client: str = FIXED, server: str | None = SERVER) -> Path:
    """Assemble the app, as `simulations.app_bundle.assemble`, with this package in it.

    Args:
        parent: an existing folder.
        client: its ClientApp, `FIXED` or `REAL`.
        server: its ServerApp; None is the real one.

    Returns:
        The app's folder.
    """
    import tomli_w

    app = assemble(parent)
    source = Path(__file__).parent
    shutil.copytree(source, app / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    (app / PACKAGE / "__init__.py").write_text('"""See lepton-flwr."""\n', encoding="utf-8")
    project = app / "pyproject.toml"
    table = tomllib.loads(project.read_text(encoding="utf-8"))
    flower = table["tool"]["flwr"]["app"]
    flower["fab-include"].append(f"/{PACKAGE}/*.py")
    flower["components"]["clientapp"] = client
    if server is not None:
        flower["components"]["serverapp"] = server
    flower["config"] |= {"trace": "", "clients": 0, "size": 0}
    project.write_text(tomli_w.dumps(table), encoding="utf-8")
    return app

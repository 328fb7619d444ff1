"""The Flower app as a folder that `flwr run` and `flwr build` take."""

import importlib.metadata
import shutil
from pathlib import Path

import clients
import lepton_flwr
import strategies
from lepton_flwr.errors import FederationError

NAME = "lepton-flwr"
_PACKAGES = (lepton_flwr, strategies, clients)


def assemble(parent: Path) -> Path:
    """Copy the app out of the checkout, or out of the installed packages.

    `flwr build` refuses some names of checkouts, and an installed wheel is no app, so both are
    copied.

    Args:
        parent: an existing folder.

    Returns:
        `parent/lepton-flwr`: the packages' Python files, `pyproject.toml`, README and LICENSE.

    Raises:
        FederationError: something of the app is missing.
    """
    app = parent / NAME
    try:
        for package in _PACKAGES:
            source = Path(package.__path__[0])
            shutil.copytree(source, app / source.name, ignore=_only_python)
        (app / "pyproject.toml").write_bytes(_project_file().read_bytes())
        (app / "README.md").write_text(_readme(), encoding="utf-8")
        (app / "LICENSE").write_text(_license(), encoding="utf-8")
    except (OSError, importlib.metadata.PackageNotFoundError) as error:
        raise FederationError(f"cannot assemble the app, reinstall {NAME}: {error}") from None
    return app


def _only_python(folder: str, names: list[str]) -> set[str]:
    return {
        name
        for name in names
        if name in ("__pycache__", "_app")
        or not (name.endswith(".py") or (Path(folder) / name).is_dir())
    }


def _checkout() -> Path | None:
    root = Path(lepton_flwr.__path__[0]).parent
    return root if (root / "pyproject.toml").is_file() else None


def _project_file() -> Path:
    root = _checkout()
    return (root or Path(lepton_flwr.__path__[0]) / "_app") / "pyproject.toml"


def _readme() -> str:
    root = _checkout()
    if root is not None:
        return (root / "README.md").read_text(encoding="utf-8")
    return _installed("METADATA").partition("\n\n")[2]  # the headers end at the first empty line


def _license() -> str:
    root = _checkout()
    if root is not None:
        return (root / "LICENSE").read_text(encoding="utf-8")
    return _installed("licenses/LICENSE")


def _installed(file: str) -> str:
    text = importlib.metadata.distribution(NAME).read_text(file)
    if text is None:
        raise FileNotFoundError(f"{file} is missing")
    return text

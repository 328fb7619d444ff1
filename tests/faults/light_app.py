"""`lepton`, whose `server train` and `server resume` send devices the light app.

It is the product's app with the folder `light` beside it: another task in the place of Keras, so
that no device imports TensorFlow, and a place to stop in.
"""

import shutil
import sys
from pathlib import Path

from lepton_flwr.cli import main
from simulations import app_bundle

_CLIENT, _LAST = '"clients.client_app:app"', '"/clients/**/*.py",'
_assemble = app_bundle.assemble


def assemble(parent: Path) -> Path:
    app = _assemble(parent)
    shutil.copytree(Path(__file__).with_name("light"), app / "light")
    (app / "light" / "__init__.py").write_text("")
    project = (app / "pyproject.toml").read_text()
    assert project.count(_CLIENT) == project.count(_LAST) == 1
    project = project.replace(_CLIENT, '"light.client_app:app"')
    (app / "pyproject.toml").write_text(project.replace(_LAST, f'{_LAST} "/light/**/*.py",'))
    return app


app_bundle.assemble = assemble
if __name__ == "__main__":
    sys.argv[0] = "lepton"
    main()

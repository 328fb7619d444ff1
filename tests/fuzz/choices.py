"""What the fuzz targets share: choices out of the fuzzer's input."""


class ExhaustedError(Exception):
    """The input is used up."""


class Choices:
    """Takes choices out of the fuzzer's input."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._data):
            raise ExhaustedError
        self._at += count
        return self._data[self._at - count : self._at]

    def below(self, number: int) -> int:
        return int.from_bytes(self.take(2), "big") % number


def require(condition: bool, what: str) -> None:
    """End the fuzzing with a finding unless the condition holds."""
    if not condition:
        raise RuntimeError(what)

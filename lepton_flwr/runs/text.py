"""How numbers and foreign text are shown to people."""

import math

UNKNOWN = "–"


def decimal(value: float | None, digits: int = 3) -> str:
    """A fixed number of decimals, or a dash for what is not known."""
    return UNKNOWN if value is None or math.isnan(value) else f"{value:.{digits}f}"


def plain(value: float | None) -> str:
    """As short as it goes: 3, 2.981, 1e-05."""
    return UNKNOWN if value is None or math.isnan(value) else f"{value:.4g}"


def spent(epsilon: float | None) -> str:
    """An epsilon rounded up to three decimals: what is shown never understates the loss."""
    if epsilon is None or not math.isfinite(epsilon):
        return UNKNOWN if epsilon is None or math.isnan(epsilon) else "unbounded"
    return f"{math.ceil(epsilon * 1000) / 1000:.3f}".rstrip("0").rstrip(".")


def size(num_bytes: float) -> str:
    """Bytes in decimal units: 512 B, 4.01 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(num_bytes) < 999.5 or unit == "GB":
            break
        num_bytes /= 1000
    return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.3g} {unit}"


def duration(seconds: float) -> str:
    """0.4 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def one_line(text: str) -> str:
    """Foreign text as one line without control characters, which could drive a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())

"""Scripts that measure; each prints one table."""

"""Answers of many participants together, none of whom shows its own."""

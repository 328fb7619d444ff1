"""A run: its settings, what it tells while it goes, and the folder it leaves behind."""

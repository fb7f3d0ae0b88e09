"""Names that a refresh uses below its own folder."""

SHARDS = "shards"
"""Folder of a refresh's finished shards, below its own folder in the store."""
SPARE = "spare"
"""Takes the place of a split's name for clips that only thresholds refuse."""

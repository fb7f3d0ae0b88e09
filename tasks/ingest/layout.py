"""Names of what a refresh keeps below its own folder."""

SHARDS = "shards"
"""Folder of a refresh's finished shards, below its own one in the store."""
SPARE = "spare"
"""Stands where a split stands, for clips that only thresholds refuse."""

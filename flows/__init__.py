"""Prefect flows, one file per command.

This runs before any file of `flows`, which is before prefect is imported and reads its settings,
and before any package is imported whose name could be somebody else's.
"""

from flows.support.environment import local_environment
from latentsync_flows import refuse_foreign_packages

refuse_foreign_packages()
local_environment()

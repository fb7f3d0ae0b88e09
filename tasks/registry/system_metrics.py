"""The load of this machine and its GPUs on an MLflow run, by MLflow's own monitor."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PATIENCE_S = 5.0
"""How long the last points may take: a server that is away keeps nobody waiting."""


@contextmanager
def system_metrics(uri: str, run_id: str) -> Iterator[None]:
    """Let MLflow add `system/...` to a run meanwhile, every ten seconds.

    Where the server is away it ends by itself, and training goes on without it.
    """
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
    monitor = None
    with suppress(Exception):
        monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=uri)
        monitor.start()
    try:
        yield
    finally:
        if monitor is not None:
            ending = threading.Thread(target=monitor.finish, daemon=True)
            ending.start()
            ending.join(PATIENCE_S)

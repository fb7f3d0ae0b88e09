"""Ray, started quietly on this machine or joined on a cluster, leaving nothing behind.

If asked, Linux kills processes when their parent dies: Ray asks for its own
servers, `die_with_parent` for workers; `tasks.runtime.processes` takes care of Ray's agents, which
do neither. So even `kill -9` of the driver leaves no orphan.
"""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from datasets.errors import UserError
from tasks.runtime.processes import ROOT, descendants, guard

OBJECT_STORE_BYTES = 200 << 20
"""Shared memory of a local Ray. Items and results are small; frames never enter it."""
CONNECT_S = 5.0

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


@contextmanager
def ray_session(
    address: str | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    temp_dir: Path | None = None,
) -> Iterator[None]:
    """Ray for the duration of a `with` block.

    If this process is already connected to Ray, that one is used and left running.

    Args:
        address: address of a running cluster (`auto`, `host:port` or `ray://host:port`); None
            starts a local Ray, even if a cluster could be found.
        num_cpus: CPUs that the local Ray offers; None: all of the machine's.
        num_gpus: the same for GPUs.
        temp_dir: folder for the local Ray's sockets and logs. Its path must be short,
            since a socket's path may have at most 107 characters.

    Raises:
        UserError: no cluster answers at that address, or the local Ray cannot start.
        OSError: the disk that holds `temp_dir` is full.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield
        return
    sigterm = signal.getsignal(signal.SIGTERM)
    before = descendants()
    _init(address, num_cpus, num_gpus, temp_dir)
    # Ray has put handlers of its own in its place, of which one, in C++, only prints stacks and
    # aborts. What the flow does on SIGTERM is to end in order.
    _handle_sigterm(sigterm)
    try:
        with guard(descendants() - before):
            try:
                yield
            finally:
                ray.shutdown()
    finally:
        _handle_sigterm(sigterm)


def _handle_sigterm(handler: Any) -> None:
    with suppress(ValueError):
        # Only the main thread may do this.
        signal.signal(signal.SIGTERM, handler or signal.SIG_DFL)


def _init(
    address: str | None,
    num_cpus: float | None,
    num_gpus: float | None,
    temp_dir: Path | None,
) -> None:
    import ray
    from ray.job_config import JobConfig

    if address is not None:
        _require_answer(address)
    try:
        if address is not None:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
            return
        ray.init(
            address="local",
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            _temp_dir=str(temp_dir) if temp_dir else None,
            # Workers find the packages of this project wherever the driver was started.
            job_config=JobConfig(_py_driver_sys_path=[str(ROOT)]),
        )
    except Exception as error:
        # Ray raises many kinds of errors, and a plain Exception for a slow start; a full disk and
        # the like keep their own sentences.
        if isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError):
            raise
        if address is not None:
            raise UserError(_nobody(address)) from error
        first = str(error).strip().partition("\n")[0]
        raise UserError(f"the local Ray could not be started: {first}") from error


def _require_answer(address: str) -> None:
    """Ray itself tries for minutes before it reports that nothing listens at an address."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(_nobody(address)) from error


def _nobody(address: str) -> str:
    return (
        f"no Ray cluster answers at {address!r}: start one with 'ray start --head', "
        "or leave the address out to work on this machine"
    )

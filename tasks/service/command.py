"""Serve lip-sync over HTTP.

    latentsync-flows serve runs/service --model models:/latentsync@champion

Jobs wait in a queue on disk, which survives a restart; workers keep the model. The token that
requests must bring and the secret that signs webhooks are read from files or from the variables
LATENTSYNC_TOKEN and LATENTSYNC_WEBHOOK_SECRET, never from the command line, which others can see.
"""

import argparse
import ipaddress
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from datasets.errors import UserError
from datasets.fetch.policy import DownloadSettings
from datasets.redact import redact
from datasets.sources.addresses import AddressPolicy
from datasets.store.lock import only_run
from tasks.registry.published import resolve_model
from tasks.registry.tracking import check_uri, default_uri
from tasks.runtime.failures import redact_logs, sentence_for
from tasks.runtime.ray_session import ray_session
from tasks.runtime.room import fitting_workers
from tasks.runtime.stage import Resources
from tasks.service.app import make_app
from tasks.service.look import Looker
from tasks.service.queue import JobQueue
from tasks.service.runner import Runner
from tasks.service.service import Service, ServiceSettings
from tasks.service.stage import ServiceStage
from tasks.service.webhooks import Webhooks
from tasks.weights.licences import bundle_licence

TOKEN, SECRET = "LATENTSYNC_TOKEN", "LATENTSYNC_WEBHOOK_SECRET"
GOODBYE_S = 10.0


def main(argv: Sequence[str] | None = None, prog: str = "latentsync-flows serve") -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _add_options(parser)
    options = parser.parse_args(argv)
    redact_logs()
    try:
        serve(options)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        sentence = sentence_for(error)
        if sentence is None:
            raise
        print(redact(sentence), file=sys.stderr)
        return 2
    print("ended: jobs that were running go on when the service starts again", flush=True)
    return 0


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="for uploads, jobs and the queue")
    parser.add_argument(
        "--model",
        default="models:/latentsync@champion",
        help="or latentsync-1.5, latentsync-1.6, or a bundle folder",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or mps")
    parser.add_argument("--adapter", type=Path, help="folder that adapt-model wrote")
    parser.add_argument("--workers", type=int, help="jobs at once; by default one per core or GPU")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=8080, help="0: any that is free")
    parser.add_argument("--token-file", type=Path, help="file with the token of requests")
    parser.add_argument("--webhook-secret-file", type=Path, help="file with the secret of webhooks")
    parser.add_argument("--database", help="SQLAlchemy's address; by default SQLite in the folder")
    parser.add_argument("--max-mb", type=float, default=2048, help="largest file, in 2^20 bytes")
    parser.add_argument("--max-seconds", type=float, default=600, help="longest video and speech")
    parser.add_argument("--max-waiting", type=int, default=100, help="jobs that may wait")
    parser.add_argument("--deadline-s", type=float, default=3600, help="seconds for one job")
    parser.add_argument("--keep-hours", type=float, default=24, help="how long results are kept")
    parser.add_argument(
        "--allow-private", action="store_true", help="fetch from and tell private addresses, too"
    )
    parser.add_argument("--tracking-uri", help="MLflow's store")


def serve(options: argparse.Namespace) -> None:
    """Serve until it is told to stop.

    Raises:
        UserError: an option is wrong, or the model cannot be used.
    """
    token = _secret(TOKEN, options.token_file)
    if not token and not _is_loopback(options.host):
        raise UserError(
            f"everybody who reaches {options.host} could use the service: set {TOKEN} or give "
            "--token-file, or listen at 127.0.0.1"
        )
    for name in ("max_mb", "max_seconds", "max_waiting", "deadline_s", "keep_hours"):
        if not getattr(options, name) > 0:
            raise UserError(f"--{name.replace('_', '-')} must be above 0")
    policy = AddressPolicy(allow_private=options.allow_private, schemes=("http", "https"))
    most = int(options.max_mb * 2**20)
    downloads = DownloadSettings(addresses=policy, max_bytes=most, deadline_s=options.deadline_s)
    settings = ServiceSettings(
        options.folder.resolve(),
        most,
        options.max_seconds,
        options.max_waiting,
        options.keep_hours * 3600,
        downloads,
    )
    bundle = resolve_model(options.model, check_uri(options.tracking_uri or default_uri()))
    if licence := bundle_licence(bundle):
        print(licence, flush=True)
    gpus = 1.0 if options.device.startswith("cuda") else 0.0
    stage = ServiceStage(
        bundle,
        options.device,
        adapter=options.adapter,
        resources=Resources(gpus=gpus),
        downloads=downloads,
        most_s=settings.most_s,
    )
    uri = options.database or f"sqlite:///{settings.folder / 'queue.db'}"
    with only_run(settings.folder):
        queue, looker = JobQueue(uri, settings.most_waiting), Looker(settings.most_s)
        try:
            service = Service(settings, queue, look=looker)
            secret = _secret(SECRET, options.webhook_secret_file)
            hooks = Webhooks(queue, secret, policy) if secret else None
            _work(service, stage, hooks, options, token)
        finally:
            looker.close()
            queue.close()


def _work(
    service: Service,
    stage: ServiceStage,
    hooks: Webhooks | None,
    options: argparse.Namespace,
    token: str,
) -> None:
    with ray_session(num_cpus=options.workers):
        workers = fitting_workers(stage.resources, options.workers)
        runner = Runner(service, stage, workers, hooks, options.deadline_s)
        app = make_app(service, token, takes_webhooks=hooks is not None)
        with _stops(runner.stop), _listening(app, options.host, options.port) as url:
            print(f"serving at {url}, described at {url}/docs; Ctrl-C ends it", flush=True)
            runner.run()


@contextmanager
def _listening(app: Any, host: str, port: int) -> Iterator[str]:
    """A web server in a thread for the duration of the block; its address."""
    config = uvicorn.Config(app, host, port, log_level="warning", timeout_graceful_shutdown=3)
    server = uvicorn.Server(config)
    try:
        listener = config.bind_socket()
        # Who comes before the thread is ready waits instead of being turned away.
        listener.listen(config.backlog)
    except SystemExit:
        raise UserError(
            f"the port {port} at {host} cannot be listened at: choose another"
        ) from None
    thread = threading.Thread(target=server.run, args=([listener],), name="web", daemon=True)
    thread.start()
    try:
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(GOODBYE_S)
        listener.close()


@contextmanager
def _stops(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C and SIGTERM call `stop` during the block."""

    def asked(signum: int, frame: object) -> None:
        stop()

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        for each in before:
            signal.signal(each, asked)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler or signal.SIG_DFL)


def _secret(variable: str, path: Path | None) -> str:
    if path is None:
        return os.environ.get(variable, "")
    try:
        found = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"the file {path} cannot be read: {error}") from error
    if not found:
        raise UserError(f"the file {path} is empty: it must hold a secret")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

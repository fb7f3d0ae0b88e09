"""Sign a model that you trust: a version of the registry, a bundle or an adapter.

    LATENTSYNC_SIGNING_KEY=signing.pem python -m flows.sign_model models:/latentsync/3
    LATENTSYNC_SIGNING_KEY=signing.pem python -m flows.sign_model runs/train/bundle

What is written while the key is set is signed already; this is for what was there before. Of a
version the registered files, the evaluation and the decision are signed as they are now.
"""

from functools import partial
from pathlib import Path

from datasets.errors import UserError
from flows.support.artifacts import say
from flows.support.cli import run
from tasks.registry.tracking import check_uri, default_uri
from tasks.registry.versions import Registry, find
from tasks.weights.adapter import ABOUT as ADAPTER_ABOUT
from tasks.weights.adapter import WEIGHTS as ADAPTER_WEIGHTS
from tasks.weights.bundle import read_bundle
from tasks.weights.signing import SIGNING_KEY, sign_folder, signing_key


def sign_model(model: str, tracking_uri: str | None = None) -> None:
    """Sign a model with the key in LATENTSYNC_SIGNING_KEY.

    Args:
        model: models:/NAME@ALIAS, models:/NAME/VERSION, a bundle or an adapter.
        tracking_uri: MLflow's store; by default a SQLite file under runs.
    """
    if signing_key() is None:
        raise UserError(
            f"there is no key to sign with: set {SIGNING_KEY} to a PEM file, which "
            "`openssl genpkey -algorithm ed25519 -out signing.pem` makes"
        )
    uri = check_uri(tracking_uri or default_uri())
    version = find(model, uri)
    if version is not None:
        Registry(uri).sign(version)
        say(f"{version.name} version {version.version} is signed")
        return
    folder = Path(model)
    if (folder / ADAPTER_ABOUT).is_file():
        sign_folder(folder, (ADAPTER_WEIGHTS, ADAPTER_ABOUT))
    else:
        read_bundle(folder)
        sign_folder(folder)
    say(f"{folder} is signed")


main = partial(run, sign_model)

if __name__ == "__main__":
    raise SystemExit(main())

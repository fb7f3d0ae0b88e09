"""Registered models: versions, aliases, and each version's evaluation and decision.

A version's tags hold its evaluation and the decision about it, since MLflow's SQL stores
keep no metrics of versions. Aliases are `candidate` (newest), `champion` (in use) and
`previous` (the former champion). They have no compare-and-set: a process that moves one reads it
back and reports if another was faster.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from datasets.errors import UserError
from datasets.store.lock import file_lock
from models.files.errors import ModelFileError
from models.files.new_output import new_folder
from tasks.registry.lock import exclusively
from tasks.registry.metric import Measured, RecordedEvaluation
from tasks.registry.paired import part_of
from tasks.registry.policy import Policy
from tasks.registry.signature import model_signature
from tasks.registry.signed import (
    REGISTERED,
    check_registration,
    check_statement,
    registration_tags,
    statement_tags,
)
from tasks.registry.tracking import RunTracker, check_uri, client, quiet, sqlite_path
from tasks.runtime.processes import ROOT
from tasks.weights.bundle import BundleFacts, bundle_digest, read_bundle
from tasks.weights.signing import SIGNATURE, check_folder, sign_folder

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
EVALUATION_TAG = "evaluation"
KEPT_CLIPS = 400
"""Clips whose own numbers a tag has, which may have 100,000 characters."""
DECISION_TAG = "decision"
PACKAGES = ("models", "datasets", "tasks")
CACHE = Path.home() / ".cache" / "latentsync-flows" / "models"
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model."""

    name: str
    version: int
    run_id: str
    source: str
    """Where MLflow keeps its files."""
    tags: dict[str, str]
    aliases: tuple[str, ...]

    def json_tag(self, name: str) -> dict[str, Any] | None:
        """A tag that holds a JSON object; None if it is not set."""
        text = self.tags.get(name)
        return json.loads(text) if text else None

    @property
    def evaluation(self) -> RecordedEvaluation | None:
        """What `record_evaluation` stored; None if the version was not evaluated."""
        return cast(RecordedEvaluation | None, self.json_tag(EVALUATION_TAG))


class Registry:
    """The models of one MLflow store.

    Args:
        uri: as for `RunTracker`.
        must_exist: refuse a missing SQLite file instead of creating it.

    Raises:
        UserError: the store is missing or cannot be used.
    """

    def __init__(self, uri: str, must_exist: bool = False) -> None:
        self.uri = check_uri(uri)
        path = sqlite_path(self.uri)
        if must_exist and path and not path.is_file():
            raise UserError(
                f"there is no registry at {path}: train a model first, or name the store with "
                "--tracking-uri"
            )
        self._client = client(self.uri)

    @staticmethod
    def check_name(name: str) -> None:
        """Check that a model can have a name.

        Raises:
            UserError: MLflow would not accept the name.
        """
        if not name.strip() or set(name) & set("/:"):
            raise UserError(
                f"{name!r} is not a name for a model: expected some text without / and :"
            )

    def names(self) -> list[str]:
        """All registered models."""
        return sorted(model.name for model in self._client.search_registered_models())

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, oldest first; empty if the model is unknown."""
        found = self._client.search_model_versions(f"name='{name}'")
        return [
            self.version(name, number) for number in sorted(int(each.version) for each in found)
        ]

    def version(self, name: str, version: int) -> ModelVersion:
        """One version.

        Raises:
            UserError: the version does not exist; the message lists those that do.
        """
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_model_version(name, str(version))
        except MlflowException as error:
            raise UserError(f"there is no {name} version {version}: {self.listing()}") from error
        return ModelVersion(
            name,
            int(found.version),
            str(found.run_id or ""),
            str(found.source),
            dict(found.tags or {}),
            tuple(found.aliases or ()),
        )

    def alias(self, name: str, alias: str) -> int | None:
        """The version that an alias stands for; None if the alias is not set."""
        from mlflow.exceptions import MlflowException

        try:
            model = self._client.get_registered_model(name)
        except MlflowException:
            return None
        found = (model.aliases or {}).get(alias)
        return None if found is None else int(found)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias to a version, and verify that it does.

        Raises:
            UserError: another process moved it at the same moment.
        """
        self._client.set_registered_model_alias(name, alias, str(version))
        found = self.alias(name, alias)
        if found != version:
            raise UserError(
                f"alias {alias} of {name} was set to version {version} but now is {found}: "
                "another process changed it at the same moment; compare the two and run again"
            )

    def set_tags(self, name: str, version: int, tags: dict[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self._client.set_model_version_tag(name, str(version), key, value)

    def state(self, name: str, version: int, tag: str, content: Mapping[str, object]) -> None:
        """Set a tag to a JSON object, signed where there is a key to sign with."""
        digest = self.version(name, version).tags.get(REGISTERED, "")
        text = json.dumps(content, sort_keys=True)
        self.set_tags(name, version, statement_tags(name, tag, text, digest))

    def checked(self, name: str, version: int) -> ModelVersion:
        """One version, whose files, evaluation and decision are what was signed.

        Raises:
            UserError: the version does not exist.
            ModelFileError: signatures are asked for, and one of the three is not signed.
        """
        found = self.version(name, version)
        check_registration(name, version, found.run_id, found.tags)
        for tag in (EVALUATION_TAG, DECISION_TAG):
            check_statement(name, version, tag, found.tags)
        return found

    def sign(self, version: ModelVersion) -> None:
        """Sign which files a version has, its evaluation and its decision, as they are now.

        Raises:
            ModelFileError: its files are missing or not those that were registered.
        """
        name, tags = version.name, version.tags
        digest = tags.get(REGISTERED, "")
        signed = registration_tags(name, version.run_id, digest)
        for tag in (EVALUATION_TAG, DECISION_TAG):
            if tag in tags:
                signed |= statement_tags(name, tag, tags[tag], digest)
        bundle = self._registered_files(version)
        sign_folder(bundle)
        if not _is_local(version):
            tracker = RunTracker.attach(self.uri, version.run_id)
            place = version.source.rpartition("/")[2]
            tracker.log_artifact(bundle / SIGNATURE, f"{place}/artifacts/{bundle.name}")
        self.set_tags(name, version.version, signed)

    def remove_tag(self, name: str, version: int, tag: str) -> None:
        """Remove a tag of a version."""
        self._client.delete_model_version_tag(name, str(version), tag)

    def model_tags(self, name: str) -> dict[str, str]:
        """Tags of the model as a whole; empty if it is unknown."""
        found = [each for each in self._client.search_registered_models() if each.name == name]
        return dict(found[0].tags or {}) if found else {}

    def set_model_tag(self, name: str, tag: str, value: str) -> None:
        """Set a tag of the model as a whole."""
        self._client.set_registered_model_tag(name, tag, value)

    def remove_model_tag(self, name: str, tag: str) -> None:
        """Remove a tag of the model as a whole."""
        self._client.delete_registered_model_tag(name, tag)

    def listing(self) -> str:
        """The registry's content for messages: every model with its versions and aliases."""
        parts = []
        for name in self.names():
            aliases = self._client.get_registered_model(name).aliases or {}
            texts = [f"@{alias} = version {number}" for alias, number in sorted(aliases.items())]
            numbers = [str(each.version) for each in self.versions(name)]
            parts.append(f"{name} has versions {', '.join(numbers)} ({', '.join(texts)})")
        return "; ".join(parts) or "nothing is registered there yet: train a model first"

    def register(
        self, bundle: Path, name: str, run_id: str, tags: dict[str, str] | None = None
    ) -> int:
        """Store a bundle as a new version of a model and call it candidate.

        Registering the same bundle for the same run again gives the same version.

        Args:
            bundle: folder that training wrote.
            name: the model's name.
            run_id: the MLflow run that it came from; its artifacts keep the files.
            tags: further tags of the version.

        Returns:
            The version's number.

        Raises:
            ModelFileError: the folder is not a bundle.
            UserError: the name is not valid.
        """
        self.check_name(name)
        with exclusively(self.uri, f"registration {name}"):
            return self._register(bundle, name, run_id, tags or {})

    def _register(self, bundle: Path, name: str, run_id: str, tags: dict[str, str]) -> int:
        from mlflow.exceptions import MlflowException

        about = read_bundle(bundle)
        digest = bundle_digest(bundle)
        for known in self.versions(name):
            if known.run_id == run_id and known.tags.get("bundle_digest") == digest:
                self._name_candidate(name, known.version)
                return known.version
        source = self._upload(bundle, about, digest, run_id)
        if name not in self.names():
            # Another process may have been faster; any other cause shows in the next call.
            with suppress(MlflowException):
                self._client.create_registered_model(name)
        described = {key: str(value) for key, value in about.items() if not _is_nested(value)}
        signed = registration_tags(name, run_id, digest)
        all_tags = {**described, "bundle_digest": digest, **signed, **tags}
        made = self._client.create_model_version(name, source, run_id, tags=all_tags)
        self._name_candidate(name, int(made.version))
        return int(made.version)

    def _name_candidate(self, name: str, version: int) -> None:
        """Call a version candidate, unless another machine has registered a newer one meanwhile."""
        newest = self.alias(name, CANDIDATE)
        if newest is None or newest <= version or newest not in self._numbers(name):
            self._client.set_registered_model_alias(name, CANDIDATE, str(version))

    def _numbers(self, name: str) -> list[int]:
        return [int(each.version) for each in self._client.search_model_versions(f"name='{name}'")]

    def _upload(self, bundle: Path, about: BundleFacts, digest: str, run_id: str) -> str:
        """Write the MLflow model and copy it to the run's artifacts; returns its location."""
        with tempfile.TemporaryDirectory(prefix="latentsync-model-") as temporary, quiet():
            import mlflow.pyfunc

            folder = Path(temporary)
            for package in PACKAGES:
                shutil.copytree(
                    ROOT / package,
                    folder / "code" / package,
                    ignore=shutil.ignore_patterns("__pycache__", "*.pyc"),
                )
            mlflow.pyfunc.save_model(
                path=folder / "model",
                python_model=str(ROOT / "tasks" / "lipsync" / "mlflow_model.py"),
                artifacts={"bundle": str(bundle.resolve())},
                model_config={"bundle_digest": digest},
                signature=model_signature(),
                metadata={"bundle": about, "bundle_digest": digest},
                code_paths=[str(folder / "code" / package) for package in PACKAGES],
                # Given explicitly, since MLflow would otherwise load the model in a second process
                # to find out.
                pip_requirements=_requirements(),
            )
            tracker = RunTracker.attach(self.uri, run_id)
            # A training that goes on keeps its run: what it registered before must stay as it was.
            place = f"model-{digest[:16]}"
            tracker.log_artifact(folder / "model", place)
        return f"{tracker.artifact_uri()}/{place}"

    def fetch(self, version: ModelVersion, cache: Path = CACHE) -> Path:
        """The bundle of a version as a local folder, verified to be the registered one.

        Args:
            version: the version.
            cache: where bundles from a remote store are kept, by their digest.

        Raises:
            ModelFileError: the files are missing, not those that were registered, or not signed
                although signatures are asked for.
        """
        check_registration(version.name, version.version, version.run_id, version.tags)
        bundle = self._registered_files(version, cache)
        check_folder(bundle)
        read_bundle(bundle)
        return bundle

    def _registered_files(self, version: ModelVersion, cache: Path = CACHE) -> Path:
        """The bundle as a local folder, of which the digest is the registered one."""
        expected = version.tags.get("bundle_digest", "")
        folder = Path(version.source.removeprefix("file://")) / "artifacts"
        if not _is_local(version):
            folder = cache / expected[:32]
        if folder.parent == cache:
            cache.mkdir(parents=True, exist_ok=True)
            # Several evaluations may want the same version at once.
            with file_lock(cache / f"{folder.name}.lock"):
                if not folder.is_dir():
                    self._download(version, folder)
        bundles = [path.parent for path in folder.glob("*/bundle.json")]
        if len(bundles) != 1:
            raise ModelFileError(
                f"the files of {version.name} version {version.version} are not in {folder}: "
                "register the model again"
            )
        found = bundle_digest(bundles[0])
        if found != expected:
            raise ModelFileError(
                f"the files of {version.name} version {version.version} in {bundles[0]} are not "
                f"those that were registered (digest {found[:12]}, expected {expected[:12]}): "
                "register the model again"
            )
        return bundles[0]

    def _download(self, version: ModelVersion, folder: Path) -> None:
        with new_folder(folder) as unfinished, quiet():
            import mlflow.artifacts

            got = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{version.source}/artifacts",
                dst_path=str(unfinished),
                tracking_uri=self.uri,
            )
            for each in Path(got).iterdir():
                each.rename(unfinished / each.name)
            Path(got).rmdir()


def _is_local(version: ModelVersion) -> bool:
    return version.source.startswith(("file:", "/"))


def _is_nested(value: Any) -> bool:
    return isinstance(value, dict | list)


def _requirements() -> list[str]:
    """The installed versions of the packages that the model needs directly."""
    from importlib.metadata import version

    needed = (
        "torch",
        "diffusers",
        "transformers",
        "safetensors",
        "numpy",
        "av",
        "mediapipe",
        "cryptography",
    )
    further = ("opencv-python-headless", "opencv-contrib-python-headless", "scenedetect", "pandas")
    found = []
    for name in (*needed, *further):
        try:
            found.append(f"{name}=={version(name).partition('+')[0]}")
        except ImportError:
            if name in needed:
                raise
    return found


def parse_model(reference: str) -> tuple[str, str | None, int | None] | None:
    """Name, alias and version of `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Returns:
        None if it is not such an address, so a path.

    Raises:
        UserError: it begins like an address but is malformed.
    """
    match = MODEL_URI.fullmatch(reference)
    if match:
        number = match["version"]
        return match["name"], match["alias"], None if number is None else int(number)
    if reference.startswith("models:"):
        raise UserError(
            f"{reference!r} is not a model address: write models:/latentsync@champion, "
            "models:/latentsync/3 or the path of a bundle folder"
        )
    return None


def find(reference: str, uri: str) -> ModelVersion | None:
    """The version that an address refers to; None if it is a path.

    Raises:
        UserError: there is no such version; the message lists what exists.
    """
    parsed = parse_model(reference)
    if parsed is None:
        return None
    name, alias, number = parsed
    registry = Registry(uri, must_exist=True)
    if alias is not None:
        number = registry.alias(name, alias)
        if number is None:
            raise UserError(f"there is no {reference} in {registry.uri}: {registry.listing()}")
    assert number is not None
    return registry.version(name, number)


def resolve(reference: str, uri: str) -> Path:
    """The bundle folder that `models:/NAME@ALIAS`, `models:/NAME/VERSION` or a path refers to.

    Raises:
        UserError: it does not exist; the message lists what does.
        ModelFileError: the files are damaged, contradict each other, are not those that were
            registered, or are not signed although signatures are asked for.
    """
    version = find(reference, uri)
    if version is not None:
        return Registry(uri).fetch(version)
    folder = Path(reference)
    if not folder.is_dir():
        raise UserError(
            f"there is no model folder {reference}: give the bundle that training wrote, or "
            "models:/latentsync@champion"
        )
    check_folder(folder)
    read_bundle(folder)
    return folder


def register(
    bundle_dir: Path, model_name: str, uri: str, run_id: str, tags: dict[str, str] | None = None
) -> int:
    """`Registry.register` for callers that have no registry at hand."""
    return Registry(uri).register(Path(bundle_dir), model_name, run_id, tags)


def set_alias(model_name: str, alias: str, version: int, uri: str) -> None:
    """`Registry.set_alias` for callers that have no registry at hand."""
    Registry(uri).set_alias(model_name, alias, version)


def record_evaluation(
    model_name: str, version: int, uri: str, evaluation: Measured, judge: str = ""
) -> None:
    """Store an evaluation as tags of a version, for `promotion`.

    Args:
        model_name: the model's name.
        version: the version that was evaluated.
        uri: the MLflow store.
        evaluation: content of the `evaluation.json` that `evaluate` wrote.
        judge: address of the model whose sync network judged, if not its own.
    """
    metrics = evaluation["metrics"]
    values = {name: entry["value"] for name, entry in metrics.items()}
    tags = {f"metric.{name}": f"{value:.6g}" for name, value in values.items() if value is not None}
    kept: RecordedEvaluation = {
        "protocol_digest": evaluation["protocol_digest"],
        "metrics": metrics,
    }
    if judge:
        kept["judge"] = judge
    if "clip_values" in evaluation:
        names = [rule.metric for rule in Policy().rules]
        kept["clip_values"] = part_of(evaluation["clip_values"], names, KEPT_CLIPS)
    registry = Registry(uri)
    registry.set_tags(model_name, version, tags)
    registry.state(model_name, version, EVALUATION_TAG, kept)

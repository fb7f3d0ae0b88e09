"""Sharded checkpoints: a folder that all workers write together, in the background (torch's DCP).

A folder is written under a hidden name and renamed when it is complete, so a half checkpoint is
never the newest one. It holds tensors by name and `facts.json`. Any number of workers can read it,
each just the rows that are its own.
"""

import json
import pickle
import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from datasets.errors import UserError
from datasets.store.atomic import sync_folder, write_atomic
from models.files.errors import ModelFileError
from tasks.train.checkpoints import not_finite
from tasks.train.objective import Rank
from tasks.train.shards import local

SHARDED = ".shards"
"""Ending of a sharded checkpoint's folder."""
FACTS = "facts.json"
PARTIAL = ".partial"
ALLOWED = {
    "collections": {"OrderedDict"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta", "TensorProperties",
        "TensorStorageMetadata", "_MEM_FORMAT_ENCODING",
    },
}  # fmt: skip
"""What torch's list of the tensors in a checkpoint, which is pickled, may be made of."""


class Writer:
    """Writes the sharded checkpoints of a stage, one after the other, in the background.

    Args:
        worker: this process; every one of a stage has a writer, and they are called alike.
    """

    def __init__(self, worker: Rank) -> None:
        self.worker = worker
        # Its messages must not come between those of training.
        self._group: Any = torch.distributed.new_group(backend="gloo")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Any] | None = None

    def write(
        self,
        path: Path,
        tensors: dict[str, Tensor],
        facts: Mapping[str, Any],
        then: Callable[[], None],
    ) -> None:
        """Copy the tensors, and write them while training goes on.

        Waits first until the checkpoint before is complete.

        Args:
            path: the folder, which ends in `SHARDED`.
            tensors: by name; `DTensor`s, or the same in every worker.
            facts: what JSON knows.
            then: called in the leader when the folder is complete.

        Raises:
            UserError: a number is not finite; nothing is written.
            OSError: the checkpoint before could not be written.
        """
        self.wait()
        self._refuse(path, not_finite({name: local(each) for name, each in tensors.items()}))
        partial = path.with_name(f".{path.name}{PARTIAL}")
        if self.worker.leads:
            # Whoever wrote these is gone, since only one run trains in a folder.
            for left in path.parent.glob(f".*{SHARDED}{PARTIAL}"):
                shutil.rmtree(left)
            partial.mkdir(parents=True)
        torch.distributed.barrier(group=self._group)
        written = dcp.async_save(tensors, checkpoint_id=partial, process_group=self._group)
        assert isinstance(written, Future)
        self._pending = written
        if self.worker.leads:
            self._pending = self._thread.submit(_complete, written, partial, path, facts, then)

    def wait(self) -> None:
        """Until everything is written.

        Raises:
            OSError: it cannot be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except dcp.CheckpointException as error:
                raise next(iter(error.failures.values()))[0] from error

    def close(self) -> None:
        """Wait, and end the thread."""
        self.wait()
        self._thread.shutdown()

    def _refuse(self, path: Path, name: str) -> None:
        bad = torch.tensor(int(bool(name)))
        torch.distributed.all_reduce(bad, group=self._group)
        if bad:
            raise UserError(
                f"{name or 'a part of the state in another worker'} holds numbers that are not "
                f"finite, so {path} was not written: train on from the checkpoint before with a "
                "lower learning rate"
            )


def _complete(
    written: "Future[Any]",
    partial: Path,
    path: Path,
    facts: Mapping[str, Any],
    then: Callable[[], None],
) -> None:
    """Give a folder its name, as soon as all workers have written to it."""
    written.result()
    write_atomic(partial / FACTS, json.dumps(facts, indent=1))
    if path.exists():
        # The same step of the same training.
        shutil.rmtree(path)
    partial.rename(path)
    sync_folder(path.parent)
    then()


def read_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Fill tensors with those of a sharded checkpoint; `DTensor`s get their rows.

    Raises:
        ModelFileError: one is missing or of another shape, or the checkpoint is damaged.
    """
    stored = shapes(path)
    for name, tensor in tensors.items():
        if stored.get(name, (None,))[0] != tensor.shape:
            was = f"is {tuple(stored[name][0])}" if name in stored else "is missing"
            raise ModelFileError(f"{name} in {path} {was}, expected {tuple(tensor.shape)}")
    try:
        with warnings.catch_warnings():
            # Every worker reads for itself, which torch remarks on.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(tensors, storage_reader=_Reader(path), no_dist=True)
    except (Exception, dcp.CheckpointException) as error:
        raise _damaged(path, error) from error


def read_all(path: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Whole tensors of a sharded checkpoint, on the CPU.

    Args:
        prefixes: with which their names begin.
    """
    found = {
        name: torch.empty(size, dtype=dtype)
        for name, (size, dtype) in shapes(path).items()
        if name.startswith(prefixes)
    }
    read_tensors(path, found)
    return found


def read_facts(path: Path) -> dict[str, Any]:
    """What a sharded checkpoint holds besides tensors.

    Raises:
        ModelFileError: it is damaged.
    """
    try:
        found = json.loads((path / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if not isinstance(found, dict):
        raise _damaged(path, ValueError(f"{FACTS} holds a {type(found).__name__}"))
    return found


def shapes(path: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Name, shape and type of the tensors in a sharded checkpoint.

    Raises:
        ModelFileError: it is damaged, or holds anything else.
    """
    try:
        entries = _Reader(path).read_metadata().state_dict_metadata
    except Exception as error:
        raise _damaged(path, error) from error
    found = {}
    for name, entry in entries.items():
        if not isinstance(entry, TensorStorageMetadata):
            # torch would run code to read it.
            raise _damaged(path, ValueError(f"{name} is no tensor"))
        found[name] = (entry.size, entry.properties.dtype)
    return found


def _damaged(path: Path, error: BaseException) -> ModelFileError:
    return ModelFileError(
        f"the checkpoint {path} cannot be read ({type(error).__name__}: {error}): delete it, then "
        "the stage goes on from the one before if there is one"
    )


class _Unpickler(pickle.Unpickler):
    """Makes only what torch's list of tensors consists of."""

    def find_class(self, module: str, name: str) -> Any:
        known = name in ALLOWED.get(module, ())
        if not known and not (module == "torch" and isinstance(getattr(torch, name), torch.dtype)):
            raise pickle.UnpicklingError(f"{module}.{name} does not belong into a checkpoint")
        return super().find_class(module, name)


class _Reader(dcp.FileSystemReader):
    """torch's reader, without running code that a checkpoint may contain."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with (Path(self.path) / ".metadata").open("rb") as file:
            metadata: Metadata = _Unpickler(file).load()
        assert metadata.storage_meta is not None
        metadata.storage_meta.load_id = self.load_id
        return metadata

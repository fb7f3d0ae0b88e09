"""The rules of the house: rooms and what each may import, small files, no media committed."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "tasks", "models", "datasets")
DATASETS = {
    "datasets/media",
    "datasets/store",
    "datasets/faces",
    "datasets/shards",
    "datasets/sources",
    "datasets/fetch",
    "datasets/sample",
}
MODELS = {
    "models/files",
    "models/audio",
    "models/unet",
    "models/autoencoder",
    "models/syncnet",
    "models/latentsync",
    "models/judges",
    "models/convert",
}
WORK = {
    "tasks/pages",
    "tasks/runtime",
    "tasks/recipes",
    "tasks/faces",
    "tasks/weights",
    "tasks/sync",
    "tasks/lipsync",
    "tasks/service",
    "tasks/ingest",
    "tasks/registry",
    "tasks/publish",
    "tasks/evaluate",
    "tasks/train",
    "tasks/studies",
}
MAY_IMPORT = {
    "datasets/media": {"datasets/store"},
    "datasets/store": set(),
    "datasets/sources": set(),
    "datasets/faces": {"datasets/media"},
    "datasets/shards": {"datasets/media", "datasets/store"},
    "datasets/fetch": {"datasets/sources", "datasets/store"},
    "datasets/sample": {"datasets/media", "datasets/store"},
    "models/files": set(),
    "models/unet": set(),
    "models/audio": {"models/files"},
    "models/autoencoder": {"models/files"},
    "models/judges": {"models/files"},
    "models/syncnet": {"models/audio", "models/files"},
    "models/latentsync": {"models/audio", "models/autoencoder", "models/files", "models/unet"},
    "models/convert": {"models/audio", "models/files", "models/syncnet", "models/unet"},
    "tasks/pages": set(),
    "tasks/runtime": {"models/files"},
    "tasks/recipes": {"models/latentsync/config.py"},
    "tasks/faces": {"datasets/faces", "datasets/media"},
    # The package `models` itself: a bundle names the version of the networks' source.
    "tasks/weights": {
        "datasets/fetch",
        "datasets/store",
        "models/__init__.py",
        "models/files",
        "models/judges",
        "models/latentsync/config.py",
        "models/unet/lora.py",
    },
    "tasks/sync": {
        "tasks/recipes",
        "tasks/weights",
        "datasets/faces",
        "datasets/media",
        "models/audio",
        "models/files",
        "models/syncnet",
    },
    "tasks/lipsync": {
        "tasks/faces",
        "tasks/pages",
        "models/audio/voice_activity.py",
        "models/audio/windows.py",
        "tasks/runtime",
        "tasks/sync",
        "tasks/weights",
        "datasets/faces",
        "datasets/media",
        "datasets/store",
        "models/files",
        "models/latentsync",
    },
    "tasks/service": {
        "tasks/lipsync",
        "tasks/registry",
        "tasks/runtime",
        "tasks/weights",
        "datasets/fetch",
        "datasets/media",
        "datasets/sources",
        "datasets/store",
        "models/files",
    },
    "tasks/ingest": {
        "tasks/faces",
        "tasks/runtime",
        "tasks/sync",
        "tasks/weights",
        "models/files",
        "models/judges",
        "models/latentsync/config.py",
        *DATASETS,
    },
    "tasks/registry": {
        "tasks/recipes",
        "tasks/runtime",
        "tasks/sync",
        "tasks/weights",
        "datasets/store",
        *MODELS,
    },
    "tasks/publish": {
        "tasks/ingest",
        "tasks/pages",
        "tasks/weights",
        "models/latentsync/config.py",
        *(DATASETS - {"datasets/fetch", "datasets/sample"}),
    },
    "tasks/evaluate": {
        "tasks/lipsync",
        "tasks/pages",
        "tasks/recipes",
        "tasks/registry",
        "tasks/runtime",
        "tasks/sync",
        "tasks/weights",
        "datasets/faces",
        "datasets/media",
        "datasets/shards",
        "datasets/store",
        "models/judges",
        "models/latentsync",
    },
    "tasks/train": {
        "tasks/recipes",
        "tasks/registry",
        "tasks/runtime",
        "tasks/sync",
        "tasks/weights",
        "datasets/faces/points.py",
        "datasets/media",
        "datasets/shards",
        "datasets/store",
        *MODELS,
    },
    "tasks/studies": {
        "tasks/pages",
        "tasks/recipes",
        "tasks/registry",
        "tasks/train",
        "datasets/store",
    },
    "tasks/demo": {"models/files", *WORK, *DATASETS},
    "flows/support": {*WORK, *DATASETS, *MODELS},
    "flows": {"flows/support", "tasks/demo", *WORK, *DATASETS, *MODELS},
    # The folders themselves: `EVERYWHERE` and empty `__init__.py`.
    "datasets": set(),
    "models": set(),
    "tasks": set(),
}
"""A room, or one file of it, that the files of a room may import besides their own."""
EVERYWHERE = ("datasets/errors.py", "datasets/progress.py", "datasets/redact.py")
"""What all of flows, tasks and datasets may import."""
LIBRARIES = {
    "prefect": ("flows",),
    "ray": ("tasks/runtime", "tasks/train/ray_group.py"),
    "mlflow": ("tasks/registry", "tasks/lipsync/mlflow_model.py"),
    "torch": (
        "models",
        "tasks/evaluate",
        "tasks/ingest/image_quality.py",
        "tasks/lipsync",
        "tasks/registry/third_party.py",
        "tasks/runtime/device.py",
        "tasks/sync",
        "tasks/train",
        "tasks/weights",
    ),
    "torchvision": (),
    "torchaudio": (),
    "decord": (),
}
"""Rooms or files that may import a library."""
TABLES_OF_NAMES = {
    ("tasks/ingest/stage.py", "tasks/ingest/image_quality.py"),
    ("tasks/ingest/stage.py", "tasks/sync/voice.py"),
    ("tasks/sync/scorers.py", "tasks/sync/networks.py"),
    ("tasks/train/stages.py", "tasks/train/autoencoder.py"),
    ("tasks/train/stages.py", "tasks/train/syncnet.py"),
    ("tasks/train/stages.py", "tasks/train/unet.py"),
}
"""Imports of own modules inside functions: a name decides what is loaded, and torch with it."""
SETS_UP = "flows/__init__.py"
"""The only package with code: what must happen before prefect is imported."""
MAX_LINES = 600
PICTURES, MOST_PICTURE_BYTES = "docs/pictures", 1_000_000
"""Where pictures may be committed, and how large they may be in all."""
MOST_SHOWN = 10
"""Names that an `__init__.py` may re-export."""


def name_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


FILES = {
    str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8"))
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
BY_NAME = {name_of(path): path for path in FILES}


def room(path: str) -> str:
    return path.rpartition("/")[0]


def imported(tree: ast.AST) -> set[str]:
    """Dotted names of all modules that are imported, at any depth."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module
            assert not node.level, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.add(inner if inner in BY_NAME else node.module)
    return names


def own(tree: ast.AST) -> set[str]:
    """The files of ours that are imported, at any depth."""
    return {BY_NAME[name] for name in imported(tree) if name in BY_NAME}


def is_in(path: str, places: set[str] | tuple[str, ...]) -> bool:
    return any(path == place or path.startswith(f"{place}/") for place in places)


@pytest.mark.parametrize("path", FILES)
def test_rooms_import_what_the_table_says(path: str) -> None:
    home = room(path)
    assert home in MAY_IMPORT, f"{home} is not a room"
    for other in own(FILES[path]) - {path}:
        if room(other) == home or (other in EVERYWHERE and not home.startswith("models")):
            continue
        assert other in MAY_IMPORT[home] or room(other) in MAY_IMPORT[home], (
            f"{path} must not import {other}"
        )
        assert not other.startswith("tasks/demo/") or path == "flows/demo.py"


@pytest.mark.parametrize("path", FILES)
def test_libraries_stay_in_their_rooms(path: str) -> None:
    names = {name.split(".")[0] for name in imported(FILES[path])}
    for library, homes in LIBRARIES.items():
        assert library not in names or is_in(path, homes), f"{path} must not import {library}"


def test_no_module_imports_itself_over_others() -> None:
    edges = {path: own(tree) - {path} for path, tree in FILES.items()}
    while free := {path for path, others in edges.items() if not others & edges.keys()}:
        for path in free:
            del edges[path]
    assert not edges, "these are in circles or import one: " + ", ".join(edges)


def test_own_modules_are_imported_at_the_top() -> None:
    late: set[tuple[str, str]] = set()
    for path, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                late |= {(path, other) for other in own(node)}
    assert late == TABLES_OF_NAMES


def test_errors_of_flows_and_tasks_hold_no_secrets() -> None:
    """Prefect keeps their texts."""
    kept = 0
    for path in sorted((ROOT / "flows").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            names = [ast.unparse(each).partition("(")[0] for each in node.decorator_list]
            if {"flow", "task"} & set(names):
                assert "keep_secrets" in names, f"{path.name}: {node.name}"
                kept += 1
    assert kept >= 20


def test_rooms_have_files() -> None:
    """A folder for one file is a detour; files next to the rooms belong in one."""
    files: dict[str, list[str]] = {}
    for path in FILES:
        if not path.endswith(("/__init__.py", "/__main__.py")):
            files.setdefault(room(path), []).append(path)
    for home, members in files.items():
        assert home.count("/") <= 1, f"{home} is a room within a room"
        if "/" in home:
            assert len(members) >= 2, members
    assert files.get("datasets") == [*EVERYWHERE]
    assert "models" not in files
    assert "tasks" not in files


def test_packages_hold_no_code() -> None:
    for path, tree in FILES.items():
        if not path.endswith("/__init__.py") or path == SETS_UP:
            continue
        shown = 0
        for node in tree.body:
            if isinstance(node, ast.ImportFrom):
                assert room(BY_NAME[node.module or ""]) == room(path), path
                shown += len(node.names)
            elif isinstance(node, ast.Assign):
                assert ast.unparse(node.targets[0]) == "__all__", path
            else:
                assert isinstance(node, ast.Expr), path
                assert isinstance(node.value, ast.Constant), path
        assert shown <= MOST_SHOWN, path


def test_tests_lie_as_what_they_test() -> None:
    homes = {room(path) for path in FILES}
    for package in PACKAGES:
        for path in (ROOT / "tests" / package).rglob("test_*.py"):
            assert str(path.parent.relative_to(ROOT / "tests")) in homes, path


def test_files_are_small() -> None:
    paths = [ROOT / path for path in FILES]
    paths += [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    long = {
        str(path.relative_to(ROOT)): count
        for path in paths
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long


def committed() -> list[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    return listing.stdout.rstrip("\0").split("\0")


def test_no_media_or_weights_are_committed() -> None:
    suffixes = (".mp4", ".avi", ".mpg", ".wav", ".flac", ".pt", ".pth", ".tar", ".safetensors")
    assert not [name for name in committed() if name.endswith(suffixes)]


def test_pictures_are_those_of_the_documents_and_small() -> None:
    kinds = (".png", ".webp", ".jpg", ".jpeg", ".gif", ".svg")
    pictures = [name for name in committed() if name.lower().endswith(kinds)]
    assert not [
        name for name in pictures if room(name) != PICTURES or not name.endswith((".png", ".webp"))
    ]
    assert sum((ROOT / name).stat().st_size for name in pictures) <= MOST_PICTURE_BYTES

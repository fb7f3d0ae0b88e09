"""The rules of the house: imports go one way, files stay small, no media is committed."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flows", "tasks", "models", "datasets")
MAY_IMPORT = {
    "flows": {"flows", "tasks", "models", "datasets"},
    "tasks": {"tasks", "models", "datasets"},
    "models": {"models"},
    "datasets": {"datasets"},
}
LIBRARIES = {
    "prefect": {"flows"},
    "ray": {"tasks"},
    "mlflow": {"tasks"},
    "torch": {"models", "tasks"},
}
MAX_LINES = 600


def sources() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    names = imported(path)
    assert names & set(PACKAGES) <= MAY_IMPORT[package]
    for library, homes in LIBRARIES.items():
        assert library not in names or package in homes, f"{package} must not import {library}"
    assert not names & {"torchvision", "torchaudio", "decord"}


def test_files_are_small() -> None:
    files = [*sources(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    long = {
        str(path.relative_to(ROOT)): count
        for path in files
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert not long


def test_no_media_or_weights_are_committed() -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode:
        pytest.skip("not a git checkout")
    suffixes = (".mp4", ".avi", ".mpg", ".wav", ".flac", ".pt", ".pth", ".tar", ".safetensors")
    assert not [name for name in listing.stdout.split("\0") if name.endswith(suffixes)]

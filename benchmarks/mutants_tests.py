"""Which tests belong to a source file, by what the files import.

No file is named here: a test belongs to a module that it imports, even through a
package that only re-exports the module's names, or inside a function.
"""

import ast
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

TESTS = "tests"
SLOW = ("e2e", "real")
"""Folders of tests that start servers or need footage, and are never run here."""


@dataclass(frozen=True)
class _Module:
    """One file of the repository and its imports."""

    name: str
    path: Path
    imports: frozenset[str]
    """Names of modules, and of things in modules (`module.thing`), as written."""
    passed_on: dict[str, str] = field(default_factory=dict)
    """Own name -> the `module.thing` that it stands for."""


class ImportGraph:
    """Who imports whom among the files of a repository.

    Args:
        root: the folder from which the packages are imported.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        files = [
            path
            for path in sorted(root.rglob("*.py"))
            if not any(part.startswith(".") for part in path.relative_to(root).parts)
        ]
        self._names = {_module_name(path.relative_to(root)): path for path in files}
        self._modules = {name: _read(name, path) for name, path in self._names.items()}
        self._imported = {
            name: {each for text in module.imports for each in self._meant(text)} - {name}
            for name, module in self._modules.items()
        }

    def _meant(self, text: str) -> set[str]:
        """The modules that an import touches: the one named, and where its name comes from."""
        found: set[str] = set()
        seen: set[str] = set()
        while text not in seen:
            seen.add(text)
            if text in self._modules:
                return found | {text}
            home, _, thing = text.rpartition(".")
            if home not in self._modules:
                return found
            found.add(home)
            text = self._modules[home].passed_on.get(thing, home)
        return found

    def tests_of(self, source: Path, reach: int = 1) -> list[Path]:
        """The test files of a source file, relative to the root, in the order to run them.

        First the one that mirrors its path, then those that import it, nearest first; among
        equals those with the fewest other imports. If no test is within `reach`, the nearest are
        taken.

        Args:
            source: relative to the root.
            reach: how many imports away the file may be from a test; 1 is a direct import.
        """
        name = _module_name(source)
        distances = self._distances(name)
        tests = {
            each: distance
            for each, distance in distances.items()
            if _is_test(self._names[each].relative_to(self.root))
        }
        if not tests:
            return []
        reach = max(reach, min(tests.values()))
        mirrors = {
            each: _mirrors(self._names[each].relative_to(self.root), source) for each in tests
        }
        chosen = [each for each in tests if mirrors[each] or tests[each] <= reach]

        def order(each: str) -> tuple[bool, int, int, str]:
            return not mirrors[each], tests[each], len(self._imported[each]), each

        return [self._names[each].relative_to(self.root) for each in sorted(chosen, key=order)]

    def _distances(self, name: str) -> dict[str, int]:
        """How many imports each module is away from `name`; helpers of tests do not count."""
        importers: dict[str, set[str]] = {}
        for each, imported in self._imported.items():
            for other in imported:
                importers.setdefault(other, set()).add(each)
        found = {name: 0}
        waiting = deque([name])
        while waiting:
            here = waiting.popleft()
            free = here.split(".")[0] == TESTS
            for each in importers.get(here, ()):
                distance = found[here] + (not free)
                if distance < found.get(each, len(self._modules) + 1):
                    found[each] = distance
                    waiting.append(each)
        return found


def _module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_test(path: Path) -> bool:
    return (
        path.parts[0] == TESTS and path.name.startswith("test_") and not set(path.parts) & set(SLOW)
    )


def _mirrors(test: Path, source: Path) -> bool:
    """Whether a test has its file's name, and is flat or in the same folders."""
    folders = test.parent.parts[1:]
    return test.stem == f"test_{source.stem.lstrip('_')}" and folders in ((), source.parent.parts)


def _read(name: str, path: Path) -> _Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    imports: set[str] = set()
    passed_on: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            home = _home(node, package)
            imports |= {f"{home}.{alias.name}" for alias in node.names}
            if node in tree.body:
                passed_on |= {
                    alias.asname or alias.name: f"{home}.{alias.name}" for alias in node.names
                }
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Modules that are imported late are named in tables, and patched ones in calls.
            imports |= {node.value} if "." in node.value else set()
    return _Module(name, path, frozenset(imports), passed_on)


def _home(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    base = parts[: len(parts) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])

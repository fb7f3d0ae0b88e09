"""Long lists on their way from task to task."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Parcel(Generic[T]):
    """Something that Prefect hands on unopened.

    Prefect looks for futures in everything that tasks take and return, item by item and several
    times: in lists, dicts, dataclasses and its own annotations. It does not look into a plain
    object; a dataclass would not do. `python -m benchmarks.parcels` measures what that saves.
    """

    __slots__ = ("content",)

    def __init__(self, content: T) -> None:
        self.content = content

"""Long lists on their way from task to task."""

from typing import Generic, TypeVar

T = TypeVar("T")


class Parcel(Generic[T]):
    """Something that Prefect hands on unopened.

    In everything that tasks take and give Prefect looks for futures, item by item and several
    times: in lists, dicts, dataclasses and its own annotations. In a plain object it does not, and
    a dataclass would not be one. `python -m benchmarks.parcels` says what that saves.
    """

    __slots__ = ("content",)

    def __init__(self, content: T) -> None:
        self.content = content

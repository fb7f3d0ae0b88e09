"""Fields of dataclasses as parameters of a flow, one by one."""

import inspect
from dataclasses import dataclass, fields
from typing import Any

import pytest
from prefect import Flow, flow
from prefect.utilities.callables import parameter_schema

from flows.refresh_dataset import refresh_dataset
from flows.relabel_dataset import relabel_dataset
from flows.support import cli
from flows.support.parameters import Limits, split, taking
from tasks.ingest.verdicts import Thresholds

LIMITS = {
    "min_confidence",
    "max_offset_frames",
    "min_face_px",
    "min_coverage",
    "min_sharpness",
    "max_yaw_deg",
    "min_brightness",
    "max_brightness",
    "max_bad_share",
    "min_quality",
    "test_fraction",
    "duplicates",
}
REFRESH = {
    *("source", "input", "output", "resolution", "scorer", "scorer_weights", "device"),
    *("face_choice", "gpu_share", "quality", "sample_clips", "workers", "ray_address"),
    *("deadline_s", "downloads", "download_mb_per_s", "download_deadline_s", "max_height"),
    *("cookies", "keep_downloads", "forget_missing", "retry_failed", "work"),
    *("download_max_gb", "allow_private", "allow_outside", "allow_scheme"),
    *("crop", "offsets", "keep_versions", "keep_days"),
}
"""Names that deployments and scripts give: none may go."""


@dataclass(frozen=True)
class Fetching:
    """How.

    Args:
        speed: as fast as this,
            and no faster.
        name: of it.
    """

    speed: float = 2.0
    name: str | None = None


def sample(source: str, count: int = 1, **options: Any) -> Any:
    """Do it.

    Args:
        source: from here.
        count: so often.

    Returns:
        what: was given.
    """
    (fetching,) = split(options, Fetching)
    return source, count, fetching


@pytest.mark.parametrize(
    ("deployed", "names"),
    [
        (refresh_dataset, REFRESH | LIMITS),
        (relabel_dataset, {"dataset", "keep_versions", "keep_days"} | LIMITS),
    ],
)
def test_deployments_have_every_parameter_with_its_text(
    deployed: Flow[Any, Any], names: set[str]
) -> None:
    schema = parameter_schema(deployed)
    assert set(schema.properties) == names
    assert all(each["description"] for each in schema.properties.values())
    assert schema.properties["min_confidence"]["default"] is None
    helps = cli.argument_helps(inspect.getdoc(deployed.fn) or "")
    assert {name for name, text in helps.items() if text} == names


def test_limits_are_the_thresholds_and_what_else_a_relabelling_changes() -> None:
    thresholds = [each.name for each in fields(Thresholds)]
    own = ["test_fraction", "duplicates"]
    assert [each.name for each in fields(Limits)] == [*thresholds, *own]


def test_fields_are_options_of_the_command_line() -> None:
    made = taking(Fetching)(sample)
    assert made is sample
    argv = ["a", "--speed", "3", "--name", "x"]
    assert cli.parse(made, argv) == {"source": "a", "speed": 3.0, "name": "x"}
    text = inspect.getdoc(made) or ""
    assert cli.argument_helps(text) == {
        "source": "from here.",
        "count": "so often.",
        "speed": "as fast as this, and no faster.",
        "name": "of it.",
    }
    assert text.endswith("Returns:\n    what: was given.")


def test_prefect_checks_and_passes_them() -> None:
    @taking(Fetching)
    def inner(source: str, **options: Any) -> Any:
        return source, *split(options, Fetching)

    made = flow(inner)
    given = made.validate_parameters({"source": "a", "speed": "4"})
    assert given == {"source": "a", "speed": 4.0, "name": None}
    assert made.fn(**given) == ("a", Fetching(4.0))
    assert made.fn("a") == ("a", Fetching())


def test_what_is_no_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="no parameter tempo"):
        split({"tempo": 3}, Fetching)
    with pytest.raises(TypeError, match="two parameters speed"):

        @taking(Fetching)
        def twice(speed: float, **options: Any) -> None: ...

    with pytest.raises(TypeError, match=r"does not end in \*\*options"):

        @taking(Fetching)
        def closed(speed: float) -> None: ...

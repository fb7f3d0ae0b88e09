"""Flow parameters that belong together: one dataclass in the code, still given one by one.

    @flow(name="relabel-dataset")
    @taking(Limits)
    def relabel_dataset(dataset: str, **options: Any) -> dict[str, Any]:
        (limits,) = split(options, Limits)

On the command line, in a deployment and in Prefect's forms the fields of `Limits` are parameters
of their own, so `--min-confidence 4` and `-p min_confidence=4` do not depend on how they are
grouped here.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, get_type_hints

F = TypeVar("F", bound=Callable[..., Any])
ARGS, RETURNS = "\nArgs:\n", "\n\nReturns:\n"


@dataclass(frozen=True)
class Limits:
    """What a clip must meet, and how many speakers are kept for testing. None keeps what the
    dataset has.

    Args:
        min_confidence: smallest confidence in the offset, in the scorer's units; for a new dataset
            the scorer's own. Limits that are not given stay as the dataset has them.
        max_offset_frames: largest offset of the audio, frames at 25 fps.
        min_face_px: smallest face in the source, pixels.
        min_coverage: smallest share of frames on which the face was found.
        min_sharpness: smallest variance of the Laplacian.
        max_yaw_deg: furthest turn of the head, degrees.
        min_brightness: darkest face, mean grey level.
        max_brightness: brightest face, mean grey level.
        max_bad_share: largest share of frames in which lips and sound do not belong together.
        min_quality: smallest image quality, where it is measured.
        test_fraction: share of the speakers that are kept for testing; for a new dataset 0.2.
        duplicates: what counts as the same content, which is published once: recordings (in any
            encoding) or files (only equal ones); for a new dataset recordings.
    """

    min_confidence: float | None = None
    max_offset_frames: float | None = None
    min_face_px: float | None = None
    min_coverage: float | None = None
    min_sharpness: float | None = None
    max_yaw_deg: float | None = None
    min_brightness: float | None = None
    max_brightness: float | None = None
    max_bad_share: float | None = None
    min_quality: float | None = None
    test_fraction: float | None = None
    duplicates: str | None = None


@dataclass(frozen=True)
class CommandForm:
    """How a flow's command takes its parameters, where that is more than an option for each."""

    positions: tuple[str, ...]
    """Parameters that can also be given by position, though they have a default."""
    needed: tuple[str, ...]
    """Those without which the command is not run."""
    check: Callable[[Mapping[str, Any]], object]
    """Raises a `UserError` for values of a file that are no parameters, or wrong."""
    schema: Callable[[], Mapping[str, Any]]
    """The JSON schema of such a file."""


FORM = "command_form"


def shown_as(form: CommandForm) -> Callable[[F], F]:
    """Give a flow's function a `CommandForm`: its command takes `--job` and `--schema`, too."""

    def with_form(function: F) -> F:
        setattr(function, FORM, form)
        return function

    return with_form


def taking(*groups: type, own: Sequence[str] = ()) -> Callable[[F], F]:
    """Give a function that ends in `**options` the fields of dataclasses as keyword parameters.

    The function itself is unchanged, in its own file: its signature, annotations and the
    `Args:` of its docstring become what a person would have written.

    Args:
        groups: dataclasses whose fields all have defaults and are explained in an `Args:` section.
        own: fields that are left out, such as those that the function has as parameters itself.

    Raises:
        TypeError: two parameters have the same name, or a field has no default.
    """

    def with_fields(function: F) -> F:
        signature = inspect.signature(function)
        *before_rest, rest = signature.parameters.values()
        if rest.kind is not inspect.Parameter.VAR_KEYWORD:
            raise TypeError(f"{function.__name__} does not end in **options")
        hints = get_type_hints(function)
        del hints[rest.name]
        added, texts = [], []
        for group in groups:
            kinds = get_type_hints(group)
            texts.append(_args(group).rstrip("\n"))
            for field in fields(group):
                if field.name in own:
                    continue
                if field.default is MISSING:
                    raise TypeError(f"{group.__name__}.{field.name} has no default")
                added.append(
                    inspect.Parameter(
                        field.name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=field.default,
                        annotation=kinds[field.name],
                    )
                )
                if field.name in hints:
                    raise TypeError(f"{function.__name__} has two parameters {field.name}")
                hints[field.name] = kinds[field.name]
        before, returns, after = (inspect.getdoc(function) or "").partition(RETURNS)
        function.__doc__ = "\n".join([before, *texts]) + returns + after
        function.__annotations__ = hints
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*before_rest, *added]
        )
        return function

    return with_fields


def split(options: Mapping[str, Any], *groups: type) -> list[Any]:
    """The dataclasses filled from the `**options` of a function; missing fields keep their
    defaults.

    Raises:
        TypeError: an option is not a field of any of them.
    """
    names = [{field.name for field in fields(group)} for group in groups]
    unknown = options.keys() - set().union(*names)
    if unknown:
        raise TypeError(f"there is no parameter {' or '.join(sorted(unknown))}")
    return [
        group(**{name: options[name] for name in options.keys() & own})
        for group, own in zip(groups, names, strict=True)
    ]


def _args(group: type) -> str:
    return (inspect.getdoc(group) or "").partition(ARGS)[2]

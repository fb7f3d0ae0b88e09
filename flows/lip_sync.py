"""Make the person in a video say something else.

    python -m flows.lip_sync VIDEO AUDIO OUT.mp4 --model models:/latentsync@champion
    python -m flows.lip_sync --job job.json

The output has the input's size, frame rate and surroundings and lasts as long as the audio unless
--length says otherwise. Where several people are seen, the lips of one are repainted, and a note
says whose. A job that was interrupted goes on where it stopped.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from datasets.errors import UserError
from flows.support.artifacts import say
from flows.support.cli import run
from flows.support.frame_progress import FrameLines
from flows.support.parameters import CommandForm, shown_as, taking
from flows.support.secrets import keep_secrets
from tasks.lipsync.job import LipSyncJob, job_of, job_schema
from tasks.lipsync.result import LipSyncResult
from tasks.lipsync.video import preview_job, run_job
from tasks.registry.published import resolve_model
from tasks.registry.tracking import check_uri, default_uri
from tasks.weights.licences import bundle_licence

PLACES = ("video", "audio", "output")
ELSEWHERE = {
    "model": "registered model, published model, or a bundle folder",
    "device": "cpu, cuda, cuda:N or mps",
    "bf16": "run the networks in bf16",
    "adapter": "folder that adapt-model wrote for this model",
    "preview": "write who is seen in the video instead",
    "tracking_uri": "MLflow's store",
}
"""Parameters that are no part of a job: with what and where it is done."""


@task(name="repaint", cache_policy=NO_CACHE)
@keep_secrets
def repaint(
    job: LipSyncJob, bundle: Path, device: str, bf16: bool | None, adapter: Path | None
) -> LipSyncResult:
    """Find the face, repaint it, and write the video."""
    return run_job(job, bundle, device=device, bf16=bf16, adapter=adapter, progress=FrameLines(say))


class LipSyncSummary(TypedDict):
    """What the flow returns."""

    output: str
    frames: int
    faces_found: int
    """Frames that show a new mouth."""
    seconds: float
    notes: list[str]
    """Sentences about the inputs."""


class PreviewSummary(TypedDict):
    """What the flow returns for `--preview`."""

    page: str
    facts: str
    """The same facts as JSON."""
    people: int


def _preview(job: LipSyncJob) -> PreviewSummary:
    found, page, facts = preview_job(job, FrameLines(say))
    for person in found.people:
        mark = " (auto)" if person.chosen else ""
        say(
            f"number {person.number}{mark}: seen for {person.seen_s:.1f} s, speaks for "
            f"{person.speaks_s:.1f} s, {person.width_px} pixels wide, at "
            f"{person.x},{person.y}@{person.at_s:.2f}"
        )
    say(f"pictures: {page}")
    return {"page": str(page.resolve()), "facts": str(facts.resolve()), "people": len(found.people)}


def check_file(values: Mapping[str, Any]) -> None:
    """Check what a job file holds: options of a job, and where it is done.

    Raises:
        UserError: names what is unknown or wrong.
    """
    job = {name: value for name, value in values.items() if name not in ELSEWHERE}
    if values.keys() & {"job", "schema"}:
        raise UserError("a job file cannot name another one: take job and schema out")
    # What it lacks may be given beside it.
    stand_ins = {"video": "video", "audio": "audio", "output": "output"}
    job_of(stand_ins | job)


def file_schema() -> dict[str, Any]:
    """The JSON schema of a job file: that of a job, and where it is done."""
    schema = job_schema()
    kinds = {"bf16": "boolean", "preview": "boolean"}
    more = {
        name: {"type": kinds.get(name, "string"), "description": text}
        for name, text in ELSEWHERE.items()
    }
    return schema | {"properties": schema["properties"] | more}


@flow(name="lip-sync")
@keep_secrets
@shown_as(CommandForm(PLACES, ("video", "output"), check_file, file_schema))
@taking(LipSyncJob, own=PLACES)
def lip_sync(
    video: str = "",
    audio: str = "",
    output: str = "",
    model: str = "models:/latentsync@champion",
    device: str = "cpu",
    bf16: bool | None = None,
    adapter: str | None = None,
    preview: bool = False,
    tracking_uri: str | None = None,
    **options: Any,
) -> LipSyncSummary | PreviewSummary:
    """Make the lips in a video follow other speech.

    Args:
        model: registered model such as models:/latentsync@champion, a published one (latentsync-1.5
            or latentsync-1.6), or a bundle folder.
        device: cpu, cuda, cuda:N or mps.
        bf16: run the networks in bf16; by default on GPUs that are made for it.
        adapter: folder that adapt-model wrote for this model.
        preview: instead of the output, write a page next to it that shows who is seen in the video,
            with numbers, pictures and who speaks when.
        tracking_uri: MLflow's store; by default a SQLite file under runs.

    Returns:
        output, frames, faces_found, seconds and notes (sentences about the inputs); for a preview
        its page, its facts and the number of people.
    """
    job = job_of({"video": video, "audio": audio, "output": output, **options}, not preview)
    if preview:
        return _preview(job)
    uri = check_uri(tracking_uri or default_uri())
    bundle = resolve_model(model, uri, say)
    if licence := bundle_licence(bundle):
        say(licence)
    result = repaint(job, bundle, device, bf16, Path(adapter) if adapter else None)
    say(
        f"{result.output}: {result.frames} frames, {result.faces_found} of them with a new mouth, "
        f"in {result.seconds:.0f} s"
    )
    for note in result.notes:
        say(f"  {note}")
    return {
        "output": str(result.output.resolve()),
        "frames": result.frames,
        "faces_found": result.faces_found,
        "seconds": result.seconds,
        "notes": list(result.notes),
    }


main = partial(run, lip_sync)

if __name__ == "__main__":
    raise SystemExit(main())

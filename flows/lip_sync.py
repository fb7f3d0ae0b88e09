"""Make the person in a video say something else.

    python -m flows.lip_sync VIDEO AUDIO OUT.mp4 --model models:/latentsync@champion

The output has the input's size, frame rate and surroundings and lasts as long as the audio unless
--length says otherwise. Where several people are seen, the lips of one are repainted, and a note
says whose. A job that was interrupted goes on where it stopped.
"""

from functools import partial
from pathlib import Path
from typing import TypedDict

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from flows.support.artifacts import say
from flows.support.cli import run
from flows.support.frame_progress import FrameLines
from flows.support.secrets import keep_secrets
from tasks.lipsync.video import LipSyncResult, lip_sync_video, preview_video
from tasks.registry.tracking import check_uri, default_uri
from tasks.registry.versions import resolve
from tasks.weights.licences import bundle_licence


@task(name="repaint", cache_policy=NO_CACHE)
@keep_secrets
def repaint(
    video: Path,
    audio: Path,
    output: Path,
    bundle: Path,
    device: str,
    steps: int,
    guidance: float,
    seed: int,
    bf16: bool | None,
    reference: str,
    fps: float | None,
    face: str,
    length: str,
    tone_map: bool,
    match: bool | None,
    occlusion: str,
    adapter: Path | None,
) -> LipSyncResult:
    """Find the face, repaint it, and write the video."""
    return lip_sync_video(
        video,
        audio,
        output,
        bundle,
        device=device,
        steps=steps,
        guidance=guidance,
        seed=seed,
        bf16=bf16,
        reference=reference,
        fps=fps,
        face=face,
        length=length,
        tone_map=tone_map,
        match=match,
        occlusion=occlusion,
        adapter=adapter,
        progress=FrameLines(say),
    )


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


def _preview(
    video: Path, audio: Path, output: Path, fps: float | None, length: str
) -> PreviewSummary:
    found, page, facts = preview_video(
        video, audio, output, fps=fps, length=length, progress=FrameLines(say)
    )
    for person in found.people:
        mark = " (auto)" if person.chosen else ""
        say(
            f"number {person.number}{mark}: seen for {person.seen_s:.1f} s, speaks for "
            f"{person.speaks_s:.1f} s, {person.width_px} pixels wide, at "
            f"{person.x},{person.y}@{person.at_s:.2f}"
        )
    say(f"pictures: {page}")
    return {"page": str(page.resolve()), "facts": str(facts.resolve()), "people": len(found.people)}


@flow(name="lip-sync")
@keep_secrets
def lip_sync(
    video: str,
    audio: str,
    output: str,
    model: str = "models:/latentsync@champion",
    device: str = "cpu",
    steps: int = 20,
    guidance: float = 1.5,
    seed: int = 1247,
    bf16: bool | None = None,
    reference: str = "",
    fps: float | None = None,
    face: str = "auto",
    length: str = "auto",
    tone_map: bool = False,
    match: bool | None = None,
    occlusion: str = "keep",
    adapter: str | None = None,
    preview: bool = False,
    tracking_uri: str | None = None,
) -> LipSyncSummary | PreviewSummary:
    """Make the lips in a video follow other speech.

    Args:
        video: video with a face that looks towards the camera.
        audio: the speech; any file with sound.
        output: video to write: .mp4, .m4v, .mov, .mkv or .webm.
        model: registered model such as models:/latentsync@champion, or a bundle folder.
        device: cpu, cuda, cuda:N or mps.
        steps: sampler steps; 20 to 50 as published.
        guidance: weight of the audio; 1 to 3 as published.
        seed: seed of the initial noise.
        bf16: run the networks in bf16; by default on GPUs that are made for it.
        reference: what shows the network who the person is: frame (each frame's own face, as the
            published programs do it), still (a calm face in the same pose) or away (another
            moment); by default what the model was made for.
        fps: convert the video to this frame rate first; 25 is what the networks were trained at
            and what the published program does. By default the video keeps its own, and frames
            of 50 or 60 fps are repainted in two interleaved sequences of 25 or 30.
        face: whose lips, if several people are seen: auto (who speaks in the video, as far as
            its own sound tells), largest, a point such as 320,180@2.5 (pixels, seconds), or a
            number from --preview.
        length: auto (as long as the speech; a longer video is cut, a shorter one runs back and
            forth), cut (as long as the shorter of the two), back-and-forth, loop or hold (how a
            shorter video is made to last), or keep (as long as the video, which stays as it was
            after the speech, with its own sound).
        tone_map: write HDR as an ordinary picture in BT.709; by default HDR stays HDR.
        match: shift the colours of the new mouth to match the face around it; by default unless
            the reference is frame.
        occlusion: keep (a hand or a thing in front of the face stays in front of the new mouth) or
            off (it is painted over, as the published programs do it).
        adapter: folder that adapt-model wrote for this model.
        preview: instead of the output, write a page next to it that shows who is seen in the video,
            with numbers, pictures and who speaks when.
        tracking_uri: MLflow's store; by default a SQLite file under runs.

    Returns:
        output, frames, faces_found, seconds and notes (sentences about the inputs); for a preview
        its page, its facts and the number of people.
    """
    if preview:
        return _preview(Path(video), Path(audio), Path(output), fps, length)
    uri = check_uri(tracking_uri or default_uri())
    bundle = resolve(model, uri)
    if licence := bundle_licence(bundle):
        say(licence)
    result = repaint(
        Path(video),
        Path(audio),
        Path(output),
        bundle,
        device,
        steps,
        guidance,
        seed,
        bf16,
        reference,
        fps,
        face,
        length,
        tone_map,
        match,
        occlusion,
        Path(adapter) if adapter else None,
    )
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

"""Give the person in a video other words.

    python -m flows.lip_sync VIDEO AUDIO OUT.mp4 --model models:/latentsync@champion

The output has the input's size, frame rate and surroundings and lasts as long as the
audio; a shorter video runs forth and back. Frames without a face stay as they are.
"""

from pathlib import Path
from typing import Any

from flows.support.cli import run
from flows.support.prefect_local import local_environment

local_environment(None)

from prefect import flow, task  # noqa: E402
from prefect.cache_policies import NO_CACHE  # noqa: E402

from flows.support.artifacts import say  # noqa: E402
from flows.support.frame_progress import FrameLines  # noqa: E402
from tasks.lipsync.video import LipSyncResult, lip_sync_video  # noqa: E402
from tasks.registry.tracking import checked_uri, default_uri  # noqa: E402
from tasks.registry.versions import resolve  # noqa: E402


@task(name="repaint", cache_policy=NO_CACHE)
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
    tone_map: bool,
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
        tone_map=tone_map,
        progress=FrameLines(say),
    )


@flow(name="lip-sync")
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
    tone_map: bool = False,
    tracking_uri: str | None = None,
) -> dict[str, Any]:
    """Make the lips of a video follow other speech.

    The output is as long as the speech: a longer video is cut, a shorter one is played forth
    and back until the speech ends.

    Args:
        video: with a face that looks towards the camera.
        audio: the speech; any file with sound. It decides the length of the output.
        output: video to write: .mp4, .m4v, .mov, .mkv or .webm.
        model: registered model such as models:/latentsync@champion, or a bundle folder.
        device: cpu, cuda, cuda:N or mps.
        steps: of the sampler; 20 to 50 as published.
        guidance: weight of the audio; 1 to 3 as published.
        seed: of the initial noise.
        bf16: run the networks in bf16; by default on GPUs that are made for it.
        reference: what shows the network who it is: frame (each frame's own face, as the published
            programs do it), still (a calm face in the same pose) or away (another moment); by
            default what the model was made for.
        fps: convert the video to this frame rate first; 25 is what the networks were trained at
            and what the published program does. By default the video keeps its own, and frames
            of 50 or 60 fps are repainted in two interleaved sequences of 25 or 30.
        tone_map: write HDR as an ordinary picture in BT.709; by default HDR stays HDR.
        tracking_uri: MLflow's store; by default a SQLite file under runs.

    Returns:
        output, frames, faces_found, seconds and notes (sentences about the inputs).
    """
    uri = checked_uri(tracking_uri or default_uri())
    bundle = resolve(model, uri)
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
        tone_map,
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


if __name__ == "__main__":
    raise SystemExit(run(lip_sync))

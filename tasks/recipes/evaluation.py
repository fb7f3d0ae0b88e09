"""The definition of an evaluation: which clips, how they are generated, which networks judge."""

from dataclasses import dataclass

PROTOCOL = 7
"""Raised by one whenever a change of the program makes older numbers incomparable."""


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """How a model is evaluated (LatentSync, section 4: 30 test clips, 20 steps, 1.5)."""

    clips: int = 30
    """Clips of the test split, chosen by a hash of their ids. Fewer are used if the
    split has fewer, and the numbers' `n` says so."""
    frames_per_clip: int = 125
    """Most frames generated per clip, at 25 fps from its start."""
    silent_clips: int = 8
    """Clips, the first ones, that are also generated from silence; 0: nothing is known about the
    lips in silence, and promotion refuses."""
    silent_frames: int = 50
    """Most frames generated from silence per clip, no more than `frames_per_clip`."""
    transcripts: str = ""
    """Folder of CLIP_ID.txt, what is said in a clip, by which the closure of the lips is measured;
    empty: it is not."""
    steps: int = 20
    """Steps of the sampler."""
    guidance: float = 1.5
    """Weight of the audio against no audio."""
    seed: int = 1247
    """Seed of the initial noise."""
    reference: str = ""
    """What shows the network who the person is: frame, still or away (`tasks.lipsync.references`);
    empty: what the model was made for."""
    windows_at_once: int = 0
    """Windows that go through the model at once, of several clips where it is more than 1; 0: 16 on
    GPUs and 1 elsewhere. Pictures differ by rounding only."""
    protocol: str = "own"
    """`own`, or `latentsync`: also FVD by one window of each of 30 clips, as published."""
    image_frames: int = 2048
    """Most frames, spread over all clips, that FID compares on either side; at least one
    of each clip."""
    video_windows: int = 256
    """Most windows of 16 frames that FVD compares on either side; at least one of each
    clip."""
    clip_list: str = ""
    """The clips.json of an earlier evaluation: the same clips again; empty: choose."""
    syncnet_weights: str = ""
    """File syncnet_v2.model; empty: Sync-C and Sync-D by a bundle's own sync network."""
    stable_syncnet_weights: str = ""
    """StableSyncNet that says which windows are in sync: a bundle, a checkpoint or a name in the
    weights table; empty: a bundle's own sync network."""
    judge_bundle: str = ""
    """Bundle whose sync network judges if there is no syncnet_v2; empty: the model's own.
    Two models are only comparable when the same network judged both."""
    inception_weights: str = ""
    """File inception-2015-12-05.pt; empty: a seeded network of the same kind."""
    lpips_weights: str = ""
    """File vgg16.pt, or torchvision's VGG16; empty: a seeded network of the same kind."""
    trust: tuple[str, ...] = ()
    """TorchScript files that may run although the weights table does not know their sha256."""
    i3d_weights: str = ""
    """File i3d_torchscript.pt; empty: a seeded network of the same kind."""
    videomae_weights: str = ""
    """File or folder of a VideoMAE, by which cd-FVD and the kernel distance see motion; empty: a
    small seeded one."""
    identity_weights: str = ""
    """ONNX file of a face embedding, such as sface; empty: the identity is not measured."""

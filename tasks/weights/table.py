"""Every weight file the project can use. None is shipped; `tasks.weights.store` fetches them."""

from dataclasses import dataclass

_HF = "https://huggingface.co"
_LATENTSYNC_15 = f"{_HF}/ByteDance/LatentSync-1.5/resolve/main"
_LATENTSYNC_16 = f"{_HF}/ByteDance/LatentSync-1.6/resolve/main"
_NVIDIA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics"

_OPENRAIL = "OpenRAIL++"
_NVIDIA_LICENCE = "NVIDIA Source Code License (non-commercial)"


@dataclass(frozen=True)
class Weight:
    """One file."""

    name: str
    """Its name in this project."""
    url: str
    """The address it comes from."""
    file: str
    """Its path below the weights folder and below a mirror."""
    licence: str
    """As stated by its authors; shown before and after fetching."""
    needed_by: str
    """What does not work without it."""
    size: int | None = None
    """Bytes; None if not known beforehand."""
    sha256: str | None = None
    """None if not known beforehand: then recorded at first use and checked afterwards."""
    binds: str = ""
    """The licence in `tasks.weights.licences` that binds what is made with it, too: whoever uses it
    must accept that by name."""


WEIGHTS: tuple[Weight, ...] = (
    Weight(
        name="latentsync-1.5-unet",
        url=f"{_LATENTSYNC_15}/latentsync_unet.pt",
        file="latentsync-1.5/latentsync_unet.pt",
        licence=_OPENRAIL,
        needed_by="lip-sync with the published model at 256, fine-tuning from it",
        size=5_072_348_184,
        sha256="6440b49a7ccceff56cdc001f5f17605216337f5bbd66fa360139768926e23f51",
    ),
    Weight(
        name="latentsync-1.5-syncnet",
        url=f"{_LATENTSYNC_15}/stable_syncnet.pt",
        file="latentsync-1.5/stable_syncnet.pt",
        licence=_OPENRAIL,
        needed_by="stage 2's SyncNet loss, scorer stable-syncnet",
        size=1_605_324_224,
        sha256="dccc464554b85ed939ae5cf63000e5803d4b21d8c7dae2260544a10aeb1ac483",
    ),
    Weight(
        name="latentsync-1.6-unet",
        url=f"{_LATENTSYNC_16}/latentsync_unet.pt",
        file="latentsync-1.6/latentsync_unet.pt",
        licence=_OPENRAIL,
        needed_by="lip-sync with the published model at 512, fine-tuning from it",
    ),
    Weight(
        name="latentsync-1.6-syncnet",
        url=f"{_LATENTSYNC_16}/stable_syncnet.pt",
        file="latentsync-1.6/stable_syncnet.pt",
        licence=_OPENRAIL,
        needed_by="stage 2's SyncNet loss at 512",
    ),
    Weight(
        name="sd-vae-ft-mse",
        url=f"{_HF}/stabilityai/sd-vae-ft-mse/resolve/main/diffusion_pytorch_model.safetensors",
        file="sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
        licence="MIT",
        needed_by="every full-size recipe and the published models",
    ),
    Weight(
        name="taesd",
        url=f"{_HF}/madebyollin/taesd/resolve/main/diffusion_pytorch_model.safetensors",
        file="taesd/diffusion_pytorch_model.safetensors",
        licence="MIT",
        needed_by="recipes taesd-256 and syncdiff-taesd",
    ),
    Weight(
        name="sd-1.5-unet",
        url=(
            f"{_HF}/stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/main/unet/"
            "diffusion_pytorch_model.safetensors"
        ),
        file="stable-diffusion-v1-5/unet/diffusion_pytorch_model.safetensors",
        licence="CreativeML OpenRAIL-M",
        needed_by="stage 1 of the full-size recipes, started from scratch",
    ),
    Weight(
        name="whisper-tiny",
        url=(
            "https://openaipublic.azureedge.net/main/whisper/models/"
            "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9/tiny.pt"
        ),
        file="whisper/tiny.pt",
        licence="MIT",
        needed_by="every full-size recipe and the published models",
        size=75_572_083,
        sha256="65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9",
    ),
    Weight(
        name="videomae-v2",
        url=f"{_LATENTSYNC_15}/auxiliary/vit_g_hybrid_pt_1200e_ssv2_ft.pth",
        file="videomae-v2/vit_g_hybrid_pt_1200e_ssv2_ft.pth",
        licence="CC-BY-NC-4.0 (VideoMAE V2)",
        needed_by="stage 2's TREPA loss, cd-FVD",
        size=2_023_804_201,
        sha256="5a210a92f035dff30c53b46157b612e7a1a5d3c99700e1b2d71da5c399ca7e70",
    ),
    Weight(
        name="videomae-base",
        url=f"{_HF}/MCG-NJU/videomae-base/resolve/main/model.safetensors",
        file="videomae-base/model.safetensors",
        licence="CC-BY-NC-4.0",
        needed_by="TREPA with a smaller network",
    ),
    Weight(
        name="videomae-base-config",
        url=f"{_HF}/MCG-NJU/videomae-base/resolve/main/config.json",
        file="videomae-base/config.json",
        licence="CC-BY-NC-4.0",
        needed_by="TREPA with a smaller network",
    ),
    Weight(
        name="syncnet-v2",
        url="https://www.robots.ox.ac.uk/~vgg/software/lipsync/data/syncnet_v2.model",
        file="syncnet/syncnet_v2.model",
        licence="none stated",
        needed_by="Sync-C and Sync-D as published, scorer syncnet-v2",
        size=54_573_114,
        sha256="961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
    ),
    Weight(
        name="inception-2015",
        url=f"{_NVIDIA}/inception-2015-12-05.pt",
        file="metrics/inception-2015-12-05.pt",
        licence=_NVIDIA_LICENCE,
        needed_by="FID by the network of published numbers, which use other crops and sample sizes",
    ),
    Weight(
        name="i3d",
        url=f"{_LATENTSYNC_15}/auxiliary/i3d_torchscript.pt",
        file="metrics/i3d_torchscript.pt",
        licence="Apache-2.0 (I3D, DeepMind)",
        needed_by="FVD by the network of published numbers, which use other crops and sample sizes",
        size=51_235_320,
        sha256="bec6519f66ea534e953026b4ae2c65553c17bf105611c746d904657e5860a5e2",
    ),
    Weight(
        name="vgg16-lpips",
        url=f"{_NVIDIA}/vgg16.pt",
        file="metrics/vgg16.pt",
        licence=_NVIDIA_LICENCE,
        needed_by="LPIPS as loss and as metric",
    ),
    Weight(
        name="vgg16",
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        file="metrics/vgg16-397923af.pth",
        licence="BSD-3-Clause (torchvision)",
        needed_by="LPIPS from weights instead of a TorchScript program, with lpips-vgg",
        size=553_433_881,
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
    Weight(
        name="lpips-vgg",
        url=(
            "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/"
            "weights/v0.1/vgg.pth"
        ),
        file="metrics/lpips_vgg.pth",
        licence="BSD-2-Clause",
        needed_by="LPIPS from weights instead of a TorchScript program, with vgg16",
    ),
    Weight(
        name="sface",
        url=(
            f"{_HF}/opencv/face_recognition_sface/resolve/main/face_recognition_sface_2021dec.onnx"
        ),
        file="metrics/face_recognition_sface_2021dec.onnx",
        licence="Apache-2.0 (OpenCV Zoo)",
        needed_by="the identity metric of an evaluation",
        size=38_696_353,
        sha256="0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
    ),
    Weight(
        name="hyperiqa",
        url=f"{_LATENTSYNC_15}/auxiliary/koniq_pretrained.pkl",
        file="hyperiqa/koniq_pretrained.pkl",
        licence="none stated",
        needed_by="the image quality score of a refresh",
        size=109_768_650,
        sha256="ff9277bcc68ecc10e77d88b6d0a32825ec3c85562095542734ec6212eaaf6d81",
    ),
    Weight(
        name="av-hubert-base",
        url="https://dl.fbaipublicfiles.com/avhubert/model/lrs3_vox/clean-pretrain/base_vox_iter5.pt",
        file="av-hubert/base_vox_iter5.pt",
        licence="AV-HuBERT licence (non-commercial research)",
        needed_by="SyncDiff's audio condition; never used by default",
        binds="av-hubert",
    ),
)

"""Turn published weights into a bundle for every flow: no training, no dataset.

    python -m flows.import_weights OUT --unet latentsync-1.5-unet --resolution 256
    python -m flows.lip_sync VIDEO AUDIO OUT.mp4 --model OUT

Weights are names of `python -m tasks.weights`, or paths. `--register NAME` also makes the
bundle a version of that model, even if it was built before. `OUT/bundle.json` says from
which files it was made.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tasks.registry.import_weights import build_bundle, is_built, register_bundle
from tasks.registry.third_party import Files
from tasks.registry.tracking import default_uri
from tasks.registry.versions import Registry
from tasks.runtime.failures import sentence_for


def main(argv: Sequence[str] | None = None, prog: str = "python -m flows.import_weights") -> int:
    """Run the command line; the exit code."""
    defaults = Files("")
    parser = argparse.ArgumentParser(
        prog=prog,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("output", type=Path, metavar="OUT", help="folder to create")
    parser.add_argument("--unet", required=True, help="name or file, such as latentsync-1.5-unet")
    parser.add_argument("--resolution", type=int, required=True, help="256 for 1.5, 512 for 1.6")
    for name in ("vae", "whisper", "syncnet"):
        parser.add_argument(f"--{name}", default=getattr(defaults, name), help="%(default)s")
    parser.add_argument(
        "--syncnet-config",
        default=defaults.syncnet_config,
        help="of the sync network: %(default)s, or a JSON file",
    )
    parser.add_argument("--register", metavar="NAME", help="also register a version of this model")
    parser.add_argument("--tracking-uri", default=None, help="MLflow's store, for --register")
    given = parser.parse_args(argv)
    files = Files(given.unet, given.vae, given.whisper, given.syncnet, given.syncnet_config)
    uri = given.tracking_uri or default_uri()
    try:
        if given.register is not None:
            # A version that cannot be registered is reported before the minutes of building.
            Registry(uri).check_name(given.register)
        if given.register and is_built(given.output, files, given.resolution):
            print(f"{given.output} already exists and is used as it is")
        else:
            for note in build_bundle(given.output, files, given.resolution):
                print(note)
        print(
            f"{given.output}: --model {given.output} of the flows lip_sync and evaluate_latentsync"
        )
        if given.register:
            version = register_bundle(given.output, given.register, uri)
            print(f"registered {given.register} version {version} as candidate")
    except KeyboardInterrupt:
        print("interrupted: run the same command to start again", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = sentence_for(error)
        if sentence is None:
            raise
        print(sentence, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

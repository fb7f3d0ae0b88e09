"""The whole loop in one command: videos in, a talking face out, and everything in between.

    python -m flows.demo                       # 48 generated videos; `make demo`
    python -m flows.demo --data MY_VIDEOS      # your own; one folder per speaker
    python -m flows.demo --recipe syncdiff-tiny --output runs/demo-syncdiff   # make demo-syncdiff

About 15 minutes on 2 cores. After an interruption the same command goes on; with nothing changed it
only says so again.
"""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from prefect import flow

from datasets.errors import UserError
from datasets.store.atomic import content_digest
from flows.evaluate_latentsync import evaluate_latentsync
from flows.lip_sync import lip_sync
from flows.promote_model import promote_model
from flows.refresh_dataset import refresh_dataset
from flows.support.artifacts import say
from flows.support.cli import run
from flows.support.secrets import keep_secrets
from flows.train_latentsync import train_latentsync
from tasks.demo import parts
from tasks.demo.report import RunFiles, write_report
from tasks.demo.steps import Steps, folder_digest
from tasks.demo.summary import Summary, as_text, write_summary
from tasks.recipes.recipe import recipe as make_recipe
from tasks.registry.decision import DecisionRecord
from tasks.registry.metric import Metric
from tasks.registry.tracking import default_uri
from tasks.runtime.ray_session import ray_session
from tasks.train.facts import stage_names
from tasks.train.mlflow_runs import TrainingResult
from tasks.train.reuse import reuse_stages

MODEL = "latentsync"
CHAMPION = f"models:/{MODEL}@champion"
DRIVING_SECONDS = 15.0
MINUTES = {"ingest": "3 minutes", "train": "9 minutes", "train_worse": "2 minutes"}
"""How long the sample and the tiny recipe take on 2 cores."""


@flow(name="demo")
@keep_secrets
def demo(
    data: str | None = None, output: str = "runs/demo", recipe: str = "tiny", clips: int = 48
) -> Summary:
    """Run the whole workflow and show what it did.

    Args:
        data: folder with your own videos, one folder per speaker; by default videos are
            generated.
        output: folder for everything.
        recipe: tiny, debug or syncdiff-tiny, for a CPU.
        clips: how many videos are generated.

    Returns:
        The content of summary.json.
    """
    with ExitStack() as at_end:
        work = _Demo(data, Path(output).resolve(), recipe, clips, at_end)
        work.ingest()
        work.train()
        first = work.promote("promote")
        work.lip_sync(first)
        work.train_worse()
        second = work.promote("promote_worse")
        return work.conclude([first, second])


class DemoTraining(TrainingResult):
    """A trained model and the evaluation that the demo shows."""

    evaluation: dict[str, Metric]


class _Demo:
    """The steps of one demo, each a flow of its own, which is skipped once it is done."""

    def __init__(
        self, data: str | None, output: Path, recipe: str, clips: int, at_end: ExitStack
    ) -> None:
        self.data = Path(data).resolve() if data else None
        self.output, self.recipe, self.clips = output, recipe, clips
        self.chosen = make_recipe(recipe)
        self.dataset, self.trained = output / "dataset", output / "train"
        self.worse = output / "train-worse"
        self.uri = default_uri(output)
        self.steps = Steps(output, say)
        self._at_end, self._has_ray = at_end, False
        say(f"Everything goes to {output}")

    def _start_ray(self) -> None:
        """Start one Ray for all steps, where each would wait for its own otherwise."""
        if not self._has_ray:
            self._at_end.enter_context(ray_session())
            self._has_ray = True

    def _takes(self, step: str) -> str:
        """How long a step is expected to take, where that is known."""
        known = self.recipe == "tiny" and (self.data is None or step == "train_worse")
        return f", about {MINUTES[step]} on 2 cores" if known else ""

    def ingest(self) -> None:
        """From videos to shards."""
        if self.data is not None and not self.data.is_dir():
            raise UserError(f"there is no folder {self.data}: choose one with videos in it")
        self.steps.keep_to(str(self.data or ""))
        given = folder_digest(self.data) if self.data else self.clips
        self.ingested = self.steps.run(
            "ingest",
            "videos -> shots, faces, audio offsets, shards" + self._takes("ingest"),
            {"data": str(self.data), "given": given, "resolution": self.chosen.resolution},
            lambda: self._ingest(
                source="folder" if self.data else "sample",
                input=str(self.data) if self.data else None,
                output=str(self.dataset),
                resolution=self.chosen.resolution,
                sample_clips=self.clips,
            ),
            [self.dataset / "index.json"],
        )
        self.videos = self.data or self.dataset / "sample_videos"

    def _ingest(self, **options: Any) -> dict[str, Any]:
        self._start_ray()
        return refresh_dataset(**options)

    def train(self) -> None:
        """From shards to a registered candidate and its evaluation."""
        self.candidate = self.steps.run(
            "train",
            f"{', '.join(stage_names(self.chosen))}, evaluation" + self._takes("train"),
            {"dataset": self.ingested["digest"], "recipe": self.recipe},
            lambda: self._train(self.trained, []),
            [self.trained / "bundle" / "bundle.json", self.trained / "evaluation"],
        )

    def train_worse(self) -> None:
        """The same with far too few U-Net steps, which promotion must notice."""
        overrides = parts.worse(self.chosen)
        reuse_stages(self.trained, self.worse, ("autoencoder", "syncnet"))
        self.refused = self.steps.run(
            "train_worse",
            f"a worse model, {' '.join(overrides)}" + self._takes("train_worse"),
            {"dataset": self.ingested["digest"], "recipe": self.recipe, "overrides": overrides},
            lambda: self._train(self.worse, overrides),
            [self.worse / "bundle" / "bundle.json", self.worse / "evaluation"],
        )

    def _train(self, output: Path, overrides: list[str]) -> DemoTraining:
        self._start_ray()
        trained: TrainingResult = train_latentsync(
            dataset=str(self.dataset),
            output=str(output),
            recipe=self.recipe,
            overrides=overrides,
            tracking_uri=self.uri,
            model_name=MODEL,
            # The folder is the demo's own, and what it held before is kept aside.
            restart=True,
        )
        config = self.chosen.evaluation
        evaluation = evaluate_latentsync(
            model=f"models:/{MODEL}/{trained['model_version']}",
            dataset=str(self.dataset),
            output=str(output / "evaluation"),
            clips=config.clips,
            frames_per_clip=config.frames_per_clip,
            silent_clips=config.silent_clips,
            silent_frames=config.silent_frames,
            steps=config.steps,
            guidance=config.guidance,
            seed=config.seed,
            tracking_uri=self.uri,
        )
        return {**trained, "evaluation": evaluation["metrics"]}

    def promote(self, step: str) -> DecisionRecord:
        """Decide whether a trained version is promoted."""
        first = step == "promote"
        version = (self.candidate if first else self.refused)["model_version"]
        bundles = [parts.digest_of(self.trained)]
        if not first:
            bundles.append(parts.digest_of(self.worse))
        decision: DecisionRecord = self.steps.run(
            step,
            f"is version {version} good enough to be champion?",
            {"version": version, "bundles": bundles},
            lambda: promote_model(
                model_name=MODEL,
                tracking_uri=self.uri,
                output=str(self.output / step),
                version=version,
            ),
        )
        return decision

    def lip_sync(self, decision: DecisionRecord) -> None:
        """Let the first model lip-sync a video of a speaker it has never seen."""
        model = CHAMPION
        if not decision["promoted"]:
            model = f"models:/{MODEL}/{decision['candidate']}"
            say(f"There is no champion, so {model} is shown, which was refused")
        self.material = parts.choose_material(
            self.dataset, self.videos, self.output, self.data is None, DRIVING_SECONDS
        )
        self.result = self.output / "lip_sync.mp4"
        config = self.chosen.evaluation
        self.steps.run(
            "lip_sync",
            f"{self.material.source.name} with new words, about a minute",
            {
                "source": content_digest(self.material.source),
                "driving": content_digest(self.material.driving),
                "model": [model, parts.digest_of(self.trained)],
            },
            lambda: lip_sync(
                video=str(self.material.source),
                audio=str(self.material.driving),
                output=str(self.result),
                model=model,
                steps=config.steps,
                guidance=config.guidance,
                seed=config.seed,
                tracking_uri=self.uri,
            ),
            [self.result],
        )

    def conclude(self, decisions: list[DecisionRecord]) -> Summary:
        """Check against the truth, score the output, and write summary and report."""
        files = RunFiles(
            self.dataset, self.trained, self.material.source, self.material.driving, self.result
        )
        measured = self.steps.run(
            "measure",
            "how well all this worked",
            {
                "dataset": self.ingested["digest"],
                "output": content_digest(self.result),
                "driving": content_digest(self.material.driving),
            },
            lambda: parts.measure(self.videos, files),
        )
        truth, score = parts.restore_measurement(measured)
        summary = parts.summarise(
            self.ingested, self.candidate, decisions, truth, score, self.steps.seconds, self.uri
        )
        page, numbers = self.output / "report.html", self.output / "summary.json"
        write_report(page, summary, decisions, truth, score, files)
        write_summary(numbers, summary)
        outputs = [
            ("lip-synced video", str(self.result)),
            ("report", str(page)),
            ("summary", str(numbers)),
            ("runs and models", self.uri),
        ]
        say(as_text(summary, self.ingested["reasons"], outputs))
        for fault in parts.check_claims(truth):
            say(f"CHECK FAILED: {fault}")
        return summary


main = partial(run, demo)

if __name__ == "__main__":
    raise SystemExit(main())

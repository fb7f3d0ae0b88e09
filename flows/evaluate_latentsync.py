"""Evaluate a model on clips of speakers it was not trained on.

    python -m flows.evaluate_latentsync --model models:/latentsync@candidate --dataset runs/dataset
    python -m flows.evaluate_latentsync --compare models:/latentsync/3 models:/latentsync/4

writes videos, contact sheet, plots and numbers to the output folder and to MLflow, and prints
the numbers and where everything is. The numbers become tags of the registered version:
promote-model decides by them.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NotRequired, TypedDict

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from datasets.errors import UserError
from flows.support.artifacts import say
from flows.support.cli import run
from flows.support.dataset_copy import local_copy
from flows.support.evaluation_text import MAIN, comparison_lines, evaluation_lines, lse_lines
from flows.support.secrets import keep_secrets
from tasks.evaluate.comparison import read_models
from tasks.evaluate.comparison_page import PAGE, write_comparison
from tasks.evaluate.crew import Crew
from tasks.evaluate.lse import evaluate_lse
from tasks.evaluate.record import log_evaluation, make_table, with_judge
from tasks.evaluate.run import EVALUATION, evaluate
from tasks.evaluate.strata import strata_rows
from tasks.recipes.evaluation import EvaluationConfig
from tasks.registry.metric import Evaluation, Metric
from tasks.registry.published import resolve_model
from tasks.registry.tracking import check_uri, default_uri
from tasks.registry.versions import ModelVersion, find, record_evaluation

FEWEST = 2
"""Models of a comparison."""


class EvaluationResult(TypedDict):
    """What the flow returns."""

    metrics: dict[str, Metric]
    """Of the model; of a comparison, those of the first one."""
    clips: list[str]
    output: str
    run_id: str
    """Empty where nothing was logged: of a comparison, and of LSE."""
    version: int | None
    """Of the registered model; None where a folder was evaluated."""
    page: NotRequired[str]
    """The page of a comparison."""


@task(name="generate-and-measure", cache_policy=NO_CACHE)
@keep_secrets
def generate_and_measure(
    bundle: Path, dataset: Path, output: Path, config: EvaluationConfig, device: str, crew: Crew
) -> Evaluation:
    """Videos, numbers and pictures in the output folder; returns `evaluation.json`."""
    return evaluate(bundle, dataset, output, config, device, say, crew)


@task(name="log-evaluation", cache_policy=NO_CACHE)
@keep_secrets
def log_results(
    evaluation: Evaluation,
    output: Path,
    uri: str,
    experiment: str,
    version: ModelVersion | None,
    judge: str,
) -> str:
    """MLflow run, tags of the version and a table in Prefect; returns the run's id."""
    run_id = log_evaluation(evaluation, output, uri, experiment, version)
    if version is not None:
        record_evaluation(version.name, version.version, uri, evaluation, judge)
    create_table_artifact(
        key="latentsync-evaluation",
        table=make_table(evaluation["metrics"]),
        description=f"{len(evaluation['clips'])} {evaluation.get('split', 'test')} clips, {output}",
    )
    parts = [row for row in strata_rows(evaluation.get("strata", {})) if row["metric"] in MAIN]
    if parts:
        create_table_artifact(
            key="latentsync-evaluation-parts",
            table=parts,
            description=f"The same by parts of the clips, {output}",
        )
    return run_id


@task(name="compare-models", cache_policy=NO_CACHE)
@keep_secrets
def compare_models(
    models: Sequence[str],
    dataset: str,
    output: Path,
    config: EvaluationConfig,
    device: str,
    crew: Crew,
    uri: str,
) -> EvaluationResult:
    """Evaluate what is not evaluated yet, and write the page about all of them."""
    if len(models) < FEWEST or len(set(models)) < len(models):
        raise UserError(
            f"--compare needs two or more different models, got {', '.join(models)}: give "
            "registered versions, bundles, or folders of evaluations"
        )
    folders: dict[str, Path] = {}
    for number, model in enumerate(models, 1):
        if (Path(model) / EVALUATION).is_file():
            folders[model] = Path(model).resolve()
            continue
        version, bundle = find(model, uri), resolve_model(model, uri, say)
        if version is not None:
            # Whatever was registered meanwhile, one judge is for all.
            config, _ = with_judge(config, version.name, uri)
        if not config.syncnet_weights and not config.judge_bundle:
            config = replace(config, judge_bundle=str(bundle))
        folders[model] = output / f"model-{number}"
        say(f"comparison: {model}")
        evaluate(bundle, local_copy(dataset), folders[model], config, device, say, crew)
    compared = read_models(folders)
    facts = write_comparison(output, compared)
    for line in comparison_lines(facts, output / PAGE):
        say(line)
    return {
        "metrics": compared[0].evaluation["metrics"],
        "clips": compared[0].evaluation["clips"],
        "output": str(output),
        "run_id": "",
        "version": None,
        "page": str(output / PAGE),
    }


@task(name="judge-whole-frames", cache_policy=NO_CACHE)
@keep_secrets
def judge_whole_frames(
    bundle: Path,
    source: Path,
    output: Path,
    config: EvaluationConfig,
    device: str,
    clip_pairs: Path | None,
) -> EvaluationResult:
    """LSE of finished videos, beside our own view of them."""
    content = evaluate_lse(bundle, source, output, config, device, say, clip_pairs)
    for line in lse_lines(content["metrics"], output):
        say(line)
    return {
        "metrics": content["metrics"],
        "clips": [each["name"] for each in content["pairs"]],
        "output": str(output),
        "run_id": "",
        "version": None,
    }


@flow(name="evaluate-latentsync")
@keep_secrets
def evaluate_latentsync(
    model: str = "models:/latentsync@candidate",
    dataset: str = "runs/dataset",
    output: str = "runs/evaluation",
    device: str = "cpu",
    clips: int = 30,
    frames_per_clip: int = 125,
    steps: int = 20,
    guidance: float = 1.5,
    seed: int = 1247,
    reference: str = "",
    clip_list: str = "",
    silent_clips: int = 8,
    silent_frames: int = 50,
    transcripts: str = "",
    compare: list[str] | None = None,
    lse: str = "",
    pairs: str = "",
    protocol: str = "own",
    workers: int = 1,
    ray_address: str | None = None,
    windows_at_once: int = 0,
    syncnet_weights: str = "",
    stable_syncnet_weights: str = "",
    inception_weights: str = "",
    i3d_weights: str = "",
    videomae_weights: str = "",
    lpips_weights: str = "",
    identity_weights: str = "",
    trust: list[str] | None = None,
    tracking_uri: str | None = None,
) -> EvaluationResult:
    """Generate videos of unseen speakers and measure them.

    Args:
        model: registered model such as models:/latentsync@candidate, a published one such as
            latentsync-1.5, or a bundle folder.
        dataset: folder that refresh-dataset wrote, or its s3:// or gs:// address.
        output: folder for videos, plots and numbers.
        device: cpu, cuda, cuda:N or mps.
        clips: number of test clips at most.
        frames_per_clip: frames generated per clip at most, at 25 fps.
        steps: sampler steps.
        guidance: weight of the audio against no audio.
        seed: seed of the initial noise.
        reference: what shows the network who the person is: frame, still or away; by default what
            the model was made for, as in lip-sync.
        clip_list: clips.json of an earlier evaluation, to use the same clips.
        silent_clips: number of clips, the first ones, that are also generated from silence.
        silent_frames: frames generated from silence per clip at most.
        transcripts: folder with CLIP_ID.txt, what is said in a clip; by default none.
        compare: models to compare on the same clips instead: registered versions, bundles, or
            folders of evaluations; writes a page.
        lse: folder of videos, or list of pairs, to lip-sync and judge as tables of LRS2 and LRS3
            do instead.
        pairs: list of an audio and a video id in each line, as used with LRS2 and LRS3, whose clips
            are below the folder that lse gives.
        protocol: own, or latentsync for FVD as published, besides.
        workers: Ray workers that clips are spread over, each with a GPU of its own on cuda; 1
            works without Ray.
        ray_address: address of a running Ray cluster; by default one is started here if needed.
        windows_at_once: windows that go through the model at once; by default 16 on cuda, else 1.
        syncnet_weights: file or name of syncnet_v2; without it a model's own network judges.
        stable_syncnet_weights: bundle, file or name of the StableSyncNet that says which windows
            are in sync; without it a model's own network.
        inception_weights: file or name of Inception-2015; without it a seeded network.
        i3d_weights: file or name of I3D; without it a seeded network.
        videomae_weights: file, folder or name of a VideoMAE, for cd-FVD; without it a seeded one.
        lpips_weights: file or name of LPIPS (vgg16-lpips, vgg16); without it a seeded network.
        identity_weights: file or name of a face embedding such as sface; without it the identity
            is not measured.
        trust: a TorchScript file that may run although the weights table does not know its sha256.
        tracking_uri: MLflow's store; by default a SQLite file under runs.

    Returns:
        metrics (name -> value, label, n), clips, output, run_id and version.
    """
    uri = check_uri(tracking_uri or default_uri())
    folder, crew = Path(output).resolve(), Crew(workers, ray_address)
    config = EvaluationConfig(
        clips=clips,
        frames_per_clip=frames_per_clip,
        steps=steps,
        guidance=guidance,
        seed=seed,
        reference=reference,
        clip_list=clip_list,
        silent_clips=silent_clips,
        silent_frames=silent_frames,
        transcripts=transcripts,
        protocol=protocol,
        windows_at_once=windows_at_once,
        syncnet_weights=syncnet_weights,
        stable_syncnet_weights=stable_syncnet_weights,
        inception_weights=inception_weights,
        i3d_weights=i3d_weights,
        videomae_weights=videomae_weights,
        lpips_weights=lpips_weights,
        identity_weights=identity_weights,
        trust=tuple(trust or ()),
    )
    if pairs and not lse:
        raise UserError("--pairs needs --lse: give the folder that holds the clips it names")
    if compare:
        if lse:
            raise UserError("--compare and --lse are two commands: give one of them")
        return compare_models(compare, dataset, folder, config, device, crew, uri)
    version = find(model, uri)
    bundle = resolve_model(model, uri, say)
    if lse:
        clip_pairs = Path(pairs) if pairs else None
        return judge_whole_frames(bundle, Path(lse), folder, config, device, clip_pairs)
    judge = ""
    if version is not None:
        config, judge = with_judge(config, version.name, uri)
    evaluation = generate_and_measure(bundle, local_copy(dataset), folder, config, device, crew)
    experiment = version.name if version else "latentsync"
    run_id = log_results(evaluation, folder, uri, experiment, version, judge)
    for line in evaluation_lines(evaluation, folder):
        say(line)
    return {
        "metrics": evaluation["metrics"],
        "clips": evaluation["clips"],
        "output": str(folder),
        "run_id": run_id,
        "version": version.version if version else None,
    }


main = partial(run, evaluate_latentsync)

if __name__ == "__main__":
    raise SystemExit(main())

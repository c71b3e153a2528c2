"""The command line: every verb is a few lines, and imports what is heavy only when it runs."""

import logging
import os
import signal
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from equipoise.errors import UserError


class Verbs(typer.core.TyperGroup):
    """Turns what can end a verb early into a message and an exit code: 2 for the user's input, 130 for an interrupt."""

    def invoke(self, ctx: Any) -> Any:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # what SIGINT does; training handles both itself
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt as stop:  # the trainer's own kind says how to resume
            typer.echo(str(stop) or "interrupted", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    name="equipoise",
    cls=Verbs,
    help="Post-training that weighs what a language model already knows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipes_app = typer.Typer(help="List, show and copy the built-in recipes.", no_args_is_help=True)
testbed_app = typer.Typer(
    help="The small world whose truth is known, and the model that was taught it.", no_args_is_help=True
)
data_app = typer.Typer(help="Make training data: grade and tag a model's answers.", no_args_is_help=True)
models_app = typer.Typer(help="Fetch models ahead of time, and see which are there.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(models_app, name="models")
app.add_typer(recipes_app, name="recipes")
app.add_typer(testbed_app, name="testbed")

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, as in training.epochs=5.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run directory; an unfinished run in it is resumed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, show what would happen, and stop.")]


@app.command()
def demo(overrides: Overrides = None, out: Out = None) -> None:
    """Protocol A, small: three objectives and three seeds on the testbed, with a report.

    Example: equipoise demo --out runs/demo
    """
    _protocol("demo", overrides, out, dry_run=False)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A built-in recipe by name, or a YAML file.")],
    overrides: Overrides = None,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Run a recipe: one training run, scored before and after, with a report.

    Example: equipoise run knowledge-update model.path=Qwen/Qwen2.5-0.5B-Instruct data.updates=updates.jsonl
    """
    from equipoise.protocols.single import run_recipe

    run_recipe(recipe, overrides or [], out, dry_run=dry_run)


@app.command()
def protocol(
    name: Annotated[str, typer.Argument(help="Which protocol: a or curriculum.")],
    overrides: Overrides = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe that sets it up; the testbed's by default.")] = None,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Run a protocol: a grid of objectives and seeds, analysed with intervals and tests. Resumes where it was cut off.

    Example: equipoise protocol a seeds=[1,2,3] --out runs/protocol-a
    """
    _protocol(recipe or f"protocol-{name}", overrides, out, dry_run=dry_run)


def _protocol(recipe: str, overrides: list[str] | None, out: Path | None, *, dry_run: bool) -> None:
    from equipoise.protocols.single import run_recipe

    run_recipe(recipe, overrides or [], out, dry_run=dry_run)


@app.command()
def analyze(
    table: Annotated[
        Path, typer.Argument(help="CSV, JSON or JSONL with method, seed, metric and value, or nested JSON.")
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for analysis.json and SUMMARY.md.")] = None,
) -> None:
    """Compare methods from a table of results made elsewhere, paired by seed.

    Example: equipoise analyze results.csv --out analysis
    """
    from equipoise.protocols.summary import analyze_table

    typer.echo(analyze_table(table, out))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A run directory, a model folder, a Hub name, or `testbed`.")],
    overrides: Overrides = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe whose tasks are asked; a run's own, else knowledge-update.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for item-level predictions.")] = None,
) -> None:
    """Ask a model the questions of a recipe and score the answers strictly.

    Example: equipoise evaluate runs/my-run
    """
    from equipoise.protocols.single import evaluate_model

    evaluate_model(model, recipe, overrides or [], out)


@app.command()
def generate(
    recipe: Annotated[str | None, typer.Argument(help="A recipe by name, or a YAML file.")] = None,
    overrides: Overrides = None,
    inputs: Annotated[
        str | None, typer.Option(help="CoNLL or JSONL file, hub:NAME:SPLIT, or testbed:source|target.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Folder, Hub name, or the server's name of the model.")] = None,
    samples: Annotated[int | None, typer.Option(help="Answers for each input; 8 by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every answer; 42 by default.")] = None,
    max_samples: Annotated[int | None, typer.Option(min=1, help="Stop when the file holds so many in all.")] = None,
    max_inputs: Annotated[int | None, typer.Option(help="Only the first so many inputs.")] = None,
    skip_labelled: Annotated[
        bool, typer.Option("--skip-labelled", help="Skip inputs that any model has answered in the file.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a file that is there.")] = False,
    mock: Annotated[bool, typer.Option("--mock", help="No model: the right answers with seeded mistakes.")] = False,
    backend: Annotated[str | None, typer.Option(help="hf (this process), openai, ollama or vllm.")] = None,
    base_url: Annotated[list[str] | None, typer.Option(help="A server's address; several are used in turn.")] = None,
    compare: Annotated[Path | None, typer.Option(help="Only compare the models in this file of samples.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File of samples; a run directory for questions.")
    ] = None,
) -> None:
    """Draw several answers of a model to every sentence, into a journal that a second call goes on with.

    With a confidence-tokens recipe: answer its questions, once each.

    Example: equipoise generate --inputs testbed:target --model testbed:ner --samples 8 --out samples.jsonl
    """
    from equipoise.protocols.generating import generate as answer

    words = {"inputs": inputs, "model": model, "samples": samples, "seed": seed, "max_inputs": max_inputs}
    words |= {"max_samples": max_samples, "skip_labelled": skip_labelled, "resume": resume, "mock": mock}
    answer(recipe, overrides or [], out, compare, words | {"backend": backend, "base_url": base_url})


@data_app.command("tag")
def data_tag(
    recipe: Annotated[str, typer.Argument(help="A confidence-tokens recipe by name, or a YAML file.")],
    overrides: Overrides = None,
    out: Out = None,
) -> None:
    """Only answer, grade and tag the questions of a recipe, and set the rows apart in their splits.

    Example: equipoise data tag confidence-tokens --out runs/mine
    """
    from equipoise.catalogue import find
    from equipoise.protocols.confidence import run_confidence

    run_confidence(find(recipe), overrides or [], out, until="data")


@data_app.command("clean")
def data_clean(
    inputs: Annotated[
        list[str], typer.Argument(metavar="IN... [KEY=VALUE]...", help="JSONL files, JSON arrays or hub:NAME:SPLIT.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the clean rows and the lists of the others.")],
    against: Annotated[list[str] | None, typer.Option(help="A held-out set; what it asks leaves the data.")] = None,
    model: Annotated[str | None, typer.Option(help="Count lengths in its tokens; in words by default.")] = None,
) -> None:
    """Clean instruction data and preference pairs: one form, no duplicates, every dropped or changed row listed.

    Example: equipoise data clean alpaca.json chats.jsonl length.max=1024 licences=[mit,cc-by-4.0] --out cleaned
    """
    from equipoise.pipelines.cleaning import clean_command

    clean_command(inputs, out, against or [], model)


@app.command()
def chat(
    run: Annotated[Path, typer.Argument(help="A run directory of confidence-tokens, or a model folder in one.")],
    domain: Annotated[str | None, typer.Option(help="Whose tokens speak; the run's first by default.")] = None,
    overrides: Overrides = None,
) -> None:
    """Ask a trained model; it answers with its calibrated confidence, and says when it is not sure.

    Reads questions from a terminal, or one a line from a pipe.

    Example: equipoise chat runs/mine --domain medical
    """
    from equipoise.pipelines.confidence_chat import chat as talk

    talk(run, domain, overrides or [])


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A run directory, or a model folder in one.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the merged model.")],
    overrides: Overrides = None,
) -> None:
    """Merge adapter and new tokens into one plain model folder, for serving elsewhere.

    Example: equipoise export runs/mine --out my-model
    """
    from equipoise.protocols.single import export_model

    typer.echo(export_model(run, out, overrides or []))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The HTML file; RUN/report.html by default.")] = None,
) -> None:
    """Build the report of a run directory again: one HTML file that works offline.

    Example: equipoise report runs/demo
    """
    from equipoise.report.build import build_report

    typer.echo(build_report(run, out))


@app.command()
def doctor() -> None:
    """Check versions, device, extras, Hub token and disk, and say what to do about what is missing.

    Example: equipoise doctor
    """
    from equipoise.doctor import examine

    raise typer.Exit(examine())


@recipes_app.command("list")
def recipes_list() -> None:
    """List the built-in recipes, each with its purpose.

    Example: equipoise recipes list
    """
    from equipoise.catalogue import described

    for name, description in described():
        typer.echo(f"{name:32} {description}")


@recipes_app.command("show")
def recipes_show(name: str) -> None:
    """Print a built-in recipe.

    Example: equipoise recipes show knowledge-update
    """
    from equipoise.catalogue import find

    typer.echo(find(name).read_text(encoding="utf-8"), nl=False)


@recipes_app.command("copy")
def recipes_copy(
    name: str, to: Annotated[Path | None, typer.Argument(help="File to write; NAME.yaml by default.")] = None
) -> None:
    """Copy a built-in recipe, to change it.

    Example: equipoise recipes copy knowledge-update mine.yaml
    """
    from equipoise.catalogue import copy

    typer.echo(copy(name, to))


@models_app.command("list")
def models_list() -> None:
    """List the Hugging Face Hub models that the built-in recipes name, and whether they are in the cache.

    Example: equipoise models list
    """
    from equipoise.console import table
    from equipoise.models.download import named, state

    rows = [[name, state(name), ", ".join(recipes)] for name, recipes in named().items()]
    table("Models of the Hugging Face Hub", ["model", "state", "recipes"], rows, words=True)


@models_app.command("download")
def models_download(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Hub names, as owner/model.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All models that the built-in recipes name.")] = False,
) -> None:
    """Fetch models into the cache ahead of time, weights as safetensors alone; what is there is not fetched again.

    Example: equipoise models download Qwen/Qwen2.5-0.5B-Instruct
    """
    from equipoise.models.download import download, named

    if bool(names) == every:
        raise UserError("nothing to download is named", fix="give names as owner/model, or --all, and not both")
    for name in names or named():
        folder, size = download(name)
        typer.echo(f"{name}: {f'{size / 1e9:.2f} GB fetched' if size else 'was there'}, {folder}")


@testbed_app.command("build")
def testbed_build(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model, tokenizer and data sheet.")],
    overrides: Overrides = None,
    model: Annotated[str, typer.Option(help="Which of the three: world, questions, or ner.")] = "world",
) -> None:
    """Generate a world from its seed and pre-train its model again (some twenty minutes on two cores).

    Example: equipoise testbed build --out build/testbed
    """
    from equipoise.config import resolve
    from equipoise.pipelines.testbed import build, settings_of

    build(out, resolve(settings_of(model), None, overrides))


@testbed_app.command("facts")
def testbed_facts(
    part: Annotated[str | None, typer.Option(help="Only this part, e.g. api_change.")] = None,
    knowledge: Annotated[str | None, typer.Option(help="Only this class, e.g. confident-wrong.")] = None,
) -> None:
    """Print the facts of the world as JSON lines.

    Example: equipoise testbed facts --part api_change --knowledge confident-wrong
    """
    import json
    from dataclasses import asdict

    from equipoise.testbed.world import World

    for fact in World.build().facts:
        if part in (None, fact.part) and knowledge in (None, fact.knowledge):
            typer.echo(json.dumps(asdict(fact), ensure_ascii=False))


@testbed_app.command("sheet")
def testbed_sheet(
    model: Annotated[str, typer.Option(help="Which of the three: world, questions, or ner.")] = "world",
) -> None:
    """Print what a shipped model knows, as Markdown tables: by part and class, or by domain.

    Example: equipoise testbed sheet --model questions
    """
    from equipoise.pipelines.testbed import shipped_sheet

    typer.echo(shipped_sheet(model))


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 the user's input is at fault, 1 a fault of ours, 130 interrupted."""
    # OpenMP's threads spin while they wait; on a machine that has other work that made a run ten times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    logging.getLogger("bitsandbytes").setLevel("ERROR")  # it warns at import of a CPU kernel it can do without
    app()


if __name__ == "__main__":
    main()

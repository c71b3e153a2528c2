"""The command line: every verb is a few lines, and imports what is heavy only when it runs."""

import logging
import os
import signal
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from equipoise.cli_groups import GROUPS, DryRun, Out, Overrides
from equipoise.console import say
from equipoise.errors import UserError

WITH_MODELS = ("demo", "run", "protocol", "evaluate", "scan", "generate", "chat", "export")


class Verbs(typer.core.TyperGroup):
    """Turns what can end a verb early into a message and an exit code: 2 for the user's input, 130 for an interrupt."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The parent's; a verb that loads a model says at once that it is under way: its libraries take seconds."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in WITH_MODELS and not {"-h", "--help"} & set(rest):
            say(f"equipoise {name}: loading libraries ...")
        return name, command, rest

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
for group, verbs in GROUPS.items():
    app.add_typer(verbs, name=group)


def _version(wanted: bool) -> None:
    if wanted:
        from equipoise import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Post-training that weighs what a language model already knows."""


@app.command()
def demo(
    overrides: Overrides = None,
    out: Out = None,
    real: Annotated[
        bool, typer.Option("--real", help="On SmolLM2-135M; `equipoise models fetch smollm2-135m` gets it.")
    ] = False,
) -> None:
    """Protocol A, small: three objectives, three seeds, a report. With --real one seed on a pretrained model.

    Example: equipoise demo --out runs/demo
    """
    _protocol("demo-real" if real else "demo", overrides, out, dry_run=False)


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A built-in recipe by name, or a YAML file.")],
    overrides: Overrides = None,
    out: Out = None,
    dry_run: DryRun = False,
    until: Annotated[
        str, typer.Option(help="Stop after this stage: clean, sft or dpo (instruct), data, samples or labels.")
    ] = "end",
) -> None:
    """Run a recipe; a second call goes on where one stopped. What it trains is scored before and after, with a report.

    Example: equipoise run own-model model.path=Qwen/Qwen2.5-0.5B-Instruct data.updates=updates.jsonl
    """
    from equipoise.protocols.single import run_recipe

    run_recipe(recipe, overrides or [], out, dry_run=dry_run, until=until)


@app.command()
def protocol(
    name: Annotated[
        str, typer.Argument(help="Which protocol: a, b, s, t, frontier or curriculum; or compare, report.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change; for compare and report, finished runs."),
    ] = None,
    recipe: Annotated[str | None, typer.Option(help="Recipe that sets it up; the testbed's by default.")] = None,
    out: Out = None,
    dry_run: DryRun = False,
) -> None:
    """Run a grid of objectives and seeds, with intervals and tests. It goes on where it was cut off.

    `compare` puts published tables beside finished runs; `report` writes them up as one Markdown document with figures.

    Example: equipoise protocol a seeds=[1,2,3] --out runs/protocol-a
    """
    if name == "compare":
        from equipoise.protocols.published import compare_published

        compare_published([Path(run) for run in overrides or ["runs/protocol-a"]], out)
    elif name == "report":
        from equipoise.protocols.technical_report import write_report

        write_report([Path(run) for run in overrides or []], out or Path("REPORT.md"))
    else:
        from equipoise.protocols.single import check_recipe

        if recipe is not None:
            check_recipe(name, recipe)
        _protocol(recipe or f"protocol-{name}", overrides, out, dry_run=dry_run)


def _protocol(recipe: str, overrides: list[str] | None, out: Path | None, *, dry_run: bool) -> None:
    from equipoise.protocols.single import run_recipe

    run_recipe(recipe, overrides or [], out, dry_run=dry_run)


@app.command()
def analyze(
    table: Annotated[
        Path,
        typer.Argument(
            metavar="TABLE|RUN",
            help="CSV, JSON or JSONL with method, seed, metric and value, or nested JSON; or a run directory.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A table's folder for analysis.json and SUMMARY.md.")
    ] = None,
) -> None:
    """Compare methods from a table of results, paired by seed.

    A finished knowledge update is scored again from its stored answers, without its model, and analysed again in place.

    Example: equipoise analyze results.csv --out analysis
    """
    if table.is_dir():
        from equipoise.protocols.single import analyze_run

        return analyze_run(table, out)
    from equipoise.protocols.summary import analyze_table

    return typer.echo(analyze_table(table, out))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A run directory, a model folder, a Hub name, or `testbed`.")],
    overrides: Overrides = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe whose tasks are asked; a run's own, else knowledge-update.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for item-level predictions.")] = None,
    sanity: Annotated[str | None, typer.Option(help="Ask these instead: a file, default or testbed.")] = None,
    beside: Annotated[list[str] | None, typer.Option(help="With --sanity: a model to show beside.")] = None,
) -> None:
    """Ask a model the questions of a recipe, and score strictly.

    Example: equipoise evaluate runs/my-run
    """
    if sanity is not None:
        from equipoise.protocols.using import sanity as ask

        return ask(model, sanity, overrides or [], beside or [], out)
    from equipoise.protocols.single import evaluate_model

    return evaluate_model(model, recipe, overrides or [], out)


@app.command()
def scan(
    data: Annotated[str, typer.Argument(help="JSONL, JSON array, hub:NAME:SPLIT, a cleaned folder, or testbed:facts.")],
    overrides: Overrides = None,
    model: Annotated[str, typer.Option(help="Folder, Hub name, or `testbed`.")] = "testbed",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for tables and page; `scan` here.")] = None,
    top: Annotated[int | None, typer.Option(help="How many contradicting examples to list; 20 by default.")] = None,
) -> None:
    """Before training: what in the data contradicts the model. And what it knows, is unsure of, and does not know.

    Example: equipoise scan train.jsonl --model Qwen/Qwen2.5-0.5B-Instruct --out scan limit=1000
    """
    from equipoise.console import say

    say(f"scanning {data} with {model}")  # before the imports, which take seconds
    from equipoise.pipelines.scan import scan_command

    scan_command(data, model, out, top, overrides or [])


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
    """Draw several answers on the entities of every sentence. A second call goes on with it.

    With a confidence-tokens recipe: answer its questions, once each.

    Example: equipoise generate --inputs testbed:target --model testbed:ner --samples 8 --out samples.jsonl
    """
    from equipoise.protocols.generating import generate as answer

    words = {"inputs": inputs, "model": model, "samples": samples, "seed": seed, "max_inputs": max_inputs}
    words |= {"max_samples": max_samples, "skip_labelled": skip_labelled, "resume": resume, "mock": mock}
    answer(recipe, overrides or [], out, compare, words | {"backend": backend, "base_url": base_url})


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A run directory, a model folder, a Hub name, or `testbed`.")],
    domain: Annotated[str | None, typer.Option(help="Confidence tokens: what the questions are about.")] = None,
    overrides: Overrides = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Most tokens of an answer; 256 by default.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy; 0.2 by default.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus to draw from; 0.9 by default.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End an answer before this text; may be repeated.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides every answer; 42 by default.")] = None,
    system: Annotated[str | None, typer.Option(help="A system prompt.")] = None,
    confidence: Annotated[bool | None, typer.Option("--confidence", help="Show each token's probability.")] = None,
    memory: Annotated[bool | None, typer.Option(help="Remember earlier turns; on a terminal by default.")] = None,
) -> None:
    """Talk to a model. One trained with confidence tokens says when it is not sure.

    Reads questions from a terminal, or one a line from a pipe.

    Example: equipoise chat runs/mine --confidence
    """
    from equipoise.protocols.using import chat as talk

    how = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "stop": stop, "seed": seed}
    talk(model, domain, overrides or [], how | {"system": system, "confidence": confidence, "memory": memory})


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="A run directory, or a model folder in one.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the model, its card and TESTING.md.")],
    overrides: Overrides = None,
    adapter: Annotated[bool, typer.Option("--adapter", help="The adapter alone, with its base's name.")] = False,
    push_to: Annotated[str | None, typer.Option(help="Also upload to this Hub repository, owner/name.")] = None,
) -> None:
    """Write one plain model folder, with a card. Adapter and new tokens are merged into it.

    Example: equipoise export runs/mine --out my-model
    """
    from equipoise.protocols.using import export as hand_on

    typer.echo(hand_on(run, out, overrides or [], adapter=adapter, push_to=push_to))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run directory.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The HTML file; RUN/report.html by default.")] = None,
) -> None:
    """Build the report of a run again: one HTML file.

    Example: equipoise report runs/demo
    """
    from equipoise.report.build import build_report

    typer.echo(build_report(run, out))


@app.command()
def doctor() -> None:
    """Check versions, device, extras, Hub token and disk. What is missing comes with what to do about it.

    Example: equipoise doctor
    """
    from equipoise.doctor import examine

    raise typer.Exit(examine())


def main() -> None:
    """Run the command line. Exit codes: 0 done, 2 the user's input is at fault, 1 a fault of ours, 130 interrupted."""
    # OpenMP's threads spin while they wait; on a machine that has other work that made a run ten times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    logging.getLogger("bitsandbytes").setLevel("ERROR")  # it warns at import of a CPU kernel it can do without
    app()


if __name__ == "__main__":
    main()

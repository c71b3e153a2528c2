"""The page of an adaptation to a new domain from a model's own labels: findings first, then what stands behind them."""

from equipoise.report import synthetic_labels as label_tables
from equipoise.report import synthetic_plots as plots
from equipoise.report import synthetic_tables as tables
from equipoise.report.arms import GLYPHS
from equipoise.report.confidence_plots import STROKES
from equipoise.report.confidence_tables import data_tables
from equipoise.report.page import environment, frame, mapping, part, sequence
from equipoise.report.synthetic_examples import examples, surest_wrong
from equipoise.report.synthetic_reading import SyntheticRun
from equipoise.report.synthetic_training import equal_groups, training
from equipoise.report.synthetic_words import findings


def render(found: SyntheticRun) -> str:
    """Render a run as one HTML page; the same run gives the same bytes."""
    run, analysis = found.run, found.analysis
    arms = plots.styles(found.arms, found.primary)
    curves = plots.styles(dict.fromkeys([*found.arms, *found.steps, *found.validation]), found.primary)
    labels = next((file for file in run.problems if file.endswith("label_quality.json")), "label_quality.json")
    return environment().get_template("synthetic.html").render(
        **frame(run),
        line=what_was_run(found),
        story=story(found),
        primary=found.primary,
        several=len(found.seeds) > 1,
        glyphs=GLYPHS,
        warnings=[str(sentence) for sentence in sequence(analysis.get("warnings"))],
        findings=part(run, "synthetic.json", lambda: findings(found)),
        arms=part(run, "synthetic.json", lambda: tables.arms(found)),
        contrasts=part(run, "synthetic.json", lambda: tables.contrasts(found)),
        trade=part(run, "synthetic.json", lambda: plots.trade_off(analysis, arms)),
        trade_arms=[arm for name, arm in arms.items() if name in mapping(analysis.get("changes"))],
        account=part(run, labels, lambda: label_tables.account(found)),
        signals=part(run, labels, lambda: label_tables.signals(found)),
        reliability=part(run, labels, lambda: plots.label_reliability(found)),
        risk=part(run, labels, lambda: plots.label_risk(found)),
        risk_lines=part(run, labels, lambda: _risk_lines(found)),
        training=part(run, "metrics.jsonl", lambda: training(found, curves)),
        curve_arms=[arm for name, arm in curves.items() if name in {**found.steps, **found.validation}],
        equal=part(run, "metrics.jsonl", lambda: equal_groups(found)),
        stages=part(run, "metrics.jsonl", lambda: tables.stages(found)),
        examples=part(run, "predictions.jsonl", lambda: examples(found)),
        wrong=part(run, "pseudo_labels.jsonl", lambda: surest_wrong(found)),
        data=part(run, "data.json", lambda: data_tables(found.data)),
        types=_types(found),
    )  # fmt: skip


def what_was_run(found: SyntheticRun) -> str:
    """Say in one line what was run: model, test sentences of each domain, samples, seeds, device."""
    config, n = found.run.config, mapping(found.analysis.get("n"))
    model = config.get("model")
    model = model.get("path") if isinstance(model, dict) else model
    parts = [f"Model {model}"] if model else []
    parts += [f"{count:,} {name} test sentences" for name, count in n.items() if isinstance(count, int)]
    parts += [f"{len(found.arms)} arm{'s' if len(found.arms) > 1 else ''}"] if found.arms else []
    parts += [f"{len(found.seeds)} seed{'s' if len(found.seeds) > 1 else ''}"] if found.seeds else []
    parts += [f"device {found.run.manifest['device']}"] if found.run.manifest.get("device") else []
    return " · ".join(parts)


def story(found: SyntheticRun) -> str:
    """Tell a reader who knows nothing of it what was done."""
    samples = found.first_quality.get("samples") or mapping(found.run.config.get("sampling")).get("samples")
    times = f"{samples} times" if isinstance(samples, int) else "several times"
    return (
        "A model that finds entities well in one domain, the source, is to find them in another, the target, without "
        f"being told the right answers there. It answered each unlabelled target sentence {times}. Where the answers "
        "agree, their vote is taken as the sentence's pseudo-label, and the closer they agree, the more confidence the "
        "label has. Each arm then learns from these same labels in its own way; most by reinforcement learning (GRPO), "
        "which rewards answers that are like the label. A curriculum begins with the surest labels and takes in the "
        "others step by step."
    )


def _risk_lines(found: SyntheticRun) -> list[tuple[str, str, str]]:
    named = mapping(mapping(found.first_quality.get("quality")).get("signals"))
    return [(name, plots.line_of(name)[0], STROKES[plots.line_of(name)[1]]) for name in named]


def _types(found: SyntheticRun) -> list[tuple[str, str]]:
    named = mapping(found.data.get("types"))
    return [(str(domain), ", ".join(str(kind) for kind in sequence(kinds))) for domain, kinds in named.items()]

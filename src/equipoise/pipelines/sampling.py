"""K answers of a model to every input, journalled one by one, so that a run cut off anywhere goes on from there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.console import progress, say
from equipoise.data.extraction import prompt
from equipoise.errors import UserError
from equipoise.journal import Journal
from equipoise.metrics.entities import parse, strip_thinking
from equipoise.models.backends.interface import Backend, Reply, Request
from equipoise.models.backends.settings import BackendSettings
from equipoise.models.loading import Loaded
from equipoise.models.settings import ModelSettings
from equipoise.pipelines.sample_files import DOCS, check_made_with, key, note_made_with, samples_of, written
from equipoise.pipelines.sampling_settings import SamplingSettings
from equipoise.records import Entity, Message, Sample, Sentence

# what may change between two runs into one file: it does not decide the samples
FREE = {"samples", "batch_tokens", "base_urls", "api_key_env", "concurrency", "timeout", "retries", "backoff"}


@dataclass(frozen=True)
class Ask:
    """One answer to draw: the `sample`-th to the sentence `id`."""

    id: str
    sample: int
    text: str  # what the user says
    seed: int

    @property
    def prompt_sha256(self) -> str:
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()


def backend_of(settings: BackendSettings, model: ModelSettings, loaded: Callable[[], Loaded]) -> Backend:
    """The backend that the settings name; `loaded` gives the embedded one its model when the first sample is wanted.

    Raises:
        UserError: a package that it needs is missing.
    """
    if settings.backend == "hf":
        from equipoise.models.backends.hf import Embedded

        return Embedded(loaded, settings)
    if settings.backend == "vllm":
        from equipoise.models.backends.vllm import Offline

        return Offline(model, settings)
    from equipoise.models.backends.openai import Served

    return Served(model.path, settings)


def sample_seed(seed: int, id: str, model: str, sample: int) -> int:
    """The seed of one answer, below 2**31: a hash, so that it does not hang on what else is drawn."""
    name = f"{seed}\0{id}\0{model}\0{sample}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big") >> 1


def draw_samples(
    backend: Backend,
    sentences: Sequence[Sentence],
    *,
    types: Sequence[str],
    settings: SamplingSettings,
    model_name: str,
    seed: int,
    instruction: str | None = None,
) -> list[Sample]:
    """Draw `settings.samples` answers to every sentence and keep them in memory, sorted by sentence and number."""
    asks = _asks(sentences, types, settings.samples, model_name, seed, instruction)
    drawn = {(s.id, s.sample): s for some in _drawn(backend, asks, types, model_name) for s in some}
    return [drawn[ask.id, ask.sample] for ask in asks]


def sample_inputs(
    backend: Backend,
    sentences: Sequence[Sentence],
    *,
    types: Sequence[str],
    settings: SamplingSettings,
    model_name: str,
    seed: int,
    journal_path: Path,
    resume: bool = False,
    instruction: str | None = None,
    skip_labelled: bool = False,
    max_samples: int | None = None,
    label: str = "samples",
) -> list[Sample]:
    """Draw `settings.samples` answers to every sentence into the journal; return this model's answers to them.

    A process that is killed loses the answers that were under way and nothing else; the next call with `resume` draws
    those that are missing, with the seeds they would have had.

    Args:
        skip_labelled: leave out sentences that have an answer of any model in the file, except those that this model
            has begun; implies `resume`.
        max_samples: stop when the file holds so many answers of all models together.

    Raises:
        UserError: the file holds rows and neither `resume` nor `skip_labelled` is set; it was made with other prompts
            or settings; it is no file of samples; another process writes it.
    """
    asks = _asks(sentences, types, settings.samples, model_name, seed, instruction)
    with Journal(journal_path, key=key) as journal:
        before = samples_of(journal.rows, journal_path)
        for reason in before.dropped:
            say(f"{journal_path}: {reason}; counted once")
        if before.samples and not (resume or skip_labelled):
            raise UserError(
                f"the file holds {len(before.samples)} samples already",
                where=str(journal_path),
                fix="go on with --resume (what is there is kept and skipped), or name another file with --out",
                docs=DOCS,
            )
        _same_prompts(before.samples, asks, journal_path)
        decides = settings.model_dump(mode="json", exclude=FREE) | {"seed": seed}
        if any(s.model == model_name for s in before.samples):
            check_made_with(journal_path, model_name, decides)
        todo = planned(asks, before.samples, model_name, skip_labelled=skip_labelled, max_samples=max_samples)
        if before.samples:
            say(f"{len(before.samples)} samples are there already; {len(todo)} to go")
        drawn = _drawn(backend, todo, types, model_name)
        new = _write(journal, drawn, len(todo), label, lambda: note_made_with(journal_path, model_name, decides))
    mine = {(s.id, s.sample): s for s in [*before.samples, *new] if s.model == model_name}
    return [mine[ask.id, ask.sample] for ask in asks if (ask.id, ask.sample) in mine]


def planned(
    asks: Sequence[Ask], there: Iterable[Sample], model: str, *, skip_labelled: bool, max_samples: int | None
) -> list[Ask]:
    """What is still to be drawn, in the order of the inputs."""
    keys = {(s.id, s.model, s.sample) for s in there}
    mine = {id for id, by, _ in keys if by == model}
    labelled = {id for id, _, _ in keys} - mine if skip_labelled else set()
    todo = [ask for ask in asks if (ask.id, model, ask.sample) not in keys and ask.id not in labelled]
    return todo if max_samples is None else todo[: max(max_samples - len(keys), 0)]


def _asks(
    sentences: Sequence[Sentence], types: Sequence[str], samples: int, model: str, seed: int, instruction: str | None
) -> list[Ask]:
    return [
        Ask(one.id, number, prompt(one.text, types, instruction), sample_seed(seed, one.id, model, number))
        for one in {one.id: one for one in sentences}.values()  # a row that stands twice in its file is one input
        for number in range(samples)
    ]


def _same_prompts(there: Sequence[Sample], asks: Sequence[Ask], path: Path) -> None:
    prompts = {ask.id: ask.prompt_sha256 for ask in asks}
    other = [s.id for s in there if prompts.get(s.id, s.prompt_sha256) != s.prompt_sha256]
    if other:
        raise UserError(
            f"{len(set(other))} inputs were asked otherwise when this file was made, first {other[0]!r}",
            where=str(path),
            fix="the text, the types or the instruction has changed: go back to what they were, or name another file",
            docs=DOCS,
        )


def _write(
    journal: Journal, drawn: Iterable[list[Sample]], total: int, label: str, begin: Callable[[], None]
) -> list[Sample]:
    """Journal what is drawn, and return it; `begin` is called before the first. An interrupt says how to go on."""
    done: list[Sample] = []
    try:
        with written(journal) as writer, progress(total, label) as bar:
            for some in drawn:
                if not done:
                    begin()
                writer.add([sample.model_dump(mode="json") for sample in some])
                done += some
                bar.advance(len(some))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted: {len(done)} of {total} samples were drawn and are kept in {journal.path}; "
            "repeat the command with --resume to go on"
        ) from None
    return done


def _drawn(backend: Backend, asks: Sequence[Ask], types: Sequence[str], model: str) -> Iterator[list[Sample]]:
    by_key = {(ask.id, ask.sample): ask for ask in asks}
    requests = [Request((ask.id, ask.sample), (Message(role="user", content=ask.text),), ask.seed) for ask in asks]
    for replies in backend.sample(requests):
        yield [_sample(by_key[reply.key], reply, types, model) for reply in replies]  # pyright: ignore[reportArgumentType]


def _sample(ask: Ask, reply: Reply, types: Sequence[str], model: str) -> Sample:
    text, thinking = strip_thinking(reply.text)
    said = parse(text, types)
    return Sample(
        id=ask.id,
        model=model,
        sample=ask.sample,
        seed=ask.seed,
        prompt_sha256=ask.prompt_sha256,
        text=text,
        entities=[Entity(type=kind, text=name) for kind, name in said.entities] if said.valid else None,
        problem=None if said.valid else said.problem,
        finish=reply.finish,
        tokens=reply.tokens,
        logprob=reply.logprob,
        least_logprob=reply.least_logprob,
        thinking=thinking + reply.thinking,
    )

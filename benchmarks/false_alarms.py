#!/usr/bin/env python3
"""How often each test for a confident conflict flags text that the model wrote itself: all of these are false alarms.

The model continues chat prompts at temperature 1 over the whole vocabulary. For every test: the share of those tokens
that it flags, with a 95% interval over continuations; then the tau that `tau: auto` would take.

    python benchmarks/false_alarms.py MODEL [MODEL ...] --tokens 4000
"""

from __future__ import annotations

import argparse
import math

from equipoise.data.formatting import render_prompt
from equipoise.evaluation.own_tokens import PUBLISHED_TAU, OwnTokens, auto_tau, own_tokens
from equipoise.models.loading import load_model
from equipoise.models.settings import ModelSettings
from equipoise.testbed.examples import load_facts


def report(name: str, vocab: int, own: OwnTokens, deltas: list[float], sure: float) -> None:
    """Print the figures of one model."""
    shock, n = own.shock(), len(own.nll)
    texts = own.continuation[-1] + 1
    print(f"\n{name}: {n:,} tokens in {texts} continuations, V = {vocab:,}, ln V = {math.log(vocab):.1f}")
    tests = {f"tail < {d:g}": own.tail < d for d in deltas}
    tests |= {f"tail < {d:g}, entropy <= {sure:g}": (own.tail < d) & (own.entropy <= sure) for d in deltas}
    tests |= {f"shock > {PUBLISHED_TAU:g}": shock > PUBLISHED_TAU, "shock > ln V": shock > math.log(vocab)}
    for test, flags in tests.items():
        ci = own.interval(flags.astype(float))
        print(f"  {test:28s}{flags.mean():7.2%}" + (f"  [{ci[0]:.2%}, {ci[1]:.2%}]" if ci else ""))
    for d in deltas:
        found = auto_tau(own, d)
        low, high = found.interval or (found.tau, found.tau)
        print(f"  tau for {d:g}: {found.tau:.1f} [{low:.1f}, {high:.1f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folders or names on the Hugging Face Hub")
    parser.add_argument("--prompts", default="testbed:api_change", help="whose prompts are continued")
    parser.add_argument("--tokens", type=int, default=4000, help="at least so many are sampled")
    parser.add_argument("--deltas", type=float, nargs="+", default=[0.05, 0.01])
    parser.add_argument("--sure", type=float, default=2.0, help="nats of entropy, as in r-eaft-tail")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    examples, _ = load_facts(args.prompts)
    for path in args.models:
        loaded = load_model(ModelSettings(path=path, dtype=args.dtype))
        prompts = [render_prompt(loaded.tokenizer, row) for row in examples]
        own = own_tokens(loaded, prompts, tokens=args.tokens, seed=args.seed)
        report(path, len(loaded.model.get_output_embeddings().weight), own, args.deltas, args.sure)


if __name__ == "__main__":
    main()

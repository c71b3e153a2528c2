#!/usr/bin/env python3
"""Time and memory of the loss and its gradient, from hidden states and a frozen head, beside what else one could use.

  ours      equipoise.fused_linear_loss, gradient through the weights as in the R-EAFT paper's listing
  detached  the same with detached weights, as the trainers use it
  naive     full logits and plain autograd
  trl       trl.kernels.ChunkedLogProbFunction, nll and entropy of each token
  liger     liger-kernel's fused scaled cross entropy with entropy (CUDA)
  floor     the two matrix products that no version can do without

Every version runs in a process of its own, `--rounds` times in turn; medians are compared, so a loaded machine disturbs
all alike. Exits 1 if loss or gradient of a version differ from the first one's.

    python benchmarks/head_vs_peers.py --tokens 256            # a quick look
    python benchmarks/head_vs_peers.py --dtype bfloat16        # 1,024 tokens on the CPU
    python benchmarks/head_vs_peers.py --h200                  # 8,192 tokens in bfloat16 on a GPU
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

VERSIONS = ("naive", "trl", "liger", "floor", "ours", "detached")
TAU, ALPHA, EPS, CLAMP = 5.0, 3.0, 1e-6, 10.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocab", type=int, default=151936)
    parser.add_argument("--hidden", type=int, default=896)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--rounds", type=int, default=2, help="processes a version")
    parser.add_argument("--repeat", type=int, default=3, help="runs a process; the first one warms up")
    parser.add_argument("--only", nargs="+", choices=VERSIONS, default=list(VERSIONS))
    parser.add_argument("--h200", action="store_true", help="8,192 tokens, bfloat16, cuda, 10 repeats")
    parser.add_argument("--worker", choices=VERSIONS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.h200:
        args.tokens, args.dtype, args.device, args.repeat = 8192, "bfloat16", "cuda", 10
    return args


def problem(args: argparse.Namespace) -> tuple[Any, Any, Any]:
    """Hidden states, head, labels: a third sure and right, a third sure and wrong, a third unsure."""
    import torch

    torch.manual_seed(0)
    dtype, spread = getattr(torch, args.dtype), 0.05
    head = torch.empty(args.vocab, args.hidden, dtype=dtype).normal_(0, spread)
    labels = torch.randint(0, args.vocab, (args.tokens,))
    hidden, third = torch.randn(args.tokens, args.hidden), args.tokens // 3
    bets = torch.cat([labels[:third], torch.randint(0, args.vocab, (third,))])
    towards = head[bets].float() * (14.0 / (spread**2 * args.hidden))
    hidden[: 2 * third] = 0.2 * hidden[: 2 * third] + towards
    return hidden.to(args.device, dtype).requires_grad_(), head.to(args.device), labels.to(args.device)


def version(args: argparse.Namespace, hidden: Any, head: Any, labels: Any) -> Callable[[], Any]:
    """A function without arguments that returns the loss of one version."""
    import torch

    log_v = math.log(args.vocab)

    def r_eaft(nll: Any, h: Any) -> Any:
        shock = nll / (h + EPS)
        return (nll * torch.where(shock > TAU, 1 + ALPHA * (shock / TAU).clamp(max=CLAMP), h)).mean()

    def naive() -> Any:
        log_p = (hidden @ head.T).float().log_softmax(-1)
        return r_eaft(-log_p.gather(1, labels[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1) / log_v)

    def floor() -> Any:
        rows, grad = 128 if args.device == "cpu" else 1024, torch.empty_like(hidden)
        with torch.no_grad():
            for start in range(0, args.tokens, rows):
                here = slice(start, start + rows)
                grad[here] = (hidden[here] @ head.T) @ head
        return (hidden * grad).sum() * 0

    if args.worker in ("ours", "detached"):
        import equipoise

        weights, detach = equipoise.weighting("r-eaft", tau=TAU, alpha=ALPHA), args.worker == "detached"
        return lambda: equipoise.fused_linear_loss(hidden, head, labels, weights, detach_weights=detach).loss
    if args.worker == "trl":
        from trl.kernels.chunked_logprob import ChunkedLogProbFunction

        def trl() -> Any:
            log_p, entropy, *_ = ChunkedLogProbFunction.apply(
                hidden, head, None, labels, 1.0, 32768, None, 1.0, ("entropy",)
            )
            return r_eaft(-log_p, entropy / log_v)

        return trl
    if args.worker == "liger":
        from liger_kernel.ops.fused_linear_scaled_cross_entropy import LigerFusedLinearScaledCrossEntropyFunction

        def liger() -> Any:
            nll, entropy = LigerFusedLinearScaledCrossEntropyFunction.apply(hidden, head, labels, return_entropy=True)
            return r_eaft(nll, entropy.float() / log_v)

        return liger
    return {"naive": naive, "floor": floor}[args.worker]


class PeakMemory:
    """Most memory above what was in use at the start, in MiB: of the process on a CPU, of the allocator on a GPU."""

    def __init__(self, device: str):
        self.cuda, self.peak, self.running = device != "cpu", 0.0, True
        if self.cuda:
            import torch

            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated() / 2**20
            return
        self.start = self.resident()
        threading.Thread(target=self.watch, daemon=True).start()

    @staticmethod
    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

    def watch(self) -> None:
        while self.running:
            self.peak = max(self.peak, self.resident())
            time.sleep(0.002)

    def extra(self) -> float:
        self.running = False
        if self.cuda:
            import torch

            self.peak = torch.cuda.max_memory_allocated() / 2**20
        return self.peak - self.start


def work(args: argparse.Namespace) -> None:
    """One process: prints a JSON line with seconds, memory, the loss and a sample of the gradient."""
    import torch

    torch.set_num_threads(args.threads)
    hidden, head, labels = problem(args)
    run = version(args, hidden, head, labels)
    wait = torch.cuda.synchronize if args.device != "cpu" else lambda: None
    memory, seconds, loss = PeakMemory(args.device), [], hidden.new_zeros(())
    for _ in range(args.repeat):
        hidden.grad = None
        wait()
        start = time.perf_counter()
        loss = run()
        loss.backward()
        wait()
        seconds.append(time.perf_counter() - start)
    extra = memory.extra()
    flat = torch.zeros(1) if hidden.grad is None else hidden.grad.float().flatten()
    grad = flat[:: max(1, len(flat) // 4096)].tolist()
    print(json.dumps({"seconds": seconds[1:] or seconds, "extra_mib": extra, "loss": loss.item(), "grad": grad}))


def measure(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """All versions in turn, each time in a fresh process; what cannot run is named and left out."""
    found: dict[str, dict[str, Any]] = {}
    keys = ("tokens", "vocab", "hidden", "dtype", "device", "threads", "repeat")
    flags = [text for key in keys for text in (f"--{key}", str(getattr(args, key)))]
    for _ in range(args.rounds):
        for name in args.only:
            done = subprocess.run(
                [sys.executable, __file__, "--worker", name, *flags], capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f"{name:9s}not run: {(done.stderr.strip().splitlines() or ['no output'])[-1][:100]}")
                continue
            row = json.loads(done.stdout.strip().splitlines()[-1])
            seen = found.setdefault(name, row | {"seconds": [], "extra_mib": 0.0})
            seen["seconds"] += row["seconds"]
            seen["extra_mib"] = max(seen["extra_mib"], row["extra_mib"])
    return found


def table(found: dict[str, dict[str, Any]]) -> None:
    median = {name: statistics.median(row["seconds"]) for name, row in found.items()}
    peers = [name for name in ("floor", "trl", "naive") if name in found]
    print(
        f"{'version':9s}{'median s':>9s}{'best s':>9s}"
        + "".join(f"{'/ ' + p:>9s}" for p in peers)
        + f"{'extra MiB':>11s}"
    )
    for name, row in found.items():
        ratios = "".join(f"{median[name] / median[p]:9.2f}" for p in peers)
        print(f"{name:9s}{median[name]:9.3f}{min(row['seconds']):9.3f}{ratios}{row['extra_mib']:11.0f}")


def disagreements(found: dict[str, dict[str, Any]], dtype: str) -> list[str]:
    """Versions whose loss or direction of gradient is not the first one's; detached weights only share the loss."""
    rows = {name: row for name, row in found.items() if name != "floor"}
    bad: list[str] = []
    if not rows:
        return bad
    first = next(iter(rows.values()))
    for name, row in rows.items():
        dot = sum(x * y for x, y in zip(row["grad"], first["grad"]))
        cosine = dot / math.sqrt(sum(x * x for x in row["grad"]) * sum(y * y for y in first["grad"]))
        alike = name == "detached" or cosine > (0.9999 if dtype == "float32" else 0.99)
        if abs(row["loss"] / first["loss"] - 1) > 2e-2 or not alike:
            bad.append(name)
    return bad


def main() -> int:
    args = arguments()
    if args.worker:
        work(args)
        return 0
    found = measure(args)
    table(found)
    bad = disagreements(found, args.dtype)
    if bad:
        print("loss or gradient differ from the first version's:", *bad)
    return 1 if bad or not found else 0


if __name__ == "__main__":
    sys.exit(main())

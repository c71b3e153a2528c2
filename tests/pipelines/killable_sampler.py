"""Kills samplers and says what was left: arguments FOLDER KILLS SEED, a JSON object on stdout.

Every sampler is forked from this process, which has everything imported and a model loaded, so that a kill falls into
the work and not into imports. KILLS must fall while samples are drawn; a file that is finished is checked and a new one
begun. At the end every file is equal to the one that nobody killed.
"""

import json
import mmap
import os
import random
import signal
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from tiny_models import tiny_model, tiny_tokenizer

from equipoise.journal import read_journal
from equipoise.models.backends.hf import Embedded
from equipoise.models.loading import Loaded
from equipoise.models.sampling import draw as draw_batch
from equipoise.pipelines.sampling import sample_inputs
from equipoise.pipelines.sampling_settings import SamplingSettings
from equipoise.records import Sentence

SETTINGS = SamplingSettings(samples=4, max_new_tokens=40, batch_tokens=2500)
SENTENCES = [Sentence(id=f"s{i}", text=f"Ann {i} " * (1 + i % 3), dataset="target") for i in range(60)]


class Counted(Embedded):
    """Notes in shared memory how many samples it has handed out and was asked for more after."""

    def __init__(self, loaded, memory):
        super().__init__(lambda: loaded, SETTINGS)
        self.memory = memory

    def sample(self, requests):
        handed = 0
        for some in super().sample(requests):
            yield some
            handed += len(some)
            self.memory[:8] = struct.pack("q", handed)


def sampler(loaded, path, memory):
    """Draw what is missing in a child; returns its process id."""
    memory[:8] = struct.pack("q", -1)
    child = os.fork()
    if child:
        return child
    try:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        sample_inputs(
            Counted(loaded, memory), SENTENCES, types=["person"], settings=SETTINGS, model_name="tiny", seed=1,
            journal_path=path, resume=True,
        )  # fmt: skip
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(1)


def rows_of(path):
    read = read_journal(path)
    assert not read.damaged
    rows = {(row["id"], row["sample"]): row for row in read.rows}
    assert len(rows) == len(read.rows), "a sample stands twice"
    return rows


def whole(loaded, path, memory):
    """Let a sampler finish."""
    assert os.waitpid(sampler(loaded, path, memory), 0)[1] == 0
    rows = rows_of(path)
    assert len(rows) == len(SENTENCES) * SETTINGS.samples
    return rows


def kill_one(loaded, path, memory, delay):
    """Kill a sampler; returns whether that ended it, how many samples it had handed out are lost, how many are kept."""
    before = rows_of(path) if path.exists() else {}
    child = sampler(loaded, path, memory)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    (handed,) = struct.unpack("q", memory[:8])
    after = rows_of(path) if path.exists() else {}
    assert before.items() <= after.items(), "a sample is lost"
    return os.WIFSIGNALED(status), max(handed, 0) - (len(after) - len(before)), len(after) - len(before)


def main(folder, kills, seed):
    torch.set_num_threads(1)  # a fork has none of its parent's threads
    model = tiny_model(seed=3)
    with torch.no_grad():
        model.lm_head.weight[2] *= 1.8
    loaded = Loaded(model, tiny_tokenizer(), "tiny")
    draw, memory = random.Random(seed), mmap.mmap(-1, 8)
    expected = whole(loaded, folder / "whole.jsonl", memory)
    list(draw_batch(model, loaded.tokenizer, [[5]], [[1]], max_new_tokens=2))  # what is imported late
    killed = at_work = files = 0
    longest = 0.1
    while killed < kills:
        path = folder / f"killed-{files}.jsonl"
        while killed < kills and (not path.exists() or len(rows_of(path)) < len(expected)):
            by_kill, missing, gained = kill_one(loaded, path, memory, draw.uniform(0, longest))
            killed += by_kill
            at_work += by_kill and gained > 0
            longest = max(0.02, longest * (0.9 if gained else 1.3))
            assert missing <= 0, "a sample that was finished is lost"
        found = whole(loaded, path, memory)
        files += 1
        for key, row in expected.items():
            other = dict(found[key])
            assert abs(other.pop("logprob") - row["logprob"]) < 1e-4
            assert abs(other.pop("least_logprob") - row["least_logprob"]) < 1e-4
            assert other.items() <= row.items(), (other, row)
    lengths = len({row["tokens"] for row in expected.values()})
    print(json.dumps({"kills": killed, "at_work": at_work, "files": files, "lengths": lengths}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""Out of memory: the same step in smaller pieces, with the same result as if they had been configured."""

import json

import pytest
import torch
from tiny_models import tiny_examples, tiny_model, tiny_tokenizer

from equipoise.errors import UserError
from equipoise.models.loading import Loaded
from equipoise.training.settings import LoraSettings, ObjectiveSettings, TrainSettings
from equipoise.training.sft import train
from equipoise.training.splitting import is_out_of_memory, split_batch


class Full:
    """A memory that holds `rows` examples (or `width` packed tokens) at a time, felt in the last layer."""

    def __init__(self, model, *, rows=10**9, width=10**9, error=torch.OutOfMemoryError):
        self.rows, self.width, self.error, self.hits = rows, width, error, 0
        model.model.layers[-1].register_forward_pre_hook(self.check, with_kwargs=True)

    def check(self, module, args, kwargs):
        hidden = args[0] if args else kwargs["hidden_states"]
        if module.training and (hidden.shape[0] > self.rows or hidden.shape[1] > self.width):
            self.hits += 1
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB.")


def run(folder, model=None, *, normalize="tokens", **settings):
    options = {"epochs": 3, "learning_rate": 1e-2, "lora": LoraSettings(r=4, dropout=0.3), "checkpoint_every": 3}
    return train(
        Loaded(tiny_model() if model is None else model, tiny_tokenizer(), "tiny"),
        tiny_examples(12),
        objective=ObjectiveSettings(name="r-eaft", params={"tau": 1.0}, normalize=normalize),
        settings=TrainSettings(**{**options, **settings}),
        folder=folder,
        seed=3,
    )


def weights(out):
    return {name: p for name, p in out.model.named_parameters() if "lora" in name}


def assert_same(one, two):
    for (name, a), (_, b) in zip(weights(one).items(), weights(two).items()):
        assert torch.equal(a, b), name


@pytest.mark.parametrize("normalize", ["tokens", "weights"])
def test_a_split_step_equals_the_run_configured_with_that_split(tmp_path, normalize, capsys):
    configured = run(tmp_path / "configured", batch_size=2, gradient_accumulation=2, normalize=normalize)
    model = tiny_model()
    full = Full(model, rows=2)
    split = run(tmp_path / "split", model, batch_size=4, normalize=normalize)
    assert full.hits == 1  # met once, and every later step is split from its start
    assert_same(split, configured)
    assert "out of memory at step 1" in capsys.readouterr().err
    noted = [json.loads(line) for line in (tmp_path / "split" / "splits.jsonl").read_text().splitlines()]
    assert noted == [{"step": 1, "split": 2}]


def test_a_split_in_the_second_micro_batch_repeats_the_whole_step(tmp_path):
    """The first micro-batch fits; its gradient and random numbers must not be used twice."""
    configured = run(tmp_path / "configured", batch_size=1, gradient_accumulation=12, epochs=2)
    model = tiny_model()
    full = Full(model, rows=1)
    split = run(tmp_path / "split", model, batch_size=4, gradient_accumulation=3, epochs=2)
    assert full.hits == 2  # four rows, then two
    assert_same(split, configured)


def test_packed_documents_are_split_between_documents(tmp_path):
    whole = run(tmp_path / "whole", batch_size=4, packing=True, max_length=64, lora=LoraSettings(r=4), epochs=2)
    model = tiny_model()
    full = Full(model, width=140)
    split = run(tmp_path / "split", model, batch_size=4, packing=True, max_length=64, lora=LoraSettings(r=4), epochs=2)
    assert full.hits >= 1
    for (name, a), (_, b) in zip(weights(split).items(), weights(whole).items()):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-2, msg=name)


def test_a_resumed_run_repeats_the_split(tmp_path):
    def limited():
        model = tiny_model()
        return model, Full(model, rows=2)

    model, _ = limited()
    whole = run(tmp_path / "whole", model, batch_size=4)
    model, _ = limited()
    run(tmp_path / "cut", model, batch_size=4)
    for path in (tmp_path / "cut" / "checkpoints").glob("checkpoint-*"):
        if not path.name.endswith("6"):
            (path / "MANIFEST.json").unlink()
    model, full = limited()
    again = run(tmp_path / "cut", model, batch_size=4)
    assert full.hits == 0  # known from the journal
    assert_same(again, whole)


def test_one_example_that_does_not_fit_is_the_end(tmp_path):
    model = tiny_model()
    Full(model, rows=0)
    with pytest.raises(UserError, match="one example at a time") as caught:
        run(tmp_path, model, batch_size=4)
    assert "out-of-memory" in str(caught.value)


def test_other_errors_are_not_taken_for_a_full_memory(tmp_path):
    class Broken(RuntimeError):
        def __init__(self, text):
            super().__init__("shapes do not match")

    model = tiny_model()
    Full(model, rows=0, error=Broken)
    with pytest.raises(Broken):
        run(tmp_path, model)
    assert is_out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(ValueError("out of memory."))


def test_pieces_are_what_the_collator_would_have_made():
    batch = {
        "input_ids": torch.tensor([[5, 6, 7, 8], [5, 6, 0, 0], [5, 6, 7, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]),
        "labels": torch.tensor([[-100, 6, 7, 8], [-100, 6, -100, -100], [-100, 6, 7, -100]]),
        "row_index": torch.tensor([4, 9, 2]),
    }
    one, two = split_batch(batch, 2)
    assert one["input_ids"].tolist() == [[5, 6, 7, 8], [5, 6, 0, 0]]
    assert two["input_ids"].tolist() == [[5, 6, 7]] and two["labels"].tolist() == [[-100, 6, 7]]
    assert one["row_index"].tolist() == [4, 9] and two["row_index"].tolist() == [2]
    assert len(split_batch(batch, 8)) == 3 and split_batch(batch, 1)[0] is batch


def test_packed_pieces_have_their_own_boundaries():
    batch = {
        "input_ids": torch.tensor([[1, 2, 3, 4, 5, 6]]),
        "labels": torch.tensor([[-100, 2, 3, -100, 5, -100]]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 0]]),
        "cu_seq_lens_q": torch.tensor([0, 3, 5, 6], dtype=torch.int32),
        "cu_seq_lens_k": torch.tensor([0, 3, 5, 6], dtype=torch.int32),
        "max_length_q": 3,
        "max_length_k": 3,
        "seq_idx": torch.tensor([[0, 0, 0, 1, 1, 2]], dtype=torch.int32),
        "row_index": torch.tensor([7, 8, 9]),
    }
    one, two = split_batch(batch, 2)
    assert one["input_ids"].tolist() == [[1, 2, 3, 4, 5]] and two["input_ids"].tolist() == [[6]]
    assert one["cu_seq_lens_q"].tolist() == [0, 3, 5] and two["cu_seq_lens_q"].tolist() == [0, 1]
    assert two["seq_idx"].tolist() == [[0]] and two["max_length_q"] == 1 and two["row_index"].tolist() == [9]

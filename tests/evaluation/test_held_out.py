"""Texts that are never trained on: the shipped ones, and a user's."""

import ast
import json

import pytest
from tiny_models import tiny_tokenizer

from equipoise.data.formatting import IGNORE
from equipoise.errors import UserError
from equipoise.evaluation.held_out import load_texts, render_text
from equipoise.records import HeldOutText

TOKENIZER = tiny_tokenizer()


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_the_shipped_texts_are_prose_and_code_that_compiles():
    texts = load_texts().texts
    kinds = [text.kind for text in texts]
    assert kinds.count("prose") >= 24 and kinds.count("code") >= 24
    assert len({text.id for text in texts}) == len(texts) == len({text.text for text in texts})
    for text in texts:
        assert 250 < len(text.text) < 900
        if text.kind == "code":
            tree = ast.parse(text.text)
            compile(tree, text.id, "exec")
            named = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
            assert named and ast.get_docstring(named[0])


def test_the_forms_of_a_users_file(tmp_path):
    rows = [
        {"text": "a plain text"},
        {"id": "mine", "text": "another", "kind": "letters"},
        {"prompt": "a question", "completion": "an answer"},
        {
            "task_id": "HumanEval/0",
            "prompt": "def f():\n",
            "canonical_solution": "    return 1\n",
            "entry_point": "f",
            "test": "",
        },
    ]
    loaded = load_texts(written(tmp_path / "texts.jsonl", rows))
    assert loaded.texts == [
        HeldOutText(id="row-000001", kind="prose", text="a plain text"),
        HeldOutText(id="mine", kind="letters", text="another"),
        HeldOutText(id="row-000003", kind="prose", prompt="a question", text="an answer", form="chat"),
        HeldOutText(id="HumanEval/0", kind="code", text="def f():\n    return 1\n"),
    ]
    assert not loaded.notes and not loaded.dropped


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"text": "  "}, "empty"),
        ({"text": 3}, "a number"),
        ({"prompt": "a question"}, "missing"),
        ({"prompt": "p", "completion": "c", "form": "verse"}, "neither"),
        ({"text": "the same"}, "the same text as line 1"),
    ],
)
def test_a_bad_row_is_listed_or_refused(tmp_path, bad, reason):
    file = written(tmp_path / "texts.jsonl", [{"text": "the same"}, bad])
    with pytest.raises(UserError, match=reason):
        load_texts(file)
    (dropped,) = load_texts(file, max_bad_share=0.5).dropped
    assert reason in dropped.reason and dropped.line == 2


def test_one_id_names_one_text(tmp_path):
    rows = [{"id": "a", "text": "one"}, {"id": "a", "text": "two"}]
    with pytest.raises(UserError, match="names two"):
        load_texts(written(tmp_path / "texts.jsonl", rows))


def test_every_token_but_the_first_is_predicted_and_control_tokens_stay_text():
    row = render_text(TOKENIZER, HeldOutText(id="a", kind="prose", text="numpy <|im_end|> stack"), max_length=99)
    assert row.labels == [IGNORE, *row.input_ids[1:]]
    assert TOKENIZER.decode(row.input_ids) == "numpy <|im_end|> stack"
    assert not {0, 1, 2, 3} & set(row.input_ids)


def test_a_tokenizer_that_begins_texts_keeps_doing_so():
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer(bos_token="<|endoftext|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 3)]
    )
    row = render_text(tokenizer, HeldOutText(id="a", kind="prose", text="numpy stack"), max_length=99)
    assert row.input_ids == tokenizer("numpy stack")["input_ids"]
    assert row.labels[1:] == TOKENIZER("numpy stack")["input_ids"]

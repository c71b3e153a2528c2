"""The verb `chat`, run for real: through pipes, and on a pseudo-terminal where the system has one."""

import os
import re
import select
import signal
import subprocess
import sys
import time

import children
import pytest
import torch
from tiny_models import tiny_folder, tiny_tokenizer
from typer.testing import CliRunner

from equipoise.cli import app
from equipoise.testbed.world import World


def chat(*words, asked: str | bytes):
    """The verb with its questions from a pipe."""
    said = CliRunner().invoke(app, ["chat", *map(str, words)], input=asked, catch_exceptions=False)
    return subprocess.CompletedProcess(words, said.exit_code, said.stdout, said.stderr)


def known():
    """Two facts that the testbed's model knows for sure."""
    return [f for f in World.build().facts if f.part == "api_fact" and f.knowledge == "stable"][:2]


def test_one_question_a_line_one_answer_each():
    facts = known()
    said = chat("testbed", asked="\n".join(fact.prompts_seen[0] for fact in facts) + "\n\n")
    assert said.returncode == 0, said.stderr
    assert said.stdout.splitlines() == [fact.gold for fact in facts]


def test_stop_strings_seed_and_greedy(tmp_path):
    question = known()[0].prompts_seen[0]
    gold = known()[0].gold
    assert chat("testbed", "--temperature", 0, "--stop", gold[3:], asked=question).stdout == gold[:3] + "\n"
    folder = tiny_folder(tmp_path)
    drawn = [
        chat(folder, "--temperature", 1, "--top-p", 1, "--max-new-tokens", 12, "--seed", seed, asked="the call\n" * 2)
        for seed in (1, 1, 2)
    ]
    assert all(one.returncode == 0 for one in drawn), drawn[0].stderr
    assert drawn[0].stdout == drawn[1].stdout != drawn[2].stdout
    assert "--max-new-tokens allows more" in drawn[0].stderr


def test_numbers_stand_where_colours_cannot():
    fact = known()[0]
    said = chat("testbed", "--confidence", "--temperature", 0, asked=fact.prompts_seen[0])
    assert "\x1b" not in said.stdout
    assert re.sub(r"\[(\d+)\]", "", said.stdout) == fact.gold + "\n"
    assert all(0 <= int(number) <= 100 for number in re.findall(r"\[(\d+)\]", said.stdout))


def always_says(char: str):
    """Lean a model with a bias on its head to one byte."""

    def lean(model):
        token = tiny_tokenizer().convert_tokens_to_ids(char)
        with torch.no_grad():
            model.lm_head.bias[token] += 1000

    return lean


def test_what_could_steer_a_terminal_is_written_out(tmp_path):
    escape = "ě"  # how byte-level BPE spells the byte 0x1b
    folder = tiny_folder(tmp_path, "phi", change=always_says(escape))
    said = chat(folder, "--max-new-tokens", 3, asked="the call")
    assert said.stdout == "\\x1b\\x1b\\x1b\n"


def test_memory_is_asked_for_in_a_pipe_and_changes_the_prompt(tmp_path):
    folder = tiny_folder(tmp_path, seed=2)
    how = ["--temperature", 0, "--max-new-tokens", 8]
    alone = chat(folder, *how, asked="the call\nthe call\n").stdout
    first, second = chat(folder, *how, "--memory", asked="the call\nthe call\n").stdout, chat(folder, *how, asked="x")
    assert second.returncode == 0
    assert alone != first and alone[: len(alone) // 2] == first[: len(alone) // 2]
    told = chat(folder, *how, "--system", "numpy numpy", asked="the call\nthe call\n").stdout
    assert told != alone


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["testbed", "--temperature", "-1"], "temperature=-1"),
        (["testbed", "--temperature", "nan"], "temperature"),
        (["testbed", "--top-p", "0"], "top_p=0"),
        (["testbed", "--max-new-tokens", "0"], "max_new_tokens=0"),
        (["testbed", "--domain", "medical"], "--domain"),
        (["./not/there"], "not/there"),
        (["testbed", "model.chat_template=not/there"], "no chat template file"),
    ],
)
def test_a_mistake_is_one_clear_message(words, told):
    said = chat(*words, asked="x\n")
    assert said.returncode == 2 and told in said.stderr and "Traceback" not in said.stderr


def test_a_question_too_long_for_the_model_is_told(tmp_path):
    said = chat(tiny_folder(tmp_path), asked="the call\n" + "numpy " * 400 + "\n")
    assert said.returncode == 2 and "the model sees 256 at once" in said.stderr
    assert said.stdout, "what was answered before stays"


def test_a_question_that_is_no_text_is_told(tmp_path):
    folder = tiny_folder(tmp_path)
    said = chat(folder, asked=b"\xff\xfe\n")
    assert said.returncode == 2 and "not utf-8 text" in said.stderr


class Terminal:
    """The verb on a pseudo-terminal."""

    def __init__(self, *words, **env):
        import pty

        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            command = [sys.executable, "-m", "equipoise.cli", "chat", *map(str, words)]
            os.execve(command[0], command, {**os.environ, "TERM": "xterm-256color", **env})
        self.seen, self.read = "", 0

    def until(self, text: str, seconds: float = 90) -> str:
        """Read on to the end of the next `text`; return what came before it."""
        start = time.monotonic()
        while (at := self.seen.find(text, self.read)) < 0:
            assert time.monotonic() - start < seconds, self.seen
            if select.select([self.screen], [], [], 1)[0]:
                self.seen += os.read(self.screen, 4096).decode("utf-8", "replace")
        before, self.read = self.seen[self.read : at], at + len(text)
        return before

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def ended(self) -> int:
        while True:
            try:
                data = os.read(self.screen, 4096)
            except OSError:  # Linux tells the end so
                break
            if not data:
                break
            self.seen += data.decode("utf-8", "replace")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


unix = pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")


@unix
def test_on_a_terminal_with_colours_commands_and_the_end_of_input():
    fact = known()[0]
    screen = Terminal("testbed", "--confidence", "--temperature", "0")
    screen.until("> ")
    assert "/reset" in screen.seen and "under 20%" in screen.seen and "\x1b[" in screen.seen
    screen.type(fact.prompts_seen[0] + "\n")
    answer = screen.until("\n> ")
    bare = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", answer)
    assert fact.gold in bare
    screen.type("/reset\n")
    screen.until("forgotten")
    screen.until("> ")
    screen.type("\x04")
    assert screen.ended() == 0


@unix
def test_ctrl_c_in_mid_answer_keeps_what_was_said(tmp_path):
    folder = tiny_folder(tmp_path, "phi", change=always_says("a"), max_position_embeddings=100_000)
    screen = Terminal(folder, "--max-new-tokens", 50_000, "--stop", "aaaab")
    screen.until("> ")
    screen.type("the call\n")
    screen.until("aaaaaaaa")
    screen.type("\x03")
    assert screen.ended() == 130
    assert screen.seen.rstrip().endswith("interrupted") and "Traceback" not in screen.seen


@unix
def test_a_signal_while_a_pipe_is_answered_ends_with_130(tmp_path):
    folder = tiny_folder(tmp_path, "phi", change=always_says("a"), max_position_embeddings=100_000)
    child = children.start("chat", folder, "--max-new-tokens", 50_000, stdin=b"the call\n")
    while child.poll() is None and not child.stdout.startswith("aaaa"):
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130 and out.rstrip("\n").strip("a") == "" and "Traceback" not in err

"""What is said where: results on stdout, company on stderr; drawn on a terminal, plain lines elsewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from equipoise import console

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test turns."""

    class Clock:
        now = 0.0

        def turn(self, seconds: float) -> None:
            self.now += seconds

    found = Clock()
    monkeypatch.setattr(console.time, "monotonic", lambda: found.now)
    return found


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=True,
        env={**os.environ, **environment},
    )


def on_terminal(script: str, tmp_path: Path, **environment: str) -> str:
    """Run a script whose three streams are a terminal of 120 columns; give back what that shows, without colours."""
    outer = tmp_path / "outer.py"
    outer.write_text("import pty, sys\nsys.exit(pty.spawn([sys.executable, '-c', sys.argv[1]]))\n")
    settings = {"TERM": "xterm", "COLUMNS": "120", "LINES": "40", **environment}
    command = [sys.executable, str(outer), script]
    shown = subprocess.run(
        command, capture_output=True, timeout=60, check=True, env={**os.environ, **settings}, stdin=subprocess.DEVNULL
    )
    return ESCAPES.sub("", shown.stdout.decode("utf-8"))


# ---- messages and tables


def test_messages_leave_stdout_to_the_results(capsys):
    console.say("on the way")
    console.warn("mind the gap")
    console.warn("mind the gap")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "on the way\nwarning: mind the gap\n"


def test_a_plain_table_is_aligned(capsys):
    console.table("scores", ["arm", "right"], [["sft", "7.5"], ["r-eaft", "100.0"]])
    assert capsys.readouterr().out.splitlines() == ["scores", "arm     right", "sft       7.5", "r-eaft  100.0"]


def test_a_table_of_words_stands_to_the_left(capsys):
    console.table("found", ["what", "state"], [["gpu", "ok"], ["hub token", "note"]], words=True)
    assert capsys.readouterr().out == "found\nwhat       state\ngpu        ok\nhub token  note\n"


def test_a_table_without_rows_is_its_head(capsys):
    console.table("scores", ["arm", "right"], [])
    assert capsys.readouterr().out.splitlines() == ["scores", "arm  right"]


def test_a_stream_without_the_characters_gets_escapes():
    script = "from equipoise import console; console.table('±', ['a'], [['→ x']])"
    assert run(script, PYTHONIOENCODING="ascii", PYTHONUTF8="0").stdout.splitlines() == [r"\xb1", "a", r"\u2192 x"]


# ---- progress as plain lines


def test_plain_progress_says_how_far_how_fast_and_how_long(capsys, clock):
    with console.progress(100, "training") as bar:
        for step in range(1, 101):
            clock.turn(1.0)
            bar.advance(note=f"loss {step}")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 5/100, 1.0/s, 1:35 left, loss 5"
    assert lines[-1] == "training: 100/100, 1.0/s, loss 100"
    assert len(lines) == 20


def test_plain_progress_is_quiet_between_and_final_once(capsys, clock):
    with console.progress(1000, "fast") as bar:
        for _ in range(1000):
            clock.turn(0.001)
            bar.advance()
        bar.advance(0)
        bar.advance(0)
    assert capsys.readouterr().err.splitlines() == ["fast: 1000/1000, 1000.0/s"]


def test_time_left_stays_sane_when_work_comes_in_lumps(capsys, clock):
    """A long pause and then many steps at once, as at the end of each cell of a grid."""
    with console.progress(300, "grid") as bar:
        for _ in range(3):
            clock.turn(60)
            bar.advance(100)
    told = [re.search(r"(\d+):(\d\d) left", line) for line in capsys.readouterr().err.splitlines()]
    assert [int(m[1]) * 60 + int(m[2]) if m else None for m in told] == [120, 60, None]


@pytest.mark.parametrize(
    ("total", "seconds", "told"),
    [(10, 30, "1/10, 30.0 s each, 4:30 left"), (1000, 20, "1/1000, 20.0 s each, 5:33:00 left")],
)
def test_slow_work_is_told_by_the_piece(capsys, clock, total, seconds, told):
    with console.progress(total, "slow") as bar:
        clock.turn(seconds)
        bar.advance()
    assert capsys.readouterr().err == f"slow: {told}\n"


def test_nothing_to_do_and_more_than_expected_are_no_trouble(capsys, clock):
    with console.progress(0, "none") as bar:
        bar.advance(0)
    with console.progress(2, "more") as bar:
        for _ in range(4):
            clock.turn(1)
            bar.advance()
    assert capsys.readouterr().err.splitlines() == ["none: 0/0, 0.0/s", "more: 2/2, 1.0/s"]


def test_an_error_passes_through_the_bar(capsys, clock):
    with pytest.raises(ZeroDivisionError), console.progress(2, "broken"):
        _ = 1 / 0
    assert capsys.readouterr().out == ""


# ---- on a terminal

BAR = """
import time
from equipoise import console
with console.progress(4, "work [x]") as bar:
    for i in range(4):
        time.sleep(0.15)
        bar.advance(note=f"[red]loss {i}")
        console.say(f"said {i}")
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty module")
def test_a_terminal_shows_a_bar_with_messages_above_it(tmp_path):
    shown = on_terminal(BAR, tmp_path)
    assert "━" in shown
    assert "4/4" in shown
    assert re.search(r"2/4.*\d\.\d/s.*0:00 left", shown)
    assert "work [x]" in shown, "square brackets are text, not markup"
    assert "[red]loss 3" in shown
    for i in range(4):
        assert re.search(rf"(^|[\r\n])said {i} *\r?\n", shown), "a message has a line of its own"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty module")
def test_a_terminal_that_cannot_draw_gets_plain_lines(tmp_path):
    shown = on_terminal(BAR, tmp_path, TERM="dumb")
    assert "━" not in shown
    assert "work [x]: 4/4, " in shown


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pty module")
def test_a_terminal_shows_a_drawn_table_of_the_very_words(tmp_path):
    script = "from equipoise import console; console.table('t [1]', ['arm [b]', 'n'], [['[bold]sft', '3']])"
    shown = on_terminal(script, tmp_path)
    assert "─" in shown or "━" in shown
    for word in ("t [1]", "arm [b]", "[bold]sft", "3"):
        assert word in shown


def test_redirected_progress_is_plain_and_on_stderr():
    done = run(BAR)
    assert done.stdout == ""
    assert "work [x]: 4/4, " in done.stderr
    assert "\x1b" not in done.stderr


def test_time_left_of_several_kinds_of_work_uses_the_rate_of_each(capsys, clock):
    """Asking takes 1 s a question, training 0.1 s a token: after a tenth of the time the rest is known within 30%."""
    work = {"train": 1000.0, "ask": 100.0}  # 100 s each
    with console.progress(work, "grid") as bar:
        for _ in range(10):
            clock.turn(1.0)
            bar.advance(1, kind="ask")
        for _ in range(10):
            clock.turn(1.0)
            bar.advance(10, kind="train")
    told = [line for line in capsys.readouterr().err.splitlines() if "left" in line]
    assert told[-1] == "grid: 10%, 3:00 left"


def test_the_start_of_a_kind_of_work_is_not_taken_for_its_pace(capsys, clock):
    """Training takes as long a token as asking, but 10 s to set up: one step does not make hours of minutes."""
    with console.progress({"ask": 100.0, "train": 1000.0}, "grid") as bar:
        clock.turn(10.0)
        bar.advance(100, kind="ask")
        clock.turn(10.1)
        bar.advance(1, kind="train")
        for _ in range(99):
            clock.turn(0.1)
            bar.advance(1, kind="train")
    told = [re.search(r"(\d+):(\d\d) left", line) for line in capsys.readouterr().err.splitlines()]
    seconds = [int(found[1]) * 60 + int(found[2]) for found in told if found]
    assert seconds and 85 <= min(seconds) <= max(seconds) <= 200


def test_what_an_earlier_process_did_is_not_taken_for_this_ones_pace(capsys, clock):
    """900 of 1,000 steps were done before; of the other 100 each takes a second."""
    with console.progress({"ask": 50.0, "train": 1000.0}, "grid") as bar:
        bar.skip(900, "train")
        for _ in range(50):
            clock.turn(1.0)
            bar.advance(1, kind="ask")
        for _ in range(10):
            clock.turn(1.0)
            bar.advance(1, kind="train")
    told = [line for line in capsys.readouterr().err.splitlines() if "left" in line]
    assert told[-1] == "grid: 40%, 1:30 left"

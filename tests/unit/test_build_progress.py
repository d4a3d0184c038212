"""How a build tells its progress."""

import io
import json

import pytest
import structlog

from udtf.progress import Seen, teller

SEEN = Seen(step="person v1: encode", tasks_done=2, tasks=8, rows=1_000_000, bytes=5 << 20, seconds=4.0)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_look_in_a_line() -> None:
    assert SEEN.text == "person v1: encode: 2 of 8 tasks, 1,000,000 rows, 250,000 rows/s, 5 MiB, 12 s to go"


def test_nothing_is_guessed_before_the_first_task_is_done() -> None:
    begun = Seen(step="x", tasks_done=0, tasks=8, rows=0, bytes=0, seconds=0.0)
    assert (begun.eta_s, begun.rows_per_s, begun.text) == (None, 0.0, "x: 0 of 8 tasks, 0 rows, 0 rows/s, 0 MiB")


def test_a_terminal_shows_one_line_and_clears_it() -> None:
    terminal = Terminal()
    tell = teller(terminal)
    tell(SEEN)
    tell(None)
    assert terminal.getvalue() == f"\r\x1b[K{SEEN.text}\r\x1b[K"


def test_a_log_gets_a_record_but_not_one_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.configure(processors=[structlog.processors.JSONRenderer()], cache_logger_on_first_use=False)
    try:
        tell = teller(io.StringIO())
        for one in (SEEN, SEEN, None):
            tell(one)
    finally:
        structlog.reset_defaults()
    (line,) = capsys.readouterr().out.splitlines()
    record = json.loads(line)
    assert (record["event"], record["text"], record["tasks"], record["rows_per_s"], record["eta_s"]) == (
        "progress",
        SEEN.text,
        8,
        250_000,
        12.0,
    )

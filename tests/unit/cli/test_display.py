import io

from rich.console import Console

from pipeline.cli.display import LiveDisplay, NodeCells, PlainDisplay, describe, node_line
from pipeline.cli.loading import new_display
from pipeline.cli.output import duration, size
from pipeline.format.errors import SidecarUnavailableError
from pipeline.load.progress import BuildSeen, NodesSeen, Noted, Step, StepBegan, StepEnded
from pipeline.load.states import State
from pipeline.load.status import VersionStatus


def status(**more: object) -> VersionStatus:
    return VersionStatus.model_validate({"version": "2026-11-22", "build_id": "b", "state": State.STAGING, **more})


MOVING = status(step="downloading", files_done=1, files_total=4, bytes_done=1 << 20, bytes_total=4 << 20, rate=float(1 << 20), eta_s=3.0)


def test_a_node_is_told_by_state_files_bytes_rate_and_eta() -> None:
    assert describe(MOVING) == NodeCells("staging", "downloading", "1/4", "1.0 MiB of 4.0 MiB", "1.0 MiB/s", "3.0 s")
    assert describe(None) == NodeCells("waiting")
    assert describe(SidecarUnavailableError("the sidecar of b is away")) == NodeCells("the sidecar of b is away")
    assert describe(status(error={"message": "no space"})).state == "staging: no space"
    assert describe(status(state=State.READY, step="ready")).doing == ""
    assert describe(status(step="downloading", idle_s=30.0)).doing == "downloading, idle for 30.0 s"


def test_a_node_in_one_plain_line() -> None:
    assert node_line(Step.STAGE, "a", describe(MOVING)) == (
        "stage: a staging; downloading; 1/4 files, 1.0 MiB of 4.0 MiB; 1.0 MiB/s, ETA 3.0 s"
    )
    assert node_line(Step.STAGE, "a", describe(None)) == "stage: a waiting"


def test_plain_lines_come_when_something_changed_and_at_times_while_something_moves() -> None:
    lines: list[str] = []
    now = [0.0]
    display = PlainDisplay(lines.append, lambda: now[0])
    display(StepBegan(Step.STAGE, "2 files"))
    for at in (0.0, 1.0, 6.0):
        now[0] = at
        display(NodesSeen(Step.STAGE, {"a": status(bytes_done=int(at), bytes_total=10, rate=1.0, eta_s=10 - at), "b": None}))
    display(NodesSeen(Step.STAGE, {"a": status(state=State.STAGED), "b": None}))
    display(StepEnded(Step.STAGE, 6.0))
    assert [line.split()[:3] for line in lines] == [
        ["stage:", "2", "files"],
        ["stage:", "a", "staging;"],
        ["stage:", "b", "waiting"],
        ["stage:", "a", "staging;"],
        ["stage:", "a", "staged;"],
        ["stage:", "ended", "after"],
    ]


def test_an_ingest_is_told_at_times_though_no_bytes_are_on_their_way() -> None:
    lines: list[str] = []
    now = [0.0]
    display = PlainDisplay(lines.append, lambda: now[0])
    for at in range(12):
        now[0] = float(at)
        display(NodesSeen(Step.INGEST, {"a": status(state=State.INGESTING, step=f"checked {at} of 12 entries")}))
    assert [line.split("; ")[1] for line in lines] == ["checked 0 of 12 entries", "checked 5 of 12 entries", "checked 10 of 12 entries"]


def test_a_build_is_told_by_seconds_and_by_what_spark_says() -> None:
    lines: list[str] = []
    now = [0.0]
    display = PlainDisplay(lines.append, lambda: now[0])
    for at in range(11):
        now[0] = float(at)
        display(BuildSeen(now[0], "Spark stage 1: 3 of 8 tasks" if at > 5 else ""))
    assert lines == ["build: 0.0 s\n", "build: 5.0 s\n", "build: 10.0 s, Spark stage 1: 3 of 8 tasks\n"]


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_live_table_shows_every_node_and_keeps_what_ended() -> None:
    console = terminal()
    with LiveDisplay(console) as display:
        display(StepBegan(Step.STAGE, "2 files"))
        display(NodesSeen(Step.STAGE, {"a": MOVING, "b": None}))
        display(StepEnded(Step.STAGE, 1.5))
    for text in ("node", "ETA", "downloading", "1.0 MiB of 4.0 MiB", "waiting", "stage: 2 files, 1.5 s"):
        assert text in shown(console)


def test_texts_with_brackets_are_shown_as_they_are() -> None:
    console = terminal()
    with LiveDisplay(console) as display:
        display(StepBegan(Step.PLAN, "reading [bold]x.yaml[/]"))
        display(NodesSeen(Step.STAGE, {"a": status(error={"message": "key [red] answers [/]"})}))
        display(Noted("found [a, b]"))
        display(StepEnded(Step.PLAN, 0.0))
    for text in ("reading [bold]x.yaml[/]", "key [red] answers [/]", "found [a, b]"):
        assert text in shown(console)


def test_a_table_is_drawn_only_where_one_can_be() -> None:
    assert isinstance(new_display(terminal()), LiveDisplay)
    assert isinstance(new_display(Console(file=io.StringIO())), PlainDisplay)
    assert isinstance(new_display(Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": "dumb"})), PlainDisplay)


def test_sizes_and_durations_for_people() -> None:
    assert [size(0), size(1023), size(1536), size(5 << 40)] == ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]
    assert [duration(None), duration(0.04), duration(600)] == ["?", "0.0 s", "10 min"]

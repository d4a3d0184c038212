from pipeline.cli.display import PlainDisplay, describe
from pipeline.cli.output import duration, size
from pipeline.format.errors import SidecarUnavailableError
from pipeline.load.progress import Step
from pipeline.load.states import State
from pipeline.load.status import VersionStatus


def status(**more: object) -> VersionStatus:
    return VersionStatus.model_validate({"version": "2026-11-22", "build_id": "b", "state": State.STAGING, **more})


def test_a_node_is_told_by_state_files_bytes_rate_and_eta() -> None:
    moving = status(files_done=1, files_total=4, bytes_done=1 << 20, bytes_total=4 << 20, rate=float(1 << 20), eta_s=3.0)
    assert describe(moving) == ("staging", "1/4", "1.0 MiB of 4.0 MiB", "1.0 MiB/s", "3.0 s")
    assert describe(None)[0] == "waiting"
    assert describe(SidecarUnavailableError("the sidecar of b is away"))[0] == "the sidecar of b is away"
    assert describe(status(error={"message": "no space"}))[0] == "staging: no space"


def test_plain_lines_come_when_something_changed_and_at_times_while_bytes_move() -> None:
    lines: list[str] = []
    now = [0.0]
    display = PlainDisplay(lines.append, lambda: now[0])
    display.step(Step.STAGE, "2 files")
    for at in (0.0, 1.0, 6.0):
        now[0] = at
        display.nodes(Step.STAGE, {"a": status(bytes_done=int(at), bytes_total=10, rate=1.0, eta_s=10 - at), "b": None})
    display.nodes(Step.STAGE, {"a": status(state=State.STAGED), "b": None})
    assert [line.split()[:3] for line in lines] == [
        ["stage:", "2", "files"],
        ["stage:", "a", "staging"],
        ["stage:", "b", "waiting"],
        ["stage:", "a", "staging"],
        ["stage:", "a", "staged"],
    ]


def test_sizes_and_durations_for_people() -> None:
    assert [size(0), size(1023), size(1536), size(5 << 40)] == ["0 B", "1023 B", "1.5 KiB", "5.0 TiB"]
    assert [duration(None), duration(0.04), duration(600)] == ["?", "0.0 s", "10 min"]

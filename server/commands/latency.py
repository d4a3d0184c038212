"""LATENCY: histograms per command.

Events (LATEST, HISTORY, GRAPH) are what Redis collects above latency-monitor-threshold, which is 0 here: off, as it is in Redis unless
somebody turns it on. The loop's own stalls are in INFO's section Stalls and in the metrics.
"""

from __future__ import annotations

from typing import Any

from pipeline.format.admin import latency_bucket
from server.commands.registry import Family
from server.observe.commands import Timed
from server.resp import texts
from server.resp.helptexts import LATENCY_HELP
from server.resp.replies import EMPTY_ARRAY, ReplyError, Simple, Verbatim, encode, integer
from server.session import Session

FAMILY = Family("server", "")

FAMILY.container("latency")

FIRST_BOUND_NS = 1_024  # Redis' histograms are in powers of two from here
NS_PER_US = 1_000

_ADMIN = "admin noscript loading stale"
_SPECIAL = "nondeterministic_output request_policy:all_nodes response_policy:special"


@FAMILY.command("latency|histogram", -2, _ADMIN, tips=_SPECIAL)
def histogram(session: Session, words: list[bytes], _slot: int) -> bytes:
    """Cumulative histograms of all or the named commands, of the sampled calls."""
    timed = session.services.commands.timed
    if len(words) == 2:
        names = list(timed)
    else:
        asked = [word.lower().decode(errors="replace") for word in words[2:]]
        names = [name for one in asked for name in timed if name == one or name.startswith(f"{one}|")]
    return encode({name: _histogram(timed[name]) for name in names}, session.resp)


def _histogram(timed: Timed) -> dict[str, Any]:
    counts: dict[int, int] = {}
    total = 0
    bound_ns, at = FIRST_BOUND_NS, 0
    while total < timed.count:
        beyond = latency_bucket(bound_ns)
        below = sum(timed.buckets[at:beyond])
        at = beyond
        if below:
            total += below
            counts[(bound_ns + (bound_ns >> 7) - 1) // NS_PER_US] = total  # the top of its bucket in Redis' HdrHistogram
        bound_ns *= 2
    return {"calls": timed.count, "histogram_usec": counts}


@FAMILY.command("latency|reset", -2, _ADMIN, tips="request_policy:all_nodes response_policy:all_succeeded")
def reset(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """How many events were forgotten: none is kept."""
    return integer(0)


@FAMILY.command("latency|latest", 2, _ADMIN, tips=_SPECIAL)
def latest(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The newest events: none."""
    return EMPTY_ARRAY


@FAMILY.command("latency|history", 3, _ADMIN, tips=_SPECIAL)
def history(_session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The events of a class: none."""
    return EMPTY_ARRAY


@FAMILY.command("latency|graph", 3, _ADMIN, tips=_SPECIAL)
def graph(_session: Session, words: list[bytes], _slot: int) -> bytes:
    """A picture of the events of a class, of which there are none."""
    raise ReplyError(texts.no_latency_samples(words[2]))


@FAMILY.command("latency|doctor", 2, _ADMIN, tips=_SPECIAL)
def doctor(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """The loop's longest stall, and where to look on."""
    longest_ms = session.services.latencies.longest_ns / 1e6
    return encode(
        Verbatim(
            f"The event loop's longest stall was {longest_ms:.1f} ms. SLOWLOG GET shows slow commands, LATENCY HISTOGRAM how long each "
            "takes, the log every stall of 50 ms and more. Latency events are not monitored.\n"
        ),
        session.resp,
    )


@FAMILY.command("latency|help", 2, "loading stale")
def help_(session: Session, _words: list[bytes], _slot: int) -> bytes:
    """What there is."""
    return encode([Simple(line) for line in LATENCY_HELP], session.resp)

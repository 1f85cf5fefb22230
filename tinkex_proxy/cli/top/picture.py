"""What is on the screen: lines of styled pieces, made for a width and a height. Pure.

Lines are cut, never wrapped, and what has no room is told as "N more". Grades are words as well as
colours.
"""

import datetime as dt
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from tinkex_proxy.cli.figures import NONE, count, duration, rate
from tinkex_proxy.cli.told import Breaker, Lane, Told
from tinkex_proxy.cli.top.view import View, shown

__all__ = ["Line", "Piece", "picture"]

_GRADES: Final = {"fine": "good", "notice": "notice", "bad": "bad"}
_STATES: Final = {"closed": "good", "half_open": "notice", "disabled": "notice"}
_MOST_BREAKERS: Final = 4
_LEAST_LANES: Final = 4


class Piece(NamedTuple):
    """Some text and how it looks: `plain`, `title`, `dim`, `good`, `notice`, `bad`, `bar`."""

    text: str
    style: str = "plain"


Line = tuple[Piece, ...]


class _Column(NamedTuple):
    """A column's title and width; a negative width aligns to the left."""

    title: str
    width: int


@dataclass(frozen=True, slots=True)
class _Row:
    cells: tuple[str, ...]
    styles: dict[int, str]


def picture(told: Told, view: View, *, width: int, height: int, silence: str = "") -> list[Line]:
    """Draw it.

    Args:
        told: what there is.
        view: how somebody looks at it.
        width: columns of the screen.
        height: its lines.
        silence: why nothing new has come, if so.
    """
    head = [*_head(told, view, width, silence), *_verdict(told, width), _figures(told, width), ()]
    breakers = _breakers(told, view, width)
    room = height - len(head) - len(breakers) - 2
    events = _events(told, view, width)
    # Errors get what lanes leave, and half of the room in any case.
    for_events = min(len(events), max(room // 2, room - len(told.lanes) - 4))
    lanes = _lanes(told, view, width, max(_LEAST_LANES, room - for_events))
    body = [*head, *breakers, (), *lanes, *events[: max(0, for_events)]][: height - 1]
    body += [()] * (height - 1 - len(body))
    return [_cut(line, width) for line in [*body, _foot(view, width)]]


def _head(told: Told, view: View, width: int, silence: str) -> list[Line]:
    """Who calls whom, whether that works, and when; and why it does not."""
    at = dt.datetime.fromtimestamp(told.now, dt.UTC).astimezone()
    state = "NO ANSWER" if silence else "ready" if told.ready else "NOT READY"
    right = f" {'PAUSED  ' if view.paused else ''}{state}  {at:%H:%M:%S} "
    left = f" tinkex-proxy -> {told.upstream}"[: max(0, width - len(right))]
    fine = told.ready and not silence
    text = left + right.rjust(width - len(left))
    lines: list[Line] = [(Piece(text, "bar" if fine else "alarm"),)]
    if not fine:
        lines.append((Piece(f"  {silence or told.obstacle}", "bad"),))
    return lines


def _verdict(told: Told, width: int) -> list[Line]:
    """The headline and the two sentences that matter most."""
    now = told.verdict.now
    who = "" if now.side == "nobody" else f" [{now.side}: {now.grade}]"
    lines: list[Line] = [(Piece(now.headline, _GRADES[now.grade]), Piece(who, "dim"))]
    order = ("bad", "notice", "fine")
    worst = sorted(now.findings, key=lambda finding: order.index(finding.grade))
    for finding in worst[:2]:
        text = f"{finding.side}: {finding.says}"
        wrapped = textwrap.wrap(
            text, max(20, width - 2), initial_indent="  ", subsequent_indent="    "
        )
        lines += [(Piece(line),) for line in wrapped[:2]]
    return lines


def _figures(told: Told, width: int) -> Line:
    recent = told.recent
    p50, p95, p99 = (
        duration(None if ms is None else ms / 1000)
        for ms in (recent.p50_ms, recent.p95_ms, recent.p99_ms)
    )
    failed = "bad" if recent.failed else "plain"
    pieces = [
        Piece(f"calls {rate(recent.ok, recent.window_s)}"),
        Piece(f"failed {count(recent.failed)}", failed),
        Piece(f"in flight {count(told.admission.calls_in_flight)}"),
        Piece(f"P50 {p50}  P95 {p95}  P99 {p99}", "title"),
        Piece(f"sent again {count(recent.repeated)}"),
    ]
    if recent.batches:
        pieces.append(Piece(f"calls/request {recent.batched_calls / recent.batches:.1f}"))
    line: list[Piece] = []
    for piece in pieces:  # those that have no room are the least important
        if sum(len(one.text) for one in line) + len(piece.text) <= width:
            line += [piece, Piece("  ")]
    return tuple(line)


def _breakers(told: Told, view: View, width: int) -> list[Line]:
    found = [b for b in told.breakers if view.wanted.lower() in b.id.lower()]
    found.sort(key=lambda breaker: (breaker.state == "closed", breaker.id))
    columns = (
        _Column("STATE", -12),
        _Column("FAILED", 7),
        _Column("PROBE IN", 9),
        _Column("OK", 9),
        _Column("BAD", 7),
        _Column("REFUSED", 8),
    )
    rows = [_breaker_row(breaker) for breaker in found[:_MOST_BREAKERS]]
    lines = _table("BREAKER", columns, rows, width)
    if not found:
        nothing = "no breaker matches" if told.breakers else "no key is in use"
        lines.append((Piece(f"  {nothing}", "dim"),))
    if len(found) > _MOST_BREAKERS:
        lines.append((Piece(f"  {len(found) - _MOST_BREAKERS} more", "dim"),))
    return lines


def _breaker_row(breaker: Breaker) -> _Row:
    in_a_row = f"{breaker.consecutive_failures}/{breaker.failure_threshold}"
    probe = duration(breaker.retry_after_s) if breaker.retry_after_s > 0 else NONE
    counts = breaker.counts
    cells = (
        breaker.id,
        breaker.state.replace("_", " "),
        in_a_row,
        probe,
        count(counts.get("success", 0)),
        count(counts.get("failure", 0)),
        count(counts.get("rejected", 0)),
    )
    return _Row(cells, {1: _STATES.get(breaker.state, "bad")})


def _lanes(told: Told, view: View, width: int, room: int) -> list[Line]:
    found = shown(view, told.lanes)
    losses = {curve.model_id: curve.points[-1][2] for curve in told.losses if curve.points}
    columns = (
        _Column("WAIT", 5),
        _Column("OLDEST", 8),
        _Column("WIRE", 6),
        _Column("FLIGHT", 7),
        _Column("CALLS/REQ", 11),
        _Column("LOSS", 8),
        _Column("  UPSTREAM", -12),
    )
    first = min(view.first, max(0, len(found) - 1))
    fits = max(1, room - 2)
    visible = found[first : first + fits]
    rows = [_lane_row(lane, losses.get(lane.model_id)) for lane in visible]
    order = f"{view.order}{' (turned)' if view.turned else ''}"
    lines = _table(f"LANE, by {order}", columns, rows, width)
    if not found:
        nothing = "no lane matches" if told.lanes else "no model is being trained"
        lines.append((Piece(f"  {nothing}", "dim"),))
    hidden = len(found) - len(visible) + told.lanes_left_out
    lines.append((Piece(f"  {hidden} more", "dim"),) if hidden else ())
    return lines


def _lane_row(lane: Lane, loss: float | None) -> _Row:
    waiting = lane.depth + lane.held_back
    state = lane.queue_state or NONE
    cells = (
        lane.model_id,
        count(waiting),
        duration(lane.oldest_wait_s),
        NONE if lane.on_wire_seq is None else f"#{lane.on_wire_seq}",
        count(lane.awaiting_results),
        f"{lane.calls}/{lane.requests}",
        NONE if loss is None else f"{loss:.4g}",
        f"  {state.removeprefix('paused_') if state.startswith('paused_') else state}",
    )
    paused = lane.queue_state is not None and lane.queue_state != "active"
    return _Row(cells, {7: "notice"} if paused else {})


def _events(told: Told, view: View, width: int) -> list[Line]:
    rows = [
        (t.last_at, f"{t.kind}: {t.what.replace('_', ' ')}: {t.title or t.said}", t.count, "plain")
        for t in told.troubles
    ]
    rows += [
        (m.at, f"breaker: {m.before} -> {m.after}: {m.cause}", 1, _STATES.get(m.after, "bad"))
        for m in told.moves
        if m.after is not None
    ]
    rows = [row for row in rows if view.wanted.lower() in row[1].lower()]
    rows.sort(key=lambda row: -row[0])
    lines: list[Line] = [(Piece("WHEN     TIMES  WHAT WENT WRONG", "title"),)]
    for at, text, times, style in rows:
        when = dt.datetime.fromtimestamp(at, dt.UTC).astimezone()
        lines.append((Piece(f"{when:%H:%M:%S} {times:>5}  "), Piece(text[:width], style)))
    if not rows:
        lines.append((Piece("  nothing, in the last 15 minutes", "dim"),))
    return lines


def _foot(view: View, width: int) -> Line:
    if view.typing:
        text = f" filter: {view.wanted}_   enter keeps it, escape drops it"
    else:
        kept = f"  [filter: {view.wanted}]" if view.wanted else ""
        going = "go on" if view.paused else "pause"
        text = f" q quit  p {going}  s sort  r reverse  / filter  up/down scroll{kept}"
    return (Piece(text.ljust(width), "bar"),)


def _table(title: str, columns: Sequence[_Column], rows: Sequence[_Row], width: int) -> list[Line]:
    """A table whose first column has what the others leave."""
    first = max(12, width - sum(abs(column.width) for column in columns))
    heads = "".join(_fit(column.title, column.width) for column in columns)
    lines: list[Line] = [(Piece(_fit(title, -first) + heads, "title"),)]
    for row in rows:
        pieces = [Piece(_shortened(row.cells[0], first - 1) + " ", row.styles.get(0, "plain"))]
        for at, (cell, column) in enumerate(zip(row.cells[1:], columns, strict=True), 1):
            pieces.append(Piece(_fit(cell, column.width), row.styles.get(at, "plain")))
        lines.append(tuple(pieces))
    return lines


def _fit(text: str, width: int) -> str:
    size = abs(width)
    text = text[:size]
    return text.ljust(size) if width < 0 else text.rjust(size)


def _shortened(text: str, width: int) -> str:
    """With its end, which tells names apart."""
    if len(text) <= width:
        return text.ljust(width)
    kept = width - 2
    return f"{text[: kept // 2]}..{text[len(text) - (kept - kept // 2) :]}"


def _cut(line: Line, width: int) -> Line:
    pieces, left = [], width
    for piece in line:
        if left <= 0:
            break
        pieces.append(Piece(piece.text[:left], piece.style))
        left -= len(piece.text)
    return tuple(pieces)

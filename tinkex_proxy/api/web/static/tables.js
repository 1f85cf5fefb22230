// Lanes, keys, and what went wrong.

import { bytes, count, ms, span, time, words } from "./format.js";
import { Table } from "./dom.js";

const QUEUE = { active: "working" };

export class Lanes {
  constructor(lanes, keys, note) {
    this.note = note;
    this.lanes = new Table(lanes, {
      label: "Lanes",
      key: (lane) => `${lane.key_id}/${lane.model_id}`,
      empty: "No model is being trained through this proxy. POST /v1/models makes one, and so does an SDK.",
      columns: [
        { title: "Model", value: (l) => l.model_id },
        { title: "Waiting", number: true, hint: "Calls that have not left their lane", value: (l) => count(l.depth), grade: (l) => (l.depth > 100 ? "notice" : null) },
        { title: "Held back", number: true, hint: "Calls of SDKs that came before one they are counted after", value: (l) => count(l.held_back), grade: (l) => (l.held_back ? "notice" : null) },
        { title: "Oldest waits", number: true, value: (l) => (l.oldest_wait_s == null ? "–" : span(l.oldest_wait_s)), grade: (l) => (l.oldest_wait_s > 10 ? "notice" : null) },
        { title: "Lingers up to", number: true, hint: "Longest a call waits for company", value: (l) => ms(l.linger_ms) },
        { title: "On the wire", number: true, hint: "Sequence number of the request that is being submitted", value: (l) => (l.on_wire_seq == null ? "–" : `#${l.on_wire_seq}`) },
        { title: "In flight", number: true, hint: "Requests whose result is awaited", value: (l) => count(l.awaiting_results) },
        { title: "Next number", number: true, value: (l) => `#${l.next_seq}` },
        { title: "Upstream says", value: (l) => (l.queue_state == null ? "–" : QUEUE[l.queue_state] ?? words(l.queue_state)), full: (l) => l.queue_state_reason, grade: (l) => (l.queue_state && l.queue_state !== "active" ? "notice" : null) },
        { title: "Calls / requests", number: true, value: (l) => `${count(l.calls)} / ${count(l.requests)}` },
      ],
    });
    this.keys = new Table(keys, {
      label: "Pace of each key",
      key: (key) => key.key_id,
      empty: "No key is in use.",
      columns: [
        { title: "Key", value: (k) => k.key_id },
        { title: "Submits out", number: true, value: (k) => `${k.submits_out} of ${k.submits_limit}` },
        { title: "Waiting for leave", number: true, value: (k) => count(k.submits_waiting) },
        { title: "Held back", value: (k) => (k.held_back_s > 0 ? `${span(k.held_back_s)}: ${k.held_back_reason}` : "no"), grade: (k) => (k.held_back_s > 0 ? "notice" : null) },
        { title: "At the upstream", value: (k) => states(k.queue_states), grade: (k) => (paused(k.queue_states) ? "notice" : null) },
        { title: "Sent again", number: true, value: (k) => count(k.retries) },
        { title: "May send again", number: true, hint: "What the retry budget has left", value: (k) => count(Math.floor(k.retry_budget_remaining)), grade: (k) => (k.retry_budget_remaining < 1 ? "notice" : null) },
      ],
    });
  }

  update(answer) {
    this.lanes.update(answer.lanes);
    this.keys.update(answer.keys);
    const { bytes_held: held, max_bytes: most, calls_in_flight: calls, max_calls: limit } = answer.admission;
    const more = answer.lanes_left_out ? ` ${count(answer.lanes_left_out)} more lanes are in GET /lanes.` : "";
    const text = `One for each model: its calls go upstream in this order, and what lands together shares a request. All calls hold ${bytes(held)} of ${bytes(most)}; ${count(calls)} of ${count(limit)} are in flight.${more}`;
    if (this.note.textContent !== text) this.note.textContent = text;
  }
}

const paused = (states) => Object.entries(states).some(([name, n]) => n && name !== "active");

const states = (all) =>
  Object.entries(all)
    .filter(([, n]) => n)
    .map(([name, n]) => `${count(n)} ${QUEUE[name] ?? words(name)}`)
    .join(", ") || "nothing";

const WHERE = { call: "call", upstream: "upstream", proxy: "proxy" };

export class Events {
  constructor(parent) {
    this.table = new Table(parent, {
      label: "What went wrong, and when",
      key: (row) => row.key,
      empty: "Nothing, in the last 15 minutes.",
      columns: [
        { title: "When", value: (r) => (r.last - r.first >= 1 ? `${time(r.first)} – ${time(r.last)}` : time(r.last)) },
        { title: "Where", value: (r) => r.where },
        { title: "What", value: (r) => r.what, grade: (r) => r.grade },
        { title: "Times", number: true, value: (r) => count(r.count) },
      ],
    });
  }

  update(store) {
    const rows = [...[...store.troubles.values()].map(trouble), ...store.moves.filter((m) => m.after).map(move)];
    rows.sort((a, b) => b.last - a.last);
    this.table.update(rows.slice(0, 60));
  }
}

function trouble(row) {
  const said = row.title ? `${row.title} (${row.said})` : row.said;
  const answer = row.kind === "upstream" && /^\d+$/.test(row.said) ? `answered ${row.said}` : said;
  const what = row.kind === "proxy" ? said : `${words(row.what)}: ${answer}`;
  return { key: `t${row.id}`, first: row.first_at, last: row.last_at, where: WHERE[row.kind], what, count: row.count };
}

function move(m) {
  const grade = m.after === "closed" ? "fine" : m.after === "half_open" ? "notice" : "bad";
  return {
    key: `m${m.at}${m.after}`,
    first: m.at,
    last: m.at,
    where: "breaker",
    what: `${words(m.before)} → ${words(m.after)}: ${m.cause}`,
    count: 1,
    grade,
  };
}

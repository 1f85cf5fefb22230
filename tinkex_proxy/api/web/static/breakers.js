// Circuit breakers: what they are, were, and can be made.

import { count, span, time, words } from "./format.js";
import { h, keyed, setData, setText } from "./dom.js";

const GRADE = { closed: "fine", half_open: "notice", open: "bad", forced_open: "bad", disabled: "notice" };
const SIGN = { closed: "✓", half_open: "◐", open: "✕", forced_open: "✕", disabled: "○" };
const ACTIONS = [
  ["open", "Open", "Let nothing through"],
  ["close", "Hold closed", "Let everything through; outcomes count, and none trips it"],
  ["disable", "Disable", "Let everything through and count nothing"],
  ["reset", "Reset", "Forget everything and follow the upstream again"],
];
const FOR = [
  ["", "until reset"],
  ["60", "for 1 min"],
  ["600", "for 10 min"],
  ["3600", "for 1 h"],
];

export class Breakers {
  constructor(parent, act) {
    this.parent = parent;
    this.act = act;
    this.list = h("div", { class: "cards" });
    this.empty = h("p", { class: "empty", text: "None yet: the first call under a key makes its breaker." });
    parent.append(this.list, this.empty);
  }

  update(store, spanS) {
    const breakers = store.latest.breakers;
    this.empty.hidden = breakers.length > 0;
    keyed(this.list, breakers, (b) => b.id, (b) => this.#make(b), (element, b) => this.#fill(element, b, store, spanS));
  }

  #make(breaker) {
    const title = h("h3", { id: `b-${breaker.id}`, text: breaker.id });
    const picked = h("select", { "aria-label": `How long, for ${breaker.id}` });
    for (const [value, text] of FOR) picked.append(h("option", { value, text }));
    const said = h("p", { class: "said muted", role: "status" });
    const buttons = ACTIONS.map(([name, text, hint]) =>
      h("button", {
        type: "button",
        "data-action": name,
        title: hint,
        text,
        onclick: () => this.#press(breaker.id, name, picked.value, said),
      }),
    );
    const actions = h("div", { class: "actions", role: "group", "aria-label": `Take over ${breaker.id}` }, ...buttons.slice(0, 3), picked, buttons[3]);
    return h(
      "article",
      { class: "breaker", "aria-labelledby": title.id },
      h("header", {}, title, h("p", { class: "state" }, h("span", { "aria-hidden": "true" }), h("span", {}))),
      h("div", { class: "strip", role: "img" }),
      h("div", { class: "ends muted" }, h("span", {}), h("span", { text: "now" })),
      h("dl", { class: "facts" }),
      h("details", { class: "moves" }, h("summary", { text: "Its history" }), h("ol", {}), h("p", { class: "empty", text: "It has not moved in the last 15 minutes." })),
      actions,
      said,
    );
  }

  #fill(element, breaker, store, spanS) {
    setData(element, "grade", GRADE[breaker.state]);
    const [sign, text] = element.querySelector(".state").children;
    setText(sign, SIGN[breaker.state]);
    setText(text, words(breaker.state));
    this.#strip(element, breaker, store, spanS);
    const facts = [
      ["Failures in a row", `${breaker.consecutive_failures} of ${breaker.failure_threshold}`],
      ["Next probe", breaker.retry_after_s > 0 ? `in ${span(breaker.retry_after_s)}` : "–"],
      ["Forced", breaker.forced ? `${words(breaker.forced.to)}${breaker.forced.for_s == null ? ", until reset" : `, ${span(breaker.forced.for_s)} more`}` : "no"],
      ["Succeeded", count(breaker.counts.success)],
      ["Failed", count(breaker.counts.failure)],
      ["Told to slow down", count(breaker.counts.throttled)],
      ["Refused here", count(breaker.counts.rejected)],
      ["Last error", breaker.last_error ?? "none"],
    ];
    keyed(
      element.querySelector(".facts"),
      facts,
      ([name]) => name,
      ([name]) => h("div", {}, h("dt", { text: name }), h("dd", {})),
      (row, [name, value]) => {
        setText(row.lastElementChild, value);
        row.classList.toggle("wide", name === "Last error");
      },
    );
    const moves = store.moves.filter((m) => m.breaker === breaker.id && m.after).reverse();
    element.querySelector(".moves .empty").hidden = moves.length > 0;
    keyed(
      element.querySelector(".moves ol"),
      moves,
      (m) => `${m.at}-${m.after}`,
      (m) => h("li", {}, h("time", { text: time(m.at) }), h("strong", { text: `${words(m.before)} → ${words(m.after)}` }), h("span", { text: m.cause })),
      () => {},
    );
  }

  #strip(element, breaker, store, spanS) {
    const [from, to] = store.window(spanS);
    const began = Math.max(from, store.latest.began_at);
    const spans = store.spans(breaker.id, began, to, breaker.state);
    if (began > from) spans.unshift({ state: "none", begin: from, end: began });
    const strip = element.querySelector(".strip");
    const told = spans.filter((s) => s.state !== "none").map((s) => `${words(s.state)} from ${time(s.begin)} to ${time(s.end)}`).join("; ");
    if (strip.getAttribute("aria-label") !== told) strip.setAttribute("aria-label", told);
    keyed(
      strip,
      spans.map((s, at) => ({ ...s, at })),
      (s) => s.at,
      () => h("span", {}, h("span", {})),
      (part, s) => {
        const share = (s.end - s.begin) / (to - from);
        part.style.width = `${share * 100}%`;
        setData(part, "state", s.state);
        const name = s.state === "none" ? "not running" : words(s.state);
        setText(part.firstElementChild, share > 0.1 ? `${name} ${span(s.end - s.begin)}` : "");
        part.title = `${name} ${time(s.begin)} – ${time(s.end)} (${span(s.end - s.begin)})`;
      },
    );
    setText(element.querySelector(".ends").firstElementChild, time(from));
  }

  async #press(id, name, ttl, said) {
    const query = ttl && name !== "reset" ? `?ttl_s=${ttl}` : "";
    try {
      const breaker = await this.act(`breakers/${encodeURIComponent(id)}/${name}${query}`);
      setText(said, `Done: it is ${words(breaker.state)}.${name === "reset" ? "" : " Reset lets it follow its upstream again."}`);
    } catch (error) {
      setText(said, `Not done: ${error.message}`);
    }
  }
}

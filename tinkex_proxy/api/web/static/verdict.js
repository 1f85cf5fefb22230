// Whose doing it is, with what says so; and the figures of the last minute.

import { count, ms, rate } from "./format.js";
import { h, keyed, setData, setText } from "./dom.js";

const SIDES = [
  ["upstream", "Upstream"],
  ["proxy", "Proxy"],
  ["caller", "Callers"],
];
const GRADES = {
  fine: ["✓", "fine"],
  notice: ["!", "worth a look"],
  bad: ["✕", "bad"],
};
const RANK = ["fine", "notice", "bad"];

let opened = false;

export function showVerdict(verdict) {
  const { now, lately } = verdict;
  setData(document.getElementById("verdict"), "grade", now.grade);
  setText(document.getElementById("headline"), now.headline);
  showSides(document.getElementById("sides"), now.findings);
  const earlier = document.getElementById("lately-headline");
  setText(earlier, lately.headline);
  setData(earlier, "grade", lately.grade);
  showSides(document.getElementById("lately-sides"), lately.findings);
  // What is over is opened by itself, once: else a page that says that all is well hides it.
  if (!opened && now.grade === "fine" && lately.grade !== "fine") {
    opened = true;
    document.getElementById("lately").open = true;
  }
}

function showSides(parent, findings) {
  keyed(
    parent,
    SIDES,
    ([side]) => side,
    ([, title]) =>
      h(
        "article",
        { class: "side" },
        h("h3", {}, h("span", { class: "mark", "aria-hidden": "true" }), h("span", { text: title }), h("span", { class: "grade" })),
        h("ul", {}),
      ),
    (element, [side]) => {
      const own = findings.filter((f) => f.side === side);
      const worst = RANK[Math.max(0, ...own.map((f) => RANK.indexOf(f.grade)))];
      setData(element, "grade", worst);
      setText(element.querySelector(".mark"), GRADES[worst][0]);
      setText(element.querySelector(".grade"), GRADES[worst][1]);
      keyed(
        element.querySelector("ul"),
        own.map((f, at) => ({ ...f, at })),
        (f) => f.at,
        () => h("li", {}),
        (li, f) => {
          setText(li, f.says);
          setData(li, "grade", f.grade);
        },
      );
    },
  );
}

export function showTiles(answer) {
  const { recent, admission, lanes } = answer;
  const waiting = lanes.reduce((sum, lane) => sum + lane.depth + lane.held_back, 0);
  const shared = recent.batches ? recent.batched_calls / recent.batches : null;
  const tiles = [
    ["Calls a second", rate(recent.ok / recent.window_s), `${count(recent.ok)} in the last minute`],
    ["Failed", count(recent.failed), "in the last minute", recent.failed ? "bad" : null],
    ["P50", ms(recent.p50_ms), "half of the calls are faster"],
    ["P95", ms(recent.p95_ms), "one in 20 is slower"],
    ["P99", ms(recent.p99_ms), "one in 100 is slower"],
    ["In flight", count(admission.calls_in_flight), `${count(waiting)} wait in lanes`],
    ["Calls a request", shared == null ? "–" : shared.toFixed(1), `${count(recent.batches)} requests`],
    ["Sent again", count(recent.repeated), "requests, in the last minute", recent.repeated ? "notice" : null],
  ];
  keyed(
    document.getElementById("tiles"),
    tiles,
    ([name]) => name,
    ([name]) => h("div", { class: "tile" }, h("dt", { text: name }), h("dd", { class: "value" }), h("dd", { class: "muted" })),
    (element, [, value, note, grade]) => {
      setText(element.children[1], value);
      setText(element.children[2], note);
      if (grade) setData(element, "grade", grade);
      else delete element.dataset.grade;
    },
  );
}

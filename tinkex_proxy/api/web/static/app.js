// The page: asks for the news once a second, and shows them.
//
// A proxy that is gone is asked again until it is back; what it showed last stays. Nothing is asked
// for while nobody looks at the page.

import { Breakers } from "./breakers.js";
import { Charts } from "./charts.js";
import { setData, setText } from "./dom.js";
import { span, words } from "./format.js";
import { Store } from "./store.js";
import { Events, Lanes } from "./tables.js";
import { showTiles, showVerdict } from "./verdict.js";

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const HERE = new URL("..", import.meta.url);
const byId = (id) => document.getElementById(id);

const store = new Store();
const charts = new Charts(byId("charts"));
const lanes = new Lanes(byId("lanes"), byId("keys"), byId("lanes-note"));
const events = new Events(byId("events"));
const breakers = new Breakers(byId("breakers"), act);
let paused = false;
let headline = null;
let timer = null;
let asking = false;

const chosenSpan = () => Number(document.querySelector("input[name=span]:checked").value);

async function ask() {
  clearTimeout(timer);
  if (asking || document.hidden) return;
  asking = true;
  try {
    const url = new URL(`dashboard${store.query}`, HERE);
    const answer = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const restarted = store.take(await answer.json());
    connected(true);
    if (restarted) say("The proxy has started anew.");
    if (!paused) show();
  } catch {
    connected(false);
  } finally {
    asking = false;
    timer = setTimeout(ask, EVERY_MS);
  }
}

function show() {
  const answer = store.latest;
  const spanS = chosenSpan();
  showVerdict(answer.verdict);
  showTiles(answer);
  charts.update(store, spanS);
  breakers.update(store, spanS);
  lanes.update(answer);
  events.update(store);
  const v = answer.version;
  setText(byId("upstream"), v.upstream);
  setText(byId("version"), `tinkex-proxy ${v.version}, Python ${v.python}, ${v.transport}; up for ${span(answer.now - answer.began_at)}`);
  const now = answer.verdict.now.headline;
  if (now !== headline) {
    if (headline !== null) say(now);
    headline = now;
    document.title = `${now} – tinkex-proxy`;
  }
}

function connected(yes) {
  byId("lost").hidden = yes;
  const ready = yes && store.latest.ready;
  setData(byId("link"), "grade", ready ? "fine" : yes ? "notice" : "bad");
  const text = !yes ? "connection lost" : ready ? (paused ? "ready, page paused" : "ready") : `not ready: ${store.latest.obstacle}`;
  if (byId("link-text").textContent !== text) {
    setText(byId("link-text"), text);
    if (!yes) say("Connection to the proxy lost.");
  }
}

function say(text) {
  setText(byId("said"), text);
}

// What an operator does. The header is what no page of another origin can send.
async function act(path) {
  const answer = await fetch(new URL(path, HERE), { method: "POST", headers: { "X-Tinkex-Action": "1" } });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.detail ?? `status ${answer.status}`);
  ask();
  return told;
}

// Polling shows everything; following the breakers shows their moves at once, and says them aloud.
function follow() {
  const source = new EventSource(new URL("breakers/events", HERE));
  source.addEventListener("transition", (event) => {
    const moved = JSON.parse(event.data);
    say(`Circuit breaker ${moved.breaker} is ${words(moved.after)}: ${moved.cause}`);
    ask();
  });
}

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", paused);
  setText(byId("pause"), paused ? "Go on" : "Pause");
  if (!paused && store.latest) show();
});
byId("theme").addEventListener("click", () => {
  window.theme.next();
  setText(byId("theme"), `Theme: ${window.theme.chosen}`);
  charts.restyle();
});
setText(byId("theme"), `Theme: ${window.theme.chosen}`);
for (const radio of document.querySelectorAll("input[name=span]")) {
  radio.addEventListener("change", () => store.latest && show());
}
document.addEventListener("visibilitychange", ask);
follow();
ask();

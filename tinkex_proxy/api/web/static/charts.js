// Charts over time, on one axis and with one cursor; shaded where a breaker was open.
//
// Lines differ in dashes as well as in colour. A canvas says nothing to a screen reader, so each
// chart has a label that tells what it shows now, and its legend is text.

import { count, loss, minute, ms, rate, time, words } from "./format.js";
import { h, keyed, setText } from "./dom.js";

const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [12, 4], [4, 2, 1, 2]];
const SYNC = "time";

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

class Chart {
  constructor(parent, { title, note, series, format, log = false, zero = true, stack = false, height = 180, empty }) {
    this.spec = { series, format, log, zero, stack, height };
    this.title = title;
    this.legend = h("ul", { class: "legend" });
    this.canvas = h("div", { class: "canvas", role: "img" });
    this.empty = h("p", { class: "empty over", text: empty });
    this.figure = h(
      "figure",
      { class: "panel chart" },
      h("figcaption", {}, h("h3", { text: title }), h("p", { class: "muted", text: note })),
      this.legend,
      h("div", { class: "plot" }, this.canvas, this.empty),
    );
    parent.append(this.figure);
    this.range = [0, 1];
    this.shades = [];
    this.data = [[]];
    this.seen = -Infinity;
    new ResizeObserver(() => this.#resize()).observe(this.canvas);
  }

  // Colours come from the style sheet; another theme is another chart.
  restyle() {
    this.plot?.destroy();
    this.plot = null;
    this.#draw();
  }

  update(data, range, shades, series = this.spec.series) {
    const changed = series.length !== this.spec.series.length || series.some((s, at) => s.label !== this.spec.series[at].label);
    this.spec.series = series;
    this.data = data;
    this.range = range;
    this.shades = shades;
    this.empty.hidden = data.slice(1).some((line) => line.some((v) => v != null && v !== 0));
    if (changed || !this.plot) this.restyle();
    else this.plot.setData(this.#drawn());
    if (this.plot?.cursor.idx == null) this.#tell(null);
    this.#label();
  }

  #draw() {
    const width = this.canvas.clientWidth;
    if (!width || this.data.length !== this.spec.series.length + 1) return;
    this.plot = new uPlot(this.#options(width), this.#drawn(), this.canvas);
    keyed(
      this.legend,
      this.spec.series.map((s, at) => ({ ...s, at })),
      (s) => s.label,
      (s) => h("li", { title: s.hint }, swatch(this.spec.stack ? 10 : 26), h("span", { text: s.label }), h("b", {})),
      (li, s) => paint(li.firstElementChild, this.#colour(s.at), this.spec.stack ? null : DASHES[s.at % DASHES.length]),
    );
  }

  // What is stacked is drawn from the top down, each over the one before, so that a sum shows whole.
  #drawn() {
    if (!this.spec.stack) return this.data;
    const [at, ...lines] = this.data;
    let sum = at.map(() => 0);
    const sums = lines.map((line) => (sum = sum.map((v, i) => v + (line[i] ?? 0))));
    return [at, ...sums.reverse()];
  }

  // The series in the order in which they are drawn.
  #order() {
    const all = this.spec.series.map((s, at) => ({ ...s, at }));
    return this.spec.stack ? all.reverse() : all;
  }

  #colour(at) {
    return style(this.spec.series[at].colour ?? `--line-${(at % 6) + 1}`);
  }

  #options(width) {
    const axis = {
      stroke: style("--muted"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: style("--grid"), width: 1 },
      ticks: { show: false },
    };
    const format = this.spec.format;
    return {
      width,
      height: this.spec.height,
      legend: { show: false },
      padding: [8, 10, 0, 0],
      cursor: { sync: { key: SYNC }, drag: { x: false, y: false }, points: { size: 6 } },
      scales: {
        x: { time: true, range: () => this.range },
        y: this.spec.log ? { distr: 3, range: decades } : { range: (_, low, high) => this.#span(low, high) },
      },
      axes: [
        { ...axis, size: 26, space: 84, values: (_, at, _axis, _space, step) => at.map(step < 60 ? time : minute) },
        { ...axis, size: 58, space: 30, grid: { ...axis.grid, filter: this.spec.log ? powers : (_, splits) => splits }, values: (_, values) => values.map((v) => (v == null ? "" : v === 0 ? "0" : format(v))) },
      ],
      series: [
        {},
        ...this.#order().map((s) => (this.spec.stack ? this.#bar(s) : this.#line(s))),
      ],
      hooks: {
        drawClear: [(plot) => shade(plot, this.shades)],
        setCursor: [(plot) => this.#tell(plot.cursor.idx)],
      },
    };
  }

  #line({ label, at, gaps = false, points = false, fill = false }) {
    const stroke = this.#colour(at);
    return {
      label,
      stroke,
      width: 1.75,
      dash: DASHES[at % DASHES.length],
      spanGaps: gaps,
      points: { show: points, size: 4, fill: stroke },
      fill: fill ? `${stroke}22` : undefined,
    };
  }

  #bar({ label, at }) {
    const fill = this.#colour(at);
    return { label, fill, width: 0, points: { show: false }, paths: uPlot.paths.bars({ size: [0.86, 14], align: -1 }) };
  }

  #span(low, high) {
    if (low == null || high == null) return [0, 1];
    if (this.spec.zero) return [0, high > 0 ? high * 1.1 : 1];
    const room = (high - low || Math.abs(high) || 1) * 0.08;
    return [low - room, high + room];
  }

  // The values under the cursor; without one the last that there are.
  #tell(idx) {
    this.spec.series.forEach((_, at) => {
      const line = this.data[at + 1] ?? [];
      let value = idx == null ? null : line[idx];
      if (idx == null) for (let i = line.length - 1; i >= 0 && value == null; i--) value = line[i];
      const cell = this.legend.children[at]?.lastElementChild;
      if (cell) setText(cell, this.spec.format(value));
    });
    const when = idx == null ? "" : time(this.data[0][idx]);
    if (this.figure.dataset.at !== when) this.figure.dataset.at = when;
  }

  #label() {
    const now = performance.now();
    if (now - this.seen < 5000) return;
    this.seen = now;
    const parts = this.spec.series.map((s, at) => {
      const values = (this.data[at + 1] ?? []).filter((v) => v != null);
      if (!values.length) return `${s.label}: nothing`;
      const most = values.reduce((a, b) => Math.max(a, b));
      return `${s.label}: now ${this.spec.format(values.at(-1))}, at most ${this.spec.format(most)}`;
    });
    const shut = this.shades.filter((s) => s.state === "open").map((s) => `a breaker was open from ${time(s.begin)} to ${time(s.end)}`);
    this.canvas.setAttribute("aria-label", [`${this.title} from ${time(this.range[0])} to ${time(this.range[1])}`, ...parts, ...shut].join(". "));
  }

  #resize() {
    const width = this.canvas.clientWidth;
    if (this.plot && width && width !== this.plot.width) this.plot.setSize({ width, height: this.spec.height });
    else if (!this.plot) this.#draw();
  }
}

// Of a logarithmic axis only the powers of ten.
const powers = (_, splits) => splits.map((v) => (Number.isInteger(Math.log10(v)) ? v : null));

// Whole decades, so that the grid is where people look for it.
function decades(_, low, high) {
  if (low == null || high == null) return [1, 1000];
  return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.05))];
}

function shade(plot, shades) {
  const { ctx, bbox } = plot;
  for (const { state, begin, end } of shades) {
    const left = Math.max(bbox.left, plot.valToPos(begin, "x", true));
    const right = Math.min(bbox.left + bbox.width, plot.valToPos(end, "x", true));
    if (right <= left) continue;
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, bbox.top, right - left, bbox.height);
    ctx.clip();
    ctx.fillStyle = style(state === "half_open" ? "--shade-notice" : "--shade-bad");
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    if (state !== "half_open") {
      ctx.strokeStyle = style("--shade-line");
      ctx.lineWidth = devicePixelRatio;
      ctx.beginPath();
      const step = 9 * devicePixelRatio;
      for (let x = left - bbox.height; x < right; x += step) {
        ctx.moveTo(x, bbox.top + bbox.height);
        ctx.lineTo(x + bbox.height, bbox.top);
      }
      ctx.stroke();
    }
    if (right - left > 44 * devicePixelRatio) {
      ctx.fillStyle = style("--muted");
      ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
      ctx.textBaseline = "top";
      ctx.textAlign = "left";
      ctx.fillText(words(state), left + 5 * devicePixelRatio, bbox.top + 4 * devicePixelRatio);
    }
    ctx.restore();
  }
}

function swatch(width) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("width", width);
  svg.setAttribute("height", "8");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(svg.namespaceURI, "path");
  svg.append(line);
  return svg;
}

// A line with its dashes; without any (null) a patch, as of what is stacked.
function paint(svg, colour, dash) {
  const line = svg.firstElementChild;
  line.setAttribute("stroke", colour);
  line.setAttribute("stroke-width", dash ? "2.5" : "8");
  line.setAttribute("d", dash ? "M0 4h26" : "M0 4h10");
  line.setAttribute("stroke-dasharray", dash?.join(" ") ?? "");
}

// How large batches were in the last minute, as bars, and why they left.
class Sizes {
  constructor(figure) {
    this.list = h("ul", { class: "sizes", "aria-label": "Requests of the last minute by how many calls shared one" });
    this.why = h("p", { class: "foot muted" });
    figure.append(h("div", {}, this.list, this.why));
  }

  update({ sizes, reasons }) {
    const most = Math.max(1, ...sizes.map(([, n]) => n));
    keyed(
      this.list,
      sizes,
      ([size]) => size,
      ([size]) => h("li", {}, h("span", { text: size === "1" ? "1 call" : `${size} calls` }), h("i", { "aria-hidden": "true" }, h("i", {})), h("b", {})),
      (li, [, n]) => {
        li.children[1].firstElementChild.style.width = `${(n / most) * 100}%`;
        setText(li.lastElementChild, count(n));
      },
    );
    const why = Object.entries(reasons).map(([reason, n]) => `${reason} ${count(n)}`).join(", ");
    setText(this.why, why ? `In the last minute, by size. They left because: ${why}.` : "");
  }
}

// Up to here a silence is bridged by a line; beyond, nothing was there to be drawn.
const BRIDGED = 5;

// uPlot bridges what is undefined and breaks a line where it is null.
function bridged(values) {
  let since = -Infinity;
  return values.map((v, at) => {
    if (v != null) {
      since = at;
      return v;
    }
    const next = values.slice(at, at + BRIDGED).some((later) => later != null);
    return next && at - since < BRIDGED ? undefined : null;
  });
}

// What the time of calls is spent on, as it is told, and what is shown as one.
const SPENT = [
  { label: "proxy", colour: "--line-5", parts: ["proxy", "journal"], hint: "The proxy at work, and its disk" },
  { label: "waiting", colour: "--line-2", parts: ["queue", "linger"], hint: "Behind other calls of the lane, for leave to submit, or for company" },
  { label: "upload", colour: "--line-3", parts: ["upload"], hint: "Until the upstream has taken the request, repetitions included" },
  { label: "held back", colour: "--line-4", parts: ["upstream-queue"], hint: "Held back by the upstream, as it says" },
  { label: "compute", colour: "--line-1", parts: ["compute", "download"], hint: "Until the result was here" },
];

const perS = (v) => (v == null ? rate(v) : `${rate(v)}/s`);

export class Charts {
  constructor(parent) {
    this.took = new Chart(parent, {
      title: "How long calls take",
      note: "From a call's arrival to its answer; each point is two seconds. Logarithmic.",
      series: ["P50", "P95", "P99"].map((label) => ({ label, points: true })),
      format: ms,
      log: true,
      empty: "No call has been answered in this time.",
    });
    this.spent = new Chart(parent, {
      title: "Where their time goes",
      note: "Seconds of a call, on average, by what it waited for. The parts sum to the whole.",
      series: SPENT,
      format: (v) => (v == null ? ms(v) : ms(v * 1000)),
      stack: true,
      empty: "No call has been answered in this time.",
    });
    this.calls = new Chart(parent, {
      title: "Calls",
      note: "Answered as asked, and failed for their callers.",
      series: [
        { label: "answered", colour: "--line-1", fill: true },
        { label: "failed", colour: "--bad" },
      ],
      format: perS,
      empty: "No call has ended in this time.",
    });
    this.upstream = new Chart(parent, {
      title: "Requests to the upstream",
      note: "Polls and heartbeats too. Failed: 5xx, or no answer. Throttled: 429 or 402.",
      series: [
        { label: "answered", colour: "--line-1", fill: true },
        { label: "failed", colour: "--bad" },
        { label: "throttled", colour: "--line-3" },
        { label: "sent again", colour: "--line-4" },
      ],
      format: perS,
      empty: "Nothing was sent upstream in this time.",
    });
    this.batches = new Chart(parent, {
      title: "Batch sizes",
      note: "Calls and datums that shared one upstream request, on average.",
      series: [
        { label: "calls", points: true },
        { label: "datums", points: true },
      ],
      format: (v) => (v == null ? "–" : v >= 100 ? count(Math.round(v)) : v.toFixed(1)),
      empty: "No batch has left in this time.",
    });
    this.losses = new Chart(parent, {
      title: "Loss of each model",
      note: "Of each forward_backward, per datum.",
      series: [],
      format: loss,
      zero: false,
      height: 226,
      empty: "No model has trained yet. The curve of each appears with its first forward_backward.",
    });
    this.sizes = new Sizes(this.batches.figure);
    this.all = [this.took, this.spent, this.calls, this.upstream, this.batches, this.losses];
    const restyle = () => this.all.forEach((chart) => chart.restyle());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", restyle);
    this.restyle = restyle;
  }

  update(store, spanS) {
    const range = store.window(spanS);
    const step = store.latest.step_s;
    const last = store.number - 1;
    const first = Math.max(0, last - Math.ceil(spanS / step));
    const rows = [];
    for (let n = first; n <= last; n++) rows.push(store.slots.get(n));
    const at = rows.map((_, i) => store.endOf(first + i));
    const rates = (name) => rows.map((row) => (row?.[name] ?? 0) / step);
    const values = (name) => bridged(rows.map((row) => row?.[name]));
    const means = (name) => bridged(rows.map((row) => (row?.batches ? (row[name] ?? 0) / row.batches : null)));
    const spent = ({ parts }) =>
      rows.map((row) => (row?.timed ? parts.reduce((sum, part) => sum + (row.spent?.[part] ?? 0), 0) / row.timed : null));
    const shades = this.#shades(store, range);
    const least = (line) => line.map((v) => (v == null ? v : Math.max(v, 0.1)));
    this.took.update([at, ...["p50", "p95", "p99"].map((name) => least(values(name)))], range, shades);
    this.spent.update([at, ...SPENT.map(spent)], range, shades);
    this.calls.update([at, rates("ok"), rates("failed")], range, shades);
    this.upstream.update([at, ...["answered", "unanswered", "throttled", "repeated"].map(rates)], range, shades);
    this.batches.update([at, means("batched"), means("datums")], range, shades);
    this.sizes.update(store.latest.recent);
    this.#losses(store, range, shades);
  }

  #shades(store, [from, to]) {
    return store.latest.breakers.flatMap((b) =>
      store.spans(b.id, from, to, b.state).filter((s) => s.state === "open" || s.state === "forced_open" || s.state === "half_open"),
    );
  }

  // Every model has moments of its own: they are put on one axis, with gaps bridged.
  #losses(store, range, shades) {
    const curves = [...store.losses.values()].filter((c) => c.points.length);
    const tables = curves.map((c) => {
      const points = c.points.filter((p) => p[1] >= range[0]);
      return [points.map((p) => p[1]), points.map((p) => p[2])];
    });
    const data = tables.length ? uPlot.join(tables) : [[]];
    const series = curves.map((c) => ({ label: c.model_id, gaps: true }));
    this.losses.update(data, range, shades, series);
  }
}

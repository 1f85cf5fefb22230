// What is known: the answers of /dashboard, put together.
//
// An answer tells what is new since a slot; from there on it replaces what was known. Another run
// of the proxy has nothing to do with the one before: then all is forgotten.

const MAX_POINTS = 1200;

export class Store {
  run = null;
  next = null;
  slots = new Map();
  moves = [];
  troubles = new Map();
  losses = new Map();
  latest = null;

  get query() {
    return this.next ? `?after=${encodeURIComponent(this.next)}` : "";
  }

  take(answer) {
    const restarted = this.run !== null && this.run !== answer.run;
    if (answer.run !== this.run) {
      this.slots.clear();
      this.moves = [];
      this.troubles.clear();
      this.losses.clear();
    }
    this.run = answer.run;
    this.next = answer.next;
    this.latest = answer;
    for (const slot of answer.slots) this.slots.set(slot.n, slot);
    const oldest = this.number - answer.kept_s / answer.step_s;
    for (const n of this.slots.keys()) if (n < oldest) this.slots.delete(n);
    this.moves = [...this.moves.filter((m) => m.slot < answer.since), ...answer.moves].slice(-200);
    for (const row of answer.troubles) this.troubles.set(row.id, row);
    for (const [id, row] of this.troubles) if (row.slot < oldest) this.troubles.delete(id);
    this.#takeLosses(answer);
    return restarted;
  }

  // The number of the present slot, which is not over yet.
  get number() {
    return Number(this.latest.next.split("-").pop());
  }

  // The time of day at which a slot ended; the present one ends when it is over, which is now.
  endOf(n) {
    return this.latest.now + (n + 1 - this.number) * this.latest.step_s - this.#into;
  }

  // How far into the present slot it is.
  get #into() {
    return this.latest.into_s;
  }

  // From when to when the charts show; a proxy that has just started gets two minutes.
  window(spanS) {
    const now = this.latest.now;
    const oldest = Math.min(this.latest.began_at, now - 120);
    return [Math.max(now - spanS, oldest), now];
  }

  // What each breaker was, and from when to when.
  spans(breaker, from, to, present) {
    const moves = this.moves.filter((m) => m.breaker === breaker && m.after);
    let state = moves.length ? moves[0].before : present;
    let begin = from;
    const found = [];
    for (const move of moves) {
      if (move.at > from) {
        if (move.at > begin) found.push({ state, begin, end: Math.min(move.at, to) });
        begin = move.at;
      }
      state = move.after;
    }
    if (to > begin) found.push({ state, begin, end: to });
    return found;
  }

  #takeLosses(answer) {
    const named = new Set();
    for (const curve of answer.losses) {
      named.add(curve.model_id);
      const known = this.losses.get(curve.model_id);
      let points = curve.whole || !known ? [] : known.points.filter((p) => p[0] < answer.since);
      points = points.concat(curve.points);
      if (points.length > MAX_POINTS) points = points.filter((_, at) => at % 2 === 0);
      this.losses.set(curve.model_id, { ...curve, points });
    }
    for (const id of this.losses.keys()) if (!named.has(id)) this.losses.delete(id);
  }
}

// One network and its animal, which the bench shows.
"use strict";

/** Orthonormal directions in which input arrives. */
function inputDirections({ parameters: { W_in, W_r_in }, n_units }) {
  const W = W_in ?? W_r_in;
  const d = W.length / n_units;
  return orthonormal(Array.from({ length: d }, (_, k) => W.filter((_, i) => i % d === k)));
}

/** One network and its animal: awake it is told every displacement; asleep nothing, or those of a walk elsewhere. */
class Run {
  constructor(stored, seed, start) {
    Object.assign(this, assemble(stored), { stored });
    this.motion = motionOf(stored, new Random(seed, 1));
    this.random = new Random(seed, 2);
    this.walks = {};
    this.walker = new Random(seed, 5);
    if (start) this.motion.moveTo(start);
    this.t = 0;
    this.since = 0;
    this.past = [];
    this.anchor();
  }

  /** Encode the true state again. */
  anchor() {
    this.r = this.network.encode(this.cells.tuning(this.motion.s));
    this.look();
  }

  /** What the input says asleep, or null. */
  told(walk) {
    if (walk === "none") return null;
    this.walks[walk] ??= surrogate(this.stored, walk, this.walker);
    return this.walks[walk].step();
  }

  step({ input, c, law, walk, target, directions }) {
    if (input !== this.input) [this.input, this.since] = [input, 0];
    const { stored } = this;
    const sigma = input ? stored.sigma : Math.sqrt(c) * stored.sigma_asleep;
    const ds = input ? (target === null ? this.motion.step() : this.motion.drive(target)) : this.told(walk);
    const noise = drawNoise(this.r.length, law, sigma, stored.dt, this.random);
    this.r = this.network.step(this.r, ds && Float32Array.from(ds), takeOut(noise, directions));
    this.t++;
    this.since++;
    this.look();
  }

  look() {
    this.o = this.network.readout(this.r);
    [this.decoded] = this.cells.decode(this.o);
    const centred = this.r.map((x, i) => x - this.stored.waking.mean[i]);
    const scores = [...product(this.stored.waking.components, centred, this.r.length)];
    const norm = Math.hypot(...this.r) / this.stored.waking.norm;
    this.past.push({ t: this.t, s: this.motion.s, decoded: this.decoded, scores, norm, input: this.input ?? true });
    if (this.past.length > 600) this.past.shift();
  }

  /** How far the estimate is from the true state, in metres or radians. */
  error() {
    const away = this.decoded.map((x, i) => x - this.motion.s[i]);
    return away.length === 2 ? Math.hypot(...away) : Math.abs(wrap(away[0]));
  }

  /** How far the estimate went in the last second. */
  moved() {
    const recent = this.past.slice(-50).map(({ decoded }) => onPage(decoded));
    return Math.max(...recent.map(([x, y]) => Math.hypot(x - recent[0][0], y - recent[0][1])));
  }

  /** Push activity: along the encoded states by 0.4 m or 45°, across them by half its norm, or in its size by half. */
  kick(kind) {
    const s = this.decoded;
    const encoded = (state) => this.network.encode(this.cells.tuning(state));
    const change = (state) => encoded(state).map((x, i) => x - here[i]);
    const here = encoded(s);
    let push = this.r.map((x) => 0.5 * x);
    if (kind === "along") {
      const toCentre = Math.atan2(-s[1], -s[0]);
      const way = s.length === 2 ? [0.4 * Math.cos(toCentre), 0.4 * Math.sin(toCentre)] : [Math.PI / 4];
      push = change(s.map((x, i) => x + way[i]));
    } else if (kind === "across") {
      const tangents = s.map((_, k) => change(s.map((x, i) => x + (i === k ? 0.02 : 0))));
      const any = drawNoise(this.r.length, "gaussian", 1, 1, this.random);
      const size = 0.5 * Math.hypot(...this.r);
      push = orthonormal([this.r, ...tangents, any]).at(-1).map((x) => size * x);
    }
    this.r = this.r.map((x, i) => x + push[i]);
    this.look();
  }
}

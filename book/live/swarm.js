// Many sleepers of one network at once, and how their states are distributed beside those of waking.
"use strict";

/** Where a state falls on the 100 x 100 points over ±1.25 m, or the 100 bearings, of the waking density. */
function binOf(s) {
  const nearest = (x) => Math.max(0, Math.min(99, Math.round(((x + 1.25) / 2.5) * 99)));
  if (s.length === 2) return nearest(s[1]) * 100 + nearest(s[0]);
  return Math.round(((s[0] + Math.PI) / (2 * Math.PI)) * 100) % 100;
}

/** Smooth with a normal kernel along one axis of 100 values, `stride` apart; on a circle what leaves comes back. */
function blur(values, width, stride, circular) {
  const reach = Math.min(50, Math.ceil(4 * width));
  const normal = (x) => Math.exp(-0.5 * (x / Math.max(width, 1e-9)) ** 2);
  const kernel = Array.from({ length: 2 * reach + 1 }, (_, i) => normal(i - reach));
  const total = kernel.reduce((a, b) => a + b);
  const out = new Float64Array(values.length);
  values.forEach((value, k) => {
    if (value === 0) return;
    const place = Math.floor(k / stride) % 100;
    for (let i = -reach; i <= reach; i++) {
      const to = circular ? (place + i + 100) % 100 : place + i;
      if (to >= 0 && to < 100) out[k + (to - place) * stride] += (value * kernel[i + reach]) / total;
    }
  });
  return out;
}

/**
 * Kernel density of states, per m² or per radian: a histogram, smoothed by Scott's bandwidth, n^(-1/6) s.d. along x and
 * y; on the circle π/√3 n^(-1/5).
 */
function densityOf(states) {
  const n = states.length;
  const plane = states[0].length === 2;
  let values = new Float64Array(plane ? 10000 : 100);
  for (const s of states) values[binOf(s)] += 1 / n;
  const perRadian = 100 / (2 * Math.PI);
  if (!plane) return blur(values, (Math.PI / Math.sqrt(3)) * n ** -0.2 * perRadian, 1, true).map((p) => p * perRadian);
  for (const axis of [0, 1]) {
    const mean = states.reduce((sum, s) => sum + s[axis], 0) / n;
    const variance = states.reduce((sum, s) => sum + (s[axis] - mean) ** 2, 0) / n;
    values = blur(values, (n ** (-1 / 6) * Math.sqrt(variance) * 99) / 2.5, axis === 0 ? 1 : 100, false);
  }
  return values.map((p) => p * (99 / 2.5) ** 2);
}

/** KL(p ‖ q) in nats of two densities on the same points; their ratio is clipped to 10^±7, as in the library. */
function divergence(p, q) {
  const total = p.reduce((a, b) => a + b, 0);
  const limit = Math.log(1e7);
  let sum = 0;
  p.forEach((value, i) => {
    if (value > 0) sum += (value / total) * Math.max(-limit, Math.min(limit, Math.log(value / q[i])));
  });
  return sum;
}

/**
 * Sleepers from given states: no input, or that of a walk, and noise √c σ η. They are looked at every five steps, in windows
 * of 200, as on the page on forgetting.
 */
class Swarm {
  constructor(stored, starts, seed) {
    Object.assign(this, assemble(stored), { stored, waking: stored.waking.density, random: new Random(seed, 3) });
    const f = starts.map((s) => this.cells.tuning(s));
    this.r = this.network.encode(Float32Array.from(f.flatMap((one) => [...one])));
    this.t = 0;
    this.walks = {};
    this.walkers = new Random(seed, 6);
    this.looks = [];
    this.look();
    // The null: every sleeper stays where it starts.
    const frozen = densityOf(Array(40).fill(this.states).flat());
    this.frozen = { density: frozen, kl: divergence(frozen, this.waking) };
    this.looks = [];
  }

  look() {
    this.states = this.cells.decode(this.network.readout(this.r));
    this.looks.push(this.states);
    if (this.looks.length > 40) this.looks.shift();
  }

  /** What the input of each sleeper says, or null. */
  told(walk) {
    if (walk === "none") return null;
    this.walks[walk] ??= this.states.map(() => surrogate(this.stored, walk, this.walkers));
    return Float32Array.from(this.states.flatMap((_, b) => this.walks[walk][b].step()));
  }

  /** Five steps, and a look. */
  advance({ c, law, walk = "none", directions = [] }) {
    const { sigma_asleep, dt } = this.stored;
    for (let i = 0; i < 5; i++) {
      const noise = drawNoise(this.r.length, law, Math.sqrt(c) * sigma_asleep, dt, this.random);
      this.r = this.network.step(this.r, this.told(walk), takeOut(noise, directions));
    }
    this.t += 5;
    this.look();
  }

  /** Keep half of the sleepers. */
  halve() {
    this.states = this.states.slice(0, Math.ceil(this.states.length / 2));
    this.r = this.r.slice(0, this.states.length * this.network.n_units);
  }

  report() {
    const density = this.t > 0 ? densityOf(this.looks.flat()) : this.frozen.density;
    return { t: this.t, states: this.states, density, kl: divergence(density, this.waking), frozen: this.frozen };
  }
}

/** The swarm's thread. A page from disk may not load one, so its source is that of the functions above. */
function swarmWorker() {
  const parts = [Random, drawNoise, takeOut, wrap, Rests, Animal, Head, motionOf, surrogate, product, Kernel, bytesOf];
  parts.push(startKernel, settle, sigmoid, Network, RNN, GRU, mostActive, PlaceCells, HeadDirectionCells, assemble);
  parts.push(binOf, blur, densityOf, divergence, Swarm);
  const source = parts.map(String).join("\n") + `
    const kernel = startKernel(${JSON.stringify(window.REACTIVATION_KERNEL)});
    let swarm, slow;
    onmessage = ({ data: { begin: started, looks, setting, patience } }) => {
      if (started) [swarm, slow] = [new Swarm(...started), 0];
      const begin = performance.now();
      for (let i = 0; i < looks; i++) swarm.advance(setting);
      slow = (performance.now() - begin) / looks > patience ? slow + 1 : 0;
      const halved = slow > 4 && swarm.states.length > 10;
      if (halved) {
        slow = 0;
        swarm.halve();
      }
      postMessage({ ...swarm.report(), halved });
    };`;
  return new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
}

// How the animal moves and how the head turns, as in the library's `trajectories`; or as the reader drives them.
"use strict";

/** The representative of an angle in [-π, π). */
function wrap(angle) {
  const wrapped = angle - 2 * Math.PI * Math.floor((angle + Math.PI) / (2 * Math.PI));
  return wrapped >= Math.PI ? -Math.PI : wrapped;
}

/** Whether a step is one of motion: a chain of two equally likely states, each kept for `rests` steps in the mean. */
class Rests {
  constructor(rests, random) {
    this.rests = rests;
    this.random = random;
    this.moves = rests === null || random.uniform() < 0.5;
  }

  step() {
    if (this.rests !== null && this.random.uniform() < 1 / this.rests) this.moves = !this.moves;
    return this.moves;
  }
}

/** An animal foraging in a square box centred on 0; state s in metres. Every step returns Δs. */
class Animal {
  constructor(settings, random) {
    Object.assign(this, settings);
    this.random = random;
    this.s = [(random.uniform() - 0.5) * this.box, (random.uniform() - 0.5) * this.box];
    this.heading = random.uniform() * 2 * Math.PI;
    this.resting = new Rests(this.rests, random);
    // The first step is taken and dropped, as in the library.
    this.step();
  }

  step() {
    const { s, random } = this;
    let step = this.speed * this.dt * Math.sqrt(-2 * Math.log1p(-random.uniform()));
    const turn = this.turning * this.dt * random.normal();
    if (!this.resting.step()) return [0, 0];
    const axis = Math.abs(s[1]) > Math.abs(s[0]) ? 1 : 0;
    const wall = (axis * Math.PI) / 2 + (s[axis] < 0 ? Math.PI : 0);
    const incidence = wrap(this.heading - wall);
    const blocked = Math.abs(s[axis]) > this.box / 2 - this.border && Math.abs(incidence) < Math.PI / 2;
    if (blocked) step *= this.slowing;
    const towards = [Math.cos(this.heading), Math.sin(this.heading)];
    const moved = s.map((x, i) => x * (1 - this.drift) + step * towards[i]);
    const along = wall + (incidence < 0 ? -1 : 1) * (Math.PI / 2);
    this.heading = (blocked ? along : this.heading) + turn;
    return this.moveTo(moved);
  }

  /** A step towards a place, no longer than one of 1.6 m/s, and not out of the box. */
  drive(target) {
    const way = target.map((x, i) => x - this.s[i]);
    const share = Math.min(1, (1.6 * this.dt) / (Math.hypot(...way) || 1));
    const edge = this.box / 2;
    return this.moveTo(this.s.map((x, i) => Math.max(-edge, Math.min(edge, x + share * way[i]))));
  }

  moveTo(s) {
    const ds = s.map((x, i) => x - this.s[i]);
    this.s = s;
    return ds;
  }
}

/** A head that turns; state s = [bearing] in radians. Every step returns Δs. */
class Head {
  constructor(settings, random) {
    Object.assign(this, settings);
    this.random = random;
    this.s = [random.uniform() * 2 * Math.PI - Math.PI];
    this.resting = new Rests(this.rests, random);
  }

  step() {
    let turn = this.turning * this.dt * this.random.normal();
    if (this.counter_clockwise) turn = Math.abs(turn);
    return this.turn(this.resting.step() ? turn : 0);
  }

  /** A turn towards a bearing, of at most 0.2 rad. */
  drive([target]) {
    return this.turn(Math.max(-0.2, Math.min(0.2, wrap(target - this.s[0]))));
  }

  turn(ds) {
    this.s = [wrap(this.s[0] + ds)];
    return [ds];
  }

  moveTo([s]) {
    return this.turn(wrap(s - this.s[0]));
  }
}

/** The motion of a network's task. */
function motionOf({ kind, motion }, random) {
  return new (kind === "position" ? Animal : Head)(motion, random);
}

/**
 * What drives a sleeper through its input, as in the library's `driving`: the movements of an animal that is elsewhere, in a
 * box of its own ("bounded") or in the open ("free"), or of another head.
 */
function surrogate({ kind, motion }, walk, random) {
  return motionOf({ kind, motion: walk === "free" ? { ...motion, box: 200, drift: 0 } : motion }, random);
}

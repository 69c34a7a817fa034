// The picture of the book's first page.
"use strict";

/** Some networks awake, then asleep, over and over. */
class Picture {
  constructor(root) {
    this.root = root;
    this.button = root.querySelector("button");
    this.canvas = root.querySelector("canvas");
    this.playing = false;
    this.button.addEventListener("click", () => this.toggle());
    root.hidden = false;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.canvas.hidden = true;
    else this.toggle();
  }

  async toggle() {
    this.playing = !this.playing;
    this.button.textContent = this.playing ? "Pause" : "Play";
    if (this.asked) return;
    this.asked = true;
    this.stored = await load("position-noisy-unbiased");
    Object.assign(this, assemble(this.stored), { seed: 1, seen: 0 });
    this.canvas.hidden = false;
    this.root.querySelector("img").hidden = true;
    this.begin();
    requestAnimationFrame((now) => this.frame(now));
  }

  begin() {
    const random = new Random(this.seed++, 1);
    this.animals = Array.from({ length: 12 }, () => new Animal(this.stored.motion, random));
    this.random = random;
    const f = this.animals.flatMap(({ s }) => [...this.cells.tuning(s)]);
    this.r = this.network.encode(Float32Array.from(f));
    this.t = 0;
    this.trails = this.animals.map(() => []);
  }

  frame(now) {
    requestAnimationFrame((next) => this.frame(next));
    // A step in 33 ms; a page that is not looked at does not run.
    if (!this.playing || now - this.seen < 33) return;
    this.seen = now;
    const { stored } = this;
    const awake = this.t < stored.n_steps;
    if (this.t === stored.n_steps) this.trails = this.animals.map(() => []);
    const ds = awake ? Float32Array.from(this.animals.flatMap((animal) => animal.step())) : null;
    const sigma = awake ? stored.sigma : Math.sqrt(2) * stored.sigma;
    this.r = this.network.step(this.r, ds, drawNoise(this.r.length, "gaussian", sigma, stored.dt, this.random));
    const decoded = this.cells.decode(this.network.readout(this.r));
    const view = clear(this.canvas, 1.25);
    arena(view, "position");
    const colour = awake ? view.paint.awake : view.paint.asleep;
    decoded.forEach((s, i) => {
      this.trails[i] = [...this.trails[i], s].slice(-40);
      trail(view, this.trails[i], colour);
      dot(view, s, 4, colour);
      if (awake) dot(view, this.animals[i].s, 6, view.paint.faint, false);
    });
    const text = awake ? "Awake: told every movement" : "Asleep: input off, noise × √2";
    const caption = this.root.querySelector("[data-is=caption]");
    if (caption.textContent !== text) caption.textContent = text;
    if (++this.t >= stored.n_steps + 200) this.begin();
  }
}

new Picture(document.querySelector('[data-live="picture"]'));

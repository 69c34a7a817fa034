// The live network's page: its state is that of its form, and stands in the address.
"use strict";

// Where all begin that begin at one place, and a step's time in milliseconds.
const CORNER = { position: [0.9, 0.9], "head-direction": [Math.PI / 4] };
const STEP = 20;

// What is set where the address is silent; the multiplier and the law of the noise are then the network's own.
const USUAL = { network: "position-noisy-unbiased", input: "on", start: "anywhere", at: "", seed: "7", speed: "1" };
Object.assign(USUAL, { walk: "none", take: "off", swarm: "off", sleepers: "100" });

/** The page's form, its canvases, and the clock. */
class Bench {
  constructor(root) {
    this.root = root;
    this.form = root.querySelector("form");
    const entries = Object.entries(window.REACTIVATION_ENTRIES);
    for (const [name, label] of entries) this.form.network.add(new Option(label, name));
    this.keys = new Set();
    this.frames = 0;
    this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    root.hidden = false;
    this.listen();
    this.fromAddress();
    this.last = performance.now();
    requestAnimationFrame((now) => this.frame(now));
  }

  find(name) {
    return this.root.querySelector(`[data-is="${name}"]`);
  }

  listen() {
    const { form } = this;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", ({ target }) => this.changed(target.name));
    this.root.addEventListener("click", ({ target }) => this.pressed(target.closest("button")?.value));
    // Headings have addresses, too.
    window.addEventListener("hashchange", () => location.hash.includes("=") && this.fromAddress());
    const canvas = this.find("arena");
    const point = (event) => {
      const { left, top, width, height } = canvas.getBoundingClientRect();
      const [x, y] = [(2 * (event.clientX - left)) / width - 1, 1 - (2 * (event.clientY - top)) / height];
      const inBox = [x, y].map((value) => Math.max(-1.1, Math.min(1.1, 1.25 * value)));
      const s = this.stored?.kind === "head-direction" ? [Math.atan2(y, x)] : inBox;
      this.form.at.value = s.map((v) => v.toFixed(2));
      return s;
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.drag = point(event);
      this.driven = true;
    });
    canvas.addEventListener("pointermove", (event) => this.drag && (this.drag = point(event)));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        this.drag = null;
        this.remember();
      });
    }
    canvas.addEventListener("keydown", (event) => {
      if (event.key === " ") this.pressed("play");
      else if (event.key.startsWith("Arrow")) this.keys.add(event.key) && (this.driven = true);
      else return;
      event.preventDefault();
    });
    canvas.addEventListener("keyup", (event) => this.keys.delete(event.key));
    canvas.addEventListener("blur", () => this.keys.clear());
  }

  /** Set the form from the address; what that leaves out is as usual. */
  fromAddress() {
    const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    for (const [name, value] of Object.entries({ ...USUAL, ...given })) {
      const control = this.form.elements[name];
      if (control?.type === "checkbox") control.checked = value === "on";
      else if (control) control.value = value;
      // A choice that there is not.
      if (control?.value === "" && name in USUAL) control.value = USUAL[name];
    }
    this.choose(given);
  }

  /** Load the network; its own multiplier and law are chosen where none is given. */
  async choose(given = {}) {
    const name = this.form.network.value;
    this.say("Loading the network.");
    const stored = await load(name).catch(() => null);
    if (stored === null) return this.say("The network could not be loaded.");
    if (name !== this.form.network.value) return;
    this.stored = stored;
    this.directions = inputDirections(stored);
    if (!("c" in given)) this.form.c.value = stored.c;
    if (!("law" in given)) this.form.law.value = stored.law;
    this.reset();
  }

  setting() {
    const { c, law, walk, take, input } = this.form;
    const directions = take.checked ? this.directions : [];
    return { input: input.checked, c: Number(c.value), law: law.value, walk: walk.value, directions };
  }

  /** Where all are to begin; null for anywhere. */
  start() {
    const { start, at } = this.form;
    const corner = CORNER[this.stored.kind];
    if (start.value === "corner") return corner;
    const pointed = at.value.split(",").map(parseFloat);
    return start.value === "pointer" && pointed.length === corner.length && pointed.every(isFinite) ? pointed : null;
  }

  reset() {
    this.driven = false;
    this.run = new Run(this.stored, Number(this.form.seed.value), this.start());
    this.owed = 0;
    this.sendToSleep();
    this.update();
  }

  async changed(name) {
    if (name === "network") await this.choose();
    else if (name === "seed" || name === "start") this.reset();
    else if (name === "swarm" || name === "sleepers") this.sendToSleep();
    else this.update();
    this.remember();
  }

  pressed(value) {
    if (!value || !this.run) return;
    if (value === "play") this.playing = !this.playing;
    if (value === "step") {
      this.playing = false;
      this.advance();
      this.advanceSwarm(1);
    }
    if (value === "reset") this.reset();
    if (value === "anchor") this.run.anchor();
    if (value === "own") this.driven = false;
    if (value.startsWith("kick-")) this.run.kick(value.slice(5));
    this.update();
  }

  /** Where the reader drives to; null for the motion's own. */
  target() {
    if (!this.driven) return null;
    const { s } = this.run.motion;
    if (this.drag) return this.drag;
    const go = (key) => (this.keys.has(`Arrow${key}`) ? 1 : 0);
    const [x, y] = [go("Right") - go("Left"), go("Up") - go("Down")];
    return s.length === 2 ? [s[0] + 0.02 * x, s[1] + 0.02 * y] : [s[0] - 0.1 * x];
  }

  advance() {
    this.run.step({ ...this.setting(), target: this.target() });
  }

  frame(now) {
    requestAnimationFrame((next) => this.frame(next));
    const passed = Math.min(now - this.last, 100) * Number(this.form.speed.value);
    this.last = now;
    if (!this.run) return;
    if (this.playing) {
      this.owed += passed / STEP;
      const begin = performance.now();
      for (; this.owed >= 1; this.owed--) {
        this.advance();
        // A slow machine falls behind the clock, not behind its display.
        if (performance.now() - begin > 12) this.owed = 1;
      }
      this.advanceSwarm(passed / STEP);
    }
    this.draw();
    // Once a second: it is read aloud when it changes.
    if (now - this.described > 1000) this.describe();
  }

  /** Begin with many sleepers, or with none. */
  sendToSleep() {
    const { form, stored } = this;
    this.swarm?.worker.terminate();
    this.swarm = null;
    this.find("swarm").hidden = !form.swarm.checked;
    if (!form.swarm.checked) return;
    const seed = Number(form.seed.value);
    const random = new Random(seed, 4);
    const starts = Array.from({ length: Number(form.sleepers.value) }, () => this.start() ?? motionOf(stored, random).s);
    this.swarm = { worker: swarmWorker(), busy: true, owed: 0, kl: [] };
    const { worker } = this.swarm;
    worker.onmessage = ({ data }) => this.swarm?.worker === worker && this.receive(data);
    worker.postMessage({ begin: [stored, starts, seed], looks: 0 });
  }

  advanceSwarm(steps) {
    if (!this.swarm) return;
    this.swarm.owed = Math.min(this.swarm.owed + steps / 5, 4);
    const looks = Math.floor(this.swarm.owed);
    if (this.swarm.busy || looks === 0) return;
    this.swarm.owed -= looks;
    this.swarm.busy = true;
    // Five steps in 100 ms are as fast as life.
    this.swarm.worker.postMessage({ looks, setting: this.setting(), patience: 5 * STEP });
  }

  receive(report) {
    const { swarm, stored } = this;
    swarm.busy = false;
    swarm.states = report.states;
    swarm.shrunk ||= report.halved;
    if (report.t > 0) swarm.kl.push([report.t, report.kl]);
    const show = (name, values, colour) => density(this.find(name), values, stored.vmax, stored.kind, colour);
    show("asleep", report.density, "asleep");
    // These two stay as they are, but for the size and the theme of the page.
    if (report.t % 100 === 0) {
      show("waking", stored.waking.density, "awake");
      show("frozen", report.frozen.density, "faint");
    }
    const level = report.frozen.kl;
    const top = 1.1 * Math.max(level, ...swarm.kl.map(([, kl]) => kl), 0.2);
    curves(this.find("kl"), [["asleep", swarm.kl]], { from: 0, to: Math.max(report.t, 200), top, level });
    const shrunk = swarm.shrunk ? " This machine is too slow for more: sleepers were taken out." : "";
    const long = report.t > 1000 ? " Longer than the 1,000 steps that the chapters measured." : "";
    this.find("kl-text").textContent =
      `${report.states.length} sleepers, step ${report.t}: KL to waking ${report.kl.toFixed(2)} nats; ` +
      `frozen at their starts ${level.toFixed(2)} nats.${shrunk}${long}`;
  }

  draw() {
    const { run, stored } = this;
    this.drawArena(run, stored.kind);
    // What is inside takes longest to draw, and is looked at less.
    if (this.frames++ % 3 === 0) this.drawInside(run, stored);
    const number = (x) => x.toFixed(2);
    const unit = stored.kind === "position" ? "m" : "rad";
    this.find("numbers").textContent =
      `Step ${run.t}. Says (${run.decoded.map(number).join(", ")}) ${unit}; off by ${number(run.error())} ${unit}, ` +
      `${number(stored.waking.error)} on average awake. Norm ${number(run.past.at(-1).norm)} of waking.`;
  }

  drawArena(run, kind) {
    const { input } = this.setting();
    const view = clear(this.find("arena"), 1.25);
    const { paint } = view;
    arena(view, kind);
    if (kind === "head-direction") output(view, run.cells, run.o, kind);
    const recent = run.past.slice(-120);
    trail(view, recent.map(({ s }) => s), paint.awake);
    trail(view, recent.map(({ decoded }) => decoded), input ? paint.ink : paint.asleep);
    for (const s of this.swarm?.states ?? []) dot(view, onPage(s), 2.5, paint.asleep);
    dot(view, onPage(run.motion.s), 7, paint.awake, input);
    dot(view, onPage(run.decoded), 5, input ? paint.ink : paint.asleep);
    if (this.start()) dot(view, onPage(this.start()), 10, paint.faint, false);
  }

  drawInside(run, stored) {
    const { cloud } = stored.waking;
    const inside = clear(this.find("plane"), 1.3 * Math.max(...cloud.map(Math.abs)));
    const colour = this.setting().input ? inside.paint.ink : inside.paint.asleep;
    inside.g.globalAlpha = 0.4;
    inside.g.fillStyle = inside.paint.awake;
    for (let i = 0; i < cloud.length; i += 2) inside.g.fillRect(...inside.at([cloud[i], cloud[i + 1]]), 2, 2);
    inside.g.globalAlpha = 1;
    const path = run.past.slice(-120).map(({ scores }) => scores);
    line(inside, path, colour);
    dot(inside, path.at(-1), 4, colour);
    const map = clear(this.find("output"), 1.25);
    arena(map, stored.kind);
    output(map, run.cells, run.o, stored.kind);
    const to = Math.max(run.t, 300);
    const began = run.t - run.since;
    // A curve for every stretch awake or asleep.
    const stretches = [];
    for (const { t, norm, input } of run.past) {
      const phase = input ? "awake" : "asleep";
      if (stretches.at(-1)?.[0] !== phase) stretches.push([phase, []]);
      stretches.at(-1)[1].push([t, norm]);
    }
    const marks = [began, began + stored.n_steps];
    curves(this.find("norm"), stretches, { from: to - 300, to, top: 2, level: 1, marks });
  }

  update() {
    const { form } = this;
    this.find("c").textContent = form.c.value;
    this.find("switch").textContent = form.input.checked ? "on" : "off";
    this.find("play").textContent = this.playing ? "Pause" : "Play";
    this.describe();
  }

  /** Write what is set, and is not as usual, into the address. */
  remember() {
    const usual = { ...USUAL, c: String(this.stored?.c), law: this.stored?.law };
    const shown = Array.from(this.form.elements)
      .filter(({ name, value }) => name && (name !== "at" || this.form.start.value === "pointer"))
      .map(({ name, type, checked, value }) => [name, type === "checkbox" ? (checked ? "on" : "off") : value])
      .filter(([name, value]) => value !== usual[name]);
    history.replaceState(null, "", `#${new URLSearchParams(shown)}`);
  }

  /** What is seen, in a sentence. */
  describe() {
    this.described = performance.now();
    const setting = this.setting();
    const text = setting.input ? this.awake() : this.asleep(setting);
    this.say(text + (this.playing ? "" : " Paused."));
  }

  awake() {
    const { n_steps, kind } = this.stored;
    const long = this.run.since > n_steps ? ` Longer than the ${n_steps} steps of training: its errors add up.` : "";
    const what = kind === "position" ? "animal is" : "head points";
    return `Awake: told every movement, the network says where the ${what}.${long}`;
  }

  asleep({ c, walk }) {
    const { run } = this;
    const what = this.stored.kind === "position" ? "place" : "bearing";
    const rests = run.since > 50 && run.moved() < 0.02;
    const long = run.since > 1000 ? " Longer than the 1,000 steps that the chapters measured." : "";
    const noise = c === 0 ? "without noise" : `the noise has ${c} times its waking variance`;
    if (walk !== "none") return `Asleep, but driven: told movements made elsewhere; ${noise}.${long}`;
    if (c === 0) {
      const end = rests ? "; it has come to rest." : ".";
      return `Asleep without noise: only what was learned moves the ${what}${end}${long}`;
    }
    const goes = rests ? "hardly moves just now" : "goes on by itself";
    return `Asleep: the input is off, ${noise}; the ${what} ${goes}.${long}`;
  }

  say(text) {
    const status = this.find("status");
    if (status.textContent !== text) status.textContent = text;
  }
}

new Bench(document.querySelector('[data-live="bench"]'));

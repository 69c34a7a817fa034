// Arrays to canvases. Waking is blue and sleep red, as on all pages; densities are magma, to the same value.
"use strict";

const MAGMA = ["000004", "1c1044", "4f127b", "812581", "b5367a", "e55964", "fb8761", "fec287", "fcfdbf"].map((hex) =>
  [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)),
);

/** The colour of a share of the range, from 0 to 1, as red, green and blue. */
function magma(share) {
  const place = Math.max(0, Math.min(1, share)) * 8;
  const low = Math.min(7, Math.floor(place));
  return MAGMA[low].map((value, i) => value + (place - low) * (MAGMA[low + 1][i] - value));
}

/** Colours of the page, which follow its theme. */
function colours(element) {
  const style = getComputedStyle(element);
  const names = ["awake", "asleep", "ink", "faint"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--live-${name}`).trim()]));
}

/** A cleared canvas, `limit` the value at its edges; `at` are a point's pixels, the second axis pointing up. */
function clear(canvas, limit) {
  const [width, height, ratio] = [canvas.clientWidth, canvas.clientHeight, window.devicePixelRatio || 1];
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const g = canvas.getContext("2d");
  g.setTransform(ratio, 0, 0, ratio, 0, 0);
  g.clearRect(0, 0, width, height);
  g.lineJoin = "round";
  const at = ([x, y]) => [(width / 2) * (1 + x / limit), (height / 2) * (1 - y / limit)];
  return { g, at, width, height, paint: colours(canvas) };
}

/** Where a state is drawn: a position at its place, a bearing on a circle. */
function onPage(s, radius = 1) {
  return s.length === 2 ? s : [radius * Math.cos(s[0]), radius * Math.sin(s[0])];
}

function line({ g, at }, points, colour, width = 1.2) {
  g.strokeStyle = colour;
  g.lineWidth = width;
  g.beginPath();
  for (const point of points) g.lineTo(...at(point));
  g.stroke();
}

function dot({ g, at }, point, radius, colour, filled = true) {
  g.beginPath();
  g.arc(...at(point), radius, 0, 2 * Math.PI);
  g[filled ? "fillStyle" : "strokeStyle"] = colour;
  g.lineWidth = 2;
  filled ? g.fill() : g.stroke();
}

/** A trail that fades; that of a bearing winds inwards with its age. Leaps are not joined. */
function trail(view, states, colour) {
  states.slice(1).forEach((s, i) => {
    const [from, to] = [i, i + 1].map((k) => onPage(states[k], 0.55 + (0.4 * (k + 1)) / states.length));
    view.g.globalAlpha = 0.15 + (0.7 * i) / states.length;
    if (Math.hypot(from[0] - to[0], from[1] - to[1]) < 0.4) line(view, [from, to], colour, 1.6);
    else dot(view, to, 1.2, colour);
  });
  view.g.globalAlpha = 1;
}

/** The box, or the circle of bearings. */
function arena(view, kind) {
  const turns = Array.from({ length: 101 }, (_, i) => [(2 * Math.PI * i) / 100]);
  const box = [[-1.1, -1.1], [1.1, -1.1], [1.1, 1.1], [-1.1, 1.1], [-1.1, -1.1]];
  line(view, kind === "position" ? box : turns.map((s) => onPage(s)), view.paint.faint);
}

/** The network's output over the cells: each at its centre, by colour; or beyond the circle by what it says. */
function output(view, cells, o, kind) {
  const peak = o.reduce((a, b) => Math.max(a, b), 1e-30);
  if (kind === "position") {
    const [[left, top], [right, bottom]] = [view.at([-1.15, 1.15]), view.at([1.15, -1.15])];
    view.g.fillStyle = `rgb(${magma(0)})`;
    view.g.fillRect(left, top, right - left, bottom - top);
    const centre = (i) => [cells.centres[2 * i], cells.centres[2 * i + 1]];
    o.forEach((value, i) => dot(view, centre(i), 3.2, `rgb(${magma(value / peak)})`));
  } else {
    const at = (i) => onPage([cells.angles[i % o.length]], 1 + 0.22 * Math.max(0, o[i % o.length] / peak));
    line(view, Array.from({ length: o.length + 1 }, (_, i) => at(i)), view.paint.faint, 2);
  }
}

/** A density: a map of the box, or a curve around the circle. */
function density(canvas, values, vmax, kind, colour) {
  const view = clear(canvas, kind === "position" ? 1.25 : 2);
  if (kind === "position") {
    const image = new ImageData(100, 100);
    const shades = Array.from({ length: 256 }, (_, i) => magma(i / 255));
    values.forEach((value, i) => {
      const place = 4 * (100 * (99 - Math.floor(i / 100)) + (i % 100));
      const shade = shades[Math.min(255, Math.round((255 * value) / vmax))];
      for (let k = 0; k < 3; k++) image.data[place + k] = shade[k];
      image.data[place + 3] = 255;
    });
    const small = new OffscreenCanvas(100, 100);
    small.getContext("2d").putImageData(image, 0, 0);
    view.g.drawImage(small, 0, 0, view.width, view.height);
  } else {
    arena(view, kind);
    // The area within a curve is its share, as in Fig. 3.
    const bearing = (i) => onPage([-Math.PI + (2 * Math.PI * i) / 100], Math.sqrt(values[i % 100] * 2 * Math.PI));
    line(view, Array.from({ length: 101 }, (_, i) => bearing(i)), view.paint[colour], 2);
  }
}

/** Curves against time, of points [t, y]; horizontal lines at given values. */
function curves(canvas, drawn, { from, to, top, level, marks = [] }) {
  const view = clear(canvas, 1);
  const { g, width, height, paint } = view;
  const at = ([t, y]) => [(width * (t - from)) / (to - from), height - 4 - (height - 8) * Math.min(1, y / top)];
  g.setLineDash([4, 4]);
  if (level !== undefined) line({ g, at }, [[from, level], [to, level]], paint.faint);
  for (const t of marks) line({ g, at }, [[t, 0], [t, top]], paint.faint);
  g.setLineDash([]);
  for (const [colour, points] of drawn) line({ g, at }, points, paint[colour], 1.6);
}

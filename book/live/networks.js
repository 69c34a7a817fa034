// The recurrent networks, one readable step each, and the cells they report with, as in the library's `networks` and
// `cells`. Matrices are stored row by row. Activity r, noise and output o hold the values of B runs one after the other.
"use strict";

/** A x for each of B vectors x, by the kernel where it runs, else with sums in double precision. */
function product(A, x, n) {
  if (kernel !== null && n % 4 === 0) return kernel.multiply(A, x, n);
  const [B, m] = [x.length / n, A.length / n];
  const out = new Float32Array(B * m);
  for (let b = 0; b < B; b++) {
    for (let i = 0; i < m; i++) {
      let sum = 0;
      for (let j = 0, k = i * n, l = b * n; j < n; j++, k++, l++) sum += A[k] * x[l];
      out[b * m + i] = sum;
    }
  }
  return out;
}

/** `product.wat`, assembled. Its memory holds every matrix it was given and, behind them, vectors and their products. */
class Kernel {
  constructor(code) {
    this.memory = new WebAssembly.Memory({ initial: 1 });
    const js = { memory: this.memory };
    this.product = new WebAssembly.Instance(new WebAssembly.Module(code), { js }).exports.product;
    this.places = new Map();
    this.end = 0;
  }

  /** Some numbers of the memory, which grows if it has to: earlier views are then void. */
  view(place, length) {
    const missing = place + 4 * length - this.memory.buffer.byteLength;
    if (missing > 0) this.memory.grow(Math.ceil(missing / 65536));
    return new Float32Array(this.memory.buffer, place, length);
  }

  multiply(A, x, n) {
    if (!this.places.has(A)) {
      this.view(this.end, A.length).set(A);
      this.places.set(A, this.end);
      this.end += 4 * A.length;
    }
    const [B, m, fours] = [x.length / n, A.length / n, Math.ceil(x.length / n / 4)];
    const place = this.end + 16 * fours * n;
    const Y = this.view(place, 4 * fours * m);
    const X = this.view(this.end, 4 * fours * n);
    for (let b = 0, l = 0; b < B; b++) {
      const first = 4 * n * (b >> 2) + 4 * (b & 3);
      for (let j = 0; j < n; j++, l++) X[first + 16 * (j >> 2) + (j & 3)] = x[l];
    }
    this.product(this.places.get(A), this.end, place, m, n, fours);
    const out = new Float32Array(B * m);
    for (let b = 0, l = 0; b < B; b++) {
      const first = 4 * m * (b >> 2) + (b & 3);
      for (let i = 0; i < m; i++, l++) out[l] = Y[first + 4 * i];
    }
    return out;
  }
}

/** The kernel of some code in base64; null where a browser cannot run it. */
function startKernel(code) {
  try {
    return new Kernel(bytesOf(code));
  } catch {
    return null;
  }
}

/** What has decayed to nothing is 0: with subnormal numbers many CPUs are a hundred times slower. */
function settle(r) {
  return Math.abs(r) < 1e-30 ? 0 : r;
}

function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

/** A linear encoder, r(0) = E f(s(0)), and a linear readout, o = D r; a subclass gives the step. */
class Network {
  constructor(parameters, n_units, tau, dt) {
    Object.assign(this, parameters);
    this.n_units = n_units;
    this.n_cells = this.D.length / n_units;
    this.rate = dt / tau;
  }

  encode(f) {
    return product(this.encoder, f, this.n_cells);
  }

  readout(r) {
    return product(this.D, r, this.n_units);
  }

  /** W r + W_in Δs; without input Δs is null. */
  drive(W, r, W_in, ds) {
    const recurrent = product(W, r, this.n_units);
    if (ds === null) return recurrent;
    const input = product(W_in, ds, ds.length / (r.length / this.n_units));
    return recurrent.map((x, i) => x + input[i]);
  }
}

/** Δr = 1/τ [-r + ReLU(W_rec r + W_in Δs)] dt + σ η, Eq. (A.1). */
class RNN extends Network {
  step(r, ds, noise) {
    const drive = this.drive(this.W_rec, r, this.W_in, ds);
    return r.map((x, i) => settle(x + (Math.max(drive[i], 0) - x) * this.rate + noise[i]));
  }
}

/** Δr = 1/τ [(1 - z) ⊙ (tanh(W_r (g ⊙ r) + W_r_in Δs) - r)] dt + σ η, Eqs. (A.3) to (A.5). */
class GRU extends Network {
  step(r, ds, noise) {
    const z = this.drive(this.W_z, r, this.W_z_in, ds).map(sigmoid);
    const g = this.drive(this.W_g, r, this.W_g_in, ds).map(sigmoid);
    const gated = r.map((x, i) => g[i] * x);
    const candidate = this.drive(this.W_r, gated, this.W_r_in, ds).map(Math.tanh);
    return r.map((x, i) => settle(x + (1 - z[i]) * (candidate[i] - x) * this.rate + noise[i]));
  }
}

/** The three most active cells of each run's output. */
function mostActive(o, n_cells) {
  const best = [];
  for (let begin = 0; begin < o.length; begin += n_cells) {
    const top = [-1, -1, -1];
    for (let i = 0; i < n_cells; i++) {
      let [cell, rank] = [i, 3];
      while (rank > 0 && (top[rank - 1] < 0 || o[begin + cell] > o[begin + top[rank - 1]])) rank--;
      if (rank < 3) top.splice(rank, 0, cell) && top.pop();
    }
    best.push(top);
  }
  return best;
}

/** Gaussian tuning to position, Eq. (20); a place is decoded as the mean of the three most active cells' centres. */
class PlaceCells {
  constructor(centres, settings) {
    Object.assign(this, settings);
    this.centres = centres;
    this.n_cells = centres.length / 2;
  }

  tuning([x, y]) {
    const f = new Float32Array(this.n_cells);
    let total = 0;
    for (let i = 0; i < f.length; i++) {
      const distance2 = (x - this.centres[2 * i]) ** 2 + (y - this.centres[2 * i + 1]) ** 2;
      f[i] = Math.exp(-distance2 / (2 * this.width ** 2));
      total += f[i];
    }
    return this.normalise ? f.map((value) => value / total) : f;
  }

  decode(o) {
    const mean = (top, axis) => top.reduce((sum, i) => sum + this.centres[2 * i + axis], 0) / 3;
    return mostActive(o, this.n_cells).map((top) => [mean(top, 0), mean(top, 1)]);
  }
}

/** Von Mises tuning to bearing with a peak of 1, Eq. (21); decoded as the circular mean of the three most active. */
class HeadDirectionCells {
  constructor(angles, settings) {
    Object.assign(this, settings);
    this.angles = angles;
    this.n_cells = angles.length;
  }

  tuning([s]) {
    return this.angles.map((angle) => Math.exp((Math.cos(s - angle) - 1) / this.width ** 2));
  }

  decode(o) {
    const sum = (top, f) => top.reduce((total, i) => total + f(this.angles[i]), 0);
    return mostActive(o, this.n_cells).map((top) => [Math.atan2(sum(top, Math.sin), sum(top, Math.cos))]);
  }
}

/** The number whose 16 bits are these. */
function float16(bits) {
  const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

/** Bytes from base64. */
function bytesOf(data) {
  const characters = atob(data);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  return bytes;
}

/** Numbers from base64: float32, float16, or int8 with one scale a row. */
function unpack({ dtype, data, scale }) {
  const bytes = bytesOf(data);
  if (dtype === "float32") return new Float32Array(bytes.buffer);
  const stored = dtype === "int8" ? new Int8Array(bytes.buffer) : new Uint16Array(bytes.buffer);
  const numbers = new Float32Array(stored.length);
  const scales = dtype === "int8" ? unpack(scale) : null;
  const columns = scales && stored.length / scales.length;
  for (let i = 0; i < numbers.length; i++) {
    numbers[i] = scales ? stored[i] * scales[Math.floor(i / columns)] : float16(stored[i]);
  }
  return numbers;
}

/** What was stored of a network, with its arrays as numbers. */
function restore(stored) {
  const numbers = (value) => {
    if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
    if ("dtype" in value) return unpack(value);
    return Object.fromEntries(Object.entries(value).map(([name, of]) => [name, numbers(of)]));
  };
  return numbers(stored);
}

/** The network and its cells. */
function assemble({ network, parameters, preferred, n_units, tau, dt, kind, cells }) {
  const [Kind, Cells] = [network === "gru" ? GRU : RNN, kind === "position" ? PlaceCells : HeadDirectionCells];
  return { network: new Kind(parameters, n_units, tau, dt), cells: new Cells(preferred, cells) };
}

const loading = {};

/** A stored network, loaded when it is first asked for. */
function load(name) {
  loading[name] ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `live/${name}.js`;
    script.onload = () => resolve(restore(window.REACTIVATION_WEIGHTS[name]));
    script.onerror = reject;
    document.head.append(script);
  });
  return loading[name];
}

let kernel = startKernel(window.REACTIVATION_KERNEL);

// Random numbers that are seeded, and the laws of the recurrent noise, as in the library's `noise`.
"use strict";

/** Numbers of a stream that depends on a seed and on the stream's number alone (sfc32, by Chris Doty-Humphrey). */
class Random {
  constructor(seed, stream = 0) {
    this.state = Uint32Array.of(seed, stream, 0x9e3779b9, 1);
    for (let i = 0; i < 20; i++) this.bits();
  }

  bits() {
    const s = this.state;
    const sum = (s[0] + s[1] + s[3]) >>> 0;
    s[3]++;
    s[0] = s[1] ^ (s[1] >>> 9);
    s[1] = s[2] + (s[2] << 3);
    s[2] = ((s[2] << 21) | (s[2] >>> 11)) + sum;
    return sum;
  }

  /** Uniform on [0, 1). */
  uniform() {
    return this.bits() / 2 ** 32;
  }

  /** N(0, 1), by Box and Muller; 1 - U is never 0. */
  normal() {
    if (this.spare !== undefined) {
      const spare = this.spare;
      this.spare = undefined;
      return spare;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}

/**
 * The term σ η of n units, Eq. (2): η ~ N(0, dt) if the law is "gaussian", the paper's; √dt U[0, 1) if it is "uniform",
 * the released code's.
 */
function drawNoise(n, law, sigma, dt, random) {
  const eta = new Float32Array(n);
  if (sigma === 0) return eta;
  const scale = sigma * Math.sqrt(dt);
  for (let i = 0; i < n; i++) eta[i] = scale * (law === "uniform" ? random.uniform() : random.normal());
  return eta;
}

/** Take out of the noise what points along some orthonormal directions. */
function takeOut(noise, directions) {
  for (const u of directions) {
    for (let b = 0; b < noise.length; b += u.length) {
      let along = 0;
      for (let i = 0; i < u.length; i++) along += u[i] * noise[b + i];
      for (let i = 0; i < u.length; i++) noise[b + i] -= along * u[i];
    }
  }
  return noise;
}

/** Orthonormal directions that span some vectors, the first along the first. */
function orthonormal(vectors) {
  const basis = [];
  for (const vector of vectors) {
    const u = takeOut(Float64Array.from(vector), basis);
    const norm = Math.hypot(...u);
    basis.push(u.map((x) => x / norm));
  }
  return basis;
}

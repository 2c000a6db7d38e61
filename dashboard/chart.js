//! A small line of the recent past beside a number.
//!
//! In: samples, oldest first, `null` where nothing is known. Out: an SVG that scales with its box.

import { replace, svg } from "./dom.js";

const WIDTH = 120;
const HEIGHT = 28;

export class Sparkline {
  constructor(samplesMax) {
    this.samplesMax = samplesMax;
    this.samples = [];
    this.node = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "sparkline", preserveAspectRatio: "none", "aria-hidden": "true" });
  }

  add(sample) {
    this.samples.push(Number.isFinite(sample) ? sample : null);
    if (this.samples.length > this.samplesMax) this.samples.shift();
    this.draw();
  }

  draw() {
    const top = Math.max(...this.samples.filter((sample) => sample !== null), 0) || 1;
    const step = WIDTH / (this.samplesMax - 1);
    const start = WIDTH - (this.samples.length - 1) * step;
    const points = this.samples
      .map((sample, index) => [start + index * step, sample])
      .filter(([, sample]) => sample !== null)
      .map(([x, sample]) => `${x.toFixed(1)},${(HEIGHT - 2 - (sample / top) * (HEIGHT - 4)).toFixed(1)}`);
    if (points.length < 2) return replace(this.node);
    const [first, last] = [points[0].split(",")[0], points.at(-1).split(",")[0]];
    replace(this.node, svg("polygon", { class: "sparkline-area", points: `${first},${HEIGHT} ${points.join(" ")} ${last},${HEIGHT}` }), svg("polyline", { class: "sparkline-line", points: points.join(" "), "vector-effect": "non-scaling-stroke" }));
  }
}

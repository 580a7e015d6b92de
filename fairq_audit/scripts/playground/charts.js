// The drawings beside the plane: weights, groups and seeds.

import { FULL, rounded, stepOf } from "./grid.js";
import { percent, signed } from "./sentences.js";
import { element, shape } from "../common/elements.js";

/** The weights of one matrix: above where training left them, below where the grid lets them be. */
export function strip(title) {
  const [width, height, top, bottom, edge] = [340, 84, 26, 62, 12];
  const parts = {
    zero: shape("path", { class: "pg-zero-bin" }),
    ticks: shape("path", { class: "pg-ticks" }),
    lines: shape("path", { class: "pg-lines" }),
    zeros: shape("path", { class: "pg-zeros" }),
    dots: shape("g", {}),
    said: shape("text", { x: width, y: 12, "text-anchor": "end", class: "pg-zero-said" }),
  };
  const heading = shape("text", { x: 0, y: 12 }, title);
  const view = { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: still being learned.` };
  const drawing = shape("svg", view, heading, ...Object.values(parts));
  return {
    drawing,
    draw(weights, shown, bits) {
      const reach = weights.reduce((most, weight) => Math.max(most, Math.abs(weight)), 1e-9);
      const x = (weight) => width / 2 + (weight / reach) * (width / 2 - edge);
      const last = 2 ** (bits - 1) - 1;
      const step = bits === FULL ? 0 : stepOf(weights, bits);
      const home = bits === FULL ? weights : rounded(weights, bits);
      const strokes = { lines: [], zeros: [] };
      weights.forEach((weight, i) => {
        const from = x(weight).toFixed(1);
        const stroke = `M${from},${top - 7}V${top}L${x(shown[i]).toFixed(1)},${bottom}`;
        strokes[bits !== FULL && home[i] === 0 ? "zeros" : "lines"].push(stroke);
      });
      parts.lines.setAttribute("d", strokes.lines.join(""));
      parts.zeros.setAttribute("d", strokes.zeros.join(""));
      const ticks = [];
      for (let code = -last; bits !== FULL && code <= last; code++) {
        ticks.push(`M${x(code * step).toFixed(1)},${bottom}v6`);
      }
      parts.ticks.setAttribute("d", `M${edge},${bottom}H${width - edge}${ticks.join("")}`);
      const [low, high] = [x(-step / 2), x(step / 2)];
      const bin = `M${low},${top - 9}H${high}V${top}L${width / 2},${bottom}L${low},${top}Z`;
      parts.zero.setAttribute("d", bits === FULL ? "" : bin);
      const many = new Map();
      if (bits !== FULL) home.forEach((value) => many.set(value, (many.get(value) || 0) + 1));
      const dots = [...many].map(([value, n]) =>
        shape("circle", {
          cx: x(value).toFixed(1),
          cy: bottom,
          r: (1.6 * Math.sqrt(n)).toFixed(1),
          class: value === 0 ? "pg-dot pg-at-zero" : "pg-dot",
        }),
      );
      parts.dots.replaceChildren(...dots);
      const at = strokes.zeros.length;
      parts.said.textContent = bits === FULL ? "not rounded" : `${at} of ${weights.length} rounded to 0`;
      const grid = `on ${2 * last + 1} values, ${signed(step, 3)} apart; ${at} of them are 0`;
      drawing.setAttribute("aria-label", `${title}: ${bits === FULL ? "not rounded" : grid}.`);
    },
  };
}

/** How right a group is: now, and hollow where it was in full precision. */
export function meter(name, className, mark) {
  const [width, edge] = [160, 8];
  const x = (share) => edge + share * (width - 2 * edge);
  const line = shape("path", { class: "pg-change" });
  const was = shape("path", { d: mark(4.2), class: "pg-was" });
  const now = shape("path", { d: mark(5), class: "pg-now" });
  const ends = `M${edge},4v8M${width - edge},4v8`;
  const scale = shape("path", { d: `M${edge},8H${width - edge}${ends}`, class: "pg-scale" });
  const drawing = shape("svg", { viewBox: `0 0 ${width} 16`, "aria-hidden": "true" }, scale, line, was, now);
  const [value, note] = [element("strong"), element("small")];
  const label = element("span", {}, name);
  const row = element("div", { class: `pg-meter ${className}` }, label, drawing, value, note);
  return {
    row,
    show(before, after, unit, more) {
      const known = before !== null && after !== null;
      drawing.style.visibility = known ? "" : "hidden";
      value.textContent = known ? `${percent(after)}${unit}` : "–";
      note.textContent = known ? more : "";
      if (!known) return;
      line.setAttribute("d", `M${x(before)},8H${x(after)}`);
      was.setAttribute("transform", `translate(${x(before)},8)`);
      now.setAttribute("transform", `translate(${x(after)},8)`);
    },
  };
}

/** A dot for each seed: how much more the minority lost than the majority. */
export function seedStrip() {
  const [width, height, floor] = [340, 88, 64];
  const dots = shape("g", {});
  const names = [
    shape("text", { x: 4, y: height - 4 }, "← the majority lost more"),
    shape("text", { x: width - 4, y: height - 4, "text-anchor": "end" }, "the minority lost more →"),
  ];
  const key = shape("text", { x: 4, y: 12 }, "● this seed");
  const zero = `M${width / 2},8V${floor + 9}`;
  const axis = shape("path", { d: `M4,${floor + 5}H${width - 4}${zero}`, class: "pg-scale" });
  const view = { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "No seed has been trained yet." };
  const drawing = shape("svg", view, axis, dots, key, ...names);
  return {
    drawing,
    draw(excesses, seed, said) {
      const reach = Math.max(0.2, ...[...excesses.values()].map(Math.abs));
      const stacks = new Map();
      const drawn = [...excesses].map(([own, value]) => {
        const place = Math.round((value / reach) * 16); // a column of dots for each of 33 places
        const below = stacks.get(place) || 0;
        stacks.set(place, below + 1);
        return { own, value, x: width / 2 + place * 9.8, level: below };
      });
      const rise = Math.min(9, 54 / Math.max(1, ...stacks.values()));
      dots.replaceChildren(
        ...drawn.map(({ own, value, x, level }) =>
          shape(
            "circle",
            { cx: x, cy: floor - level * rise, r: 4, class: own === seed ? "pg-seed pg-this" : "pg-seed" },
            shape("title", {}, `seed ${own}: ${signed(100 * value, 0)} points`),
          ),
        ),
      );
      key.style.visibility = excesses.has(seed) ? "" : "hidden";
      drawing.setAttribute("aria-label", said);
    },
  };
}

// The histograms: a panel for each group, or all of them in one.

import { sentence } from "./sentences.js";
import { labelled, mark, rounded, rule, text, whole, widthOf } from "./shapes.js";
import { logTicks, ticks } from "./ticks.js";
import { shape } from "../common/elements.js";
import { asPercent, capital, plain } from "../common/format.js";

// What is left free beside the panels, for the names of levels and the last tick.
export const LEFT = 50;
const RIGHT = 12;

// The upper edge of a histogram.
function steps(values, x, y) {
  const step = (value, bin) => `L${rounded(x(bin))},${rounded(y(value))}L${rounded(x(bin + 1))},${rounded(y(value))}`;
  return values.map(step).join("");
}

// What a picture that stands alone has to say above itself.
function heading(shown, width, overlay) {
  const against = shown.change ? `, change against ${shown.first}` : "";
  const title = `${capital(shown.quantity.name)} under ${shown.under}${against}`;
  const drawn = [text(2, 16, title, { "font-weight": "bold", "font-size": 14 })];
  if (!overlay || shown.of !== "answers") return { drawn, bottom: 30 };
  const items = shown.series.map((one) => ({ sign: mark(one, 4, 0), words: one.name }));
  const names = labelled(items, 2, 36, width);
  return { drawn: [...drawn, names.drawn], bottom: names.bottom + 6 };
}

function axisBelow(shown, across, width, top, foot) {
  const { quantity } = shown;
  const count = Math.max(3, Math.floor((width - LEFT - RIGHT) / 70));
  const linear = () => ticks(shown.low * quantity.factor, shown.high * quantity.factor, count);
  const places = quantity.log
    ? logTicks(shown.low, shown.high, count).map((at) => [at, 10 ** at])
    : linear().map((value) => [value / quantity.factor, value]);
  const drawn = places.flatMap(([at, value]) => [
    rule(across(at), top, across(at), foot, { opacity: 0.14 }),
    text(across(at), foot + 15, plain(value), { "text-anchor": "middle" }),
  ]);
  const name = quantity.axis || (quantity.unit ? `${quantity.name}, ${quantity.unit}` : quantity.name);
  const points = shown.change && !shown.numbers ? "; heights in points" : "";
  return [...drawn, text(LEFT, foot + 33, name + points)];
}

// Where right answers begin.
function boundary(shown, across, width, top, foot, titled) {
  if (!shown.boundary || shown.low >= 0 || shown.high <= 0) return [];
  const at = across(0);
  const line = rule(at, top, at, foot, { "stroke-width": 1.4 });
  if (titled) return [line, text(width - RIGHT, foot + 33, "left of the line: wrong", { "text-anchor": "end" })];
  return [line, text(at - 5, top + 8, "wrong", { "text-anchor": "end" }), text(at + 5, top + 8, "right")];
}

// How far those lie that come first, in one panel.
function firstOnes(shown, across, top, foot) {
  const lines = shown.quantity.lines || [];
  return lines.map((at) => rule(across(at), top, across(at), foot, { "stroke-width": 1.4 }));
}

function axisBeside(shown, y, most, width, single) {
  const low = shown.change ? -most : 0;
  const top = ticks(0, most, 2).at(-1); // there is room for one above zero
  const levels = single ? ticks(low, most, 4) : [...(shown.change ? [-top] : []), 0, top];
  return levels.flatMap((level) => {
    const plus = shown.change && level > 0 ? "+" : "";
    const unit = level === levels.at(-1) && !shown.numbers && !shown.change ? " %" : "";
    const words = `${plus}${plain(level)}${unit}`;
    return [
      text(LEFT - 6, y(level) + 4, words, { "text-anchor": "end", opacity: 0.85 }),
      rule(LEFT, y(level), width - RIGHT, y(level), { opacity: level === 0 ? 0.8 : 0.14 }),
    ];
  });
}

function bars(one, x, y, width, overlay) {
  const [from, to] = [`M${LEFT},${rounded(y(0))}`, `L${width - RIGHT},${rounded(y(0))}`];
  const outline = from + steps(one.shown, x, y) + to;
  return [
    shape("path", { d: `${outline}Z`, fill: one.colour, "fill-opacity": overlay ? 0.12 : 0.6 }),
    shape("path", { d: outline, stroke: one.colour, fill: "none", "stroke-width": overlay ? 2 : 1 }),
  ];
}

const DASHED = { fill: "none", stroke: "currentColor", "stroke-dasharray": "3 2", opacity: 0.75 };

// The values of the grid as lines, and the bin of zero as a band.
function gridOf(shown, across, top, foot) {
  const grid = shown.grid;
  if (!grid || !grid.zero) return [];
  const [from, to] = grid.zero.map(across);
  const thick = Math.max(2, to - from);
  const band = shape("rect", {
    class: "fairq-zero-bin", x: rounded((from + to - thick) / 2), y: top, width: rounded(thick), height: foot - top,
    fill: "#c4720e", opacity: 0.3,
  });
  const lines = grid.values
    .filter((value) => value >= shown.low && value <= shown.high)
    .map((value) => {
      const look = value === 0 ? { opacity: 1 } : { opacity: 0.55, "stroke-dasharray": "4 3" };
      return rule(across(value), top, across(value), foot, look);
    });
  const label = text((from + to) / 2, top - 5, `zero bin: ${asPercent(grid.zeros)}`, { "text-anchor": "middle" });
  return [band, ...lines, label];
}

// All groups in one panel, or a panel for each, one below the other on a common axis.
export function histogram(shown, { width, overlay, legend = false }) {
  const panels = overlay ? [shown.series] : shown.series.map((one) => [one]);
  const single = panels.length < 2;
  const titled = !overlay && shown.of === "answers";
  const withBefore = titled && !shown.change;
  const high = single ? Math.min(260, Math.max(180, width * 0.45)) : 62;
  const above = titled ? 22 : 16;
  const head = legend ? heading(shown, width, overlay) : { drawn: [], bottom: 6 };
  const top = head.bottom;
  const foot = top + Math.max(panels.length, 1) * (high + above);
  const x = (place) => LEFT + ((width - LEFT - RIGHT) * place) / shown.bins;
  const across = (value) => x(((value - shown.low) / (shown.high - shown.low)) * shown.bins);
  const seen = shown.series.flatMap((one) => [...one.shown, ...((withBefore && one.before) || [])]);
  const most = Math.max(0, ...seen.map(Math.abs)) || 1;

  const svg = whole(width, Math.round(foot + 40), sentence(shown));
  svg.append(...head.drawn);
  svg.append(...axisBelow(shown, across, width, top + above - 4, foot));
  svg.append(...boundary(shown, across, width, top, foot, titled));
  const { lined } = shown.quantity;
  if (lined) svg.append(text(width - RIGHT, foot + 33, lined, { "text-anchor": "end" }));
  if (shown.of === "weights") svg.append(...gridOf(shown, across, top + above, foot));
  if (!shown.series.length) svg.append(text(LEFT + 8, top + high / 2, "No group is chosen."));
  panels.forEach((group, row) => {
    const end = top + (row + 1) * (high + above);
    const [middle, reach] = shown.change ? [end - high / 2, high / 2] : [end, high];
    const y = (value) => middle - (reach * value) / most;
    if (titled) svg.append(mark(group[0], LEFT + 6, end - high - 9), text(LEFT + 16, end - high - 5, group[0].name));
    svg.append(...axisBeside(shown, y, most, width, single), ...firstOnes(shown, across, end - high, end));
    for (const one of group) {
      svg.append(...bars(one, x, y, width, overlay));
      if (withBefore && one.before) {
        svg.append(shape("path", { d: `M${LEFT},${rounded(middle)}${steps(one.before, x, y)}`, ...DASHED }));
      }
    }
    if (overlay && shown.of === "answers") {
      for (const one of group) {
        const sizes = one.shown.map(Math.abs);
        const peak = sizes.indexOf(Math.max(...sizes));
        svg.append(mark(one, x(peak + 0.5), y(one.shown[peak])));
      }
    }
  });
  if (withBefore && shown.series[0]?.before) {
    const start = width - RIGHT - widthOf(shown.first);
    svg.append(rule(start - 28, top + 8, start - 6, top + 8, DASHED), text(start, top + 12, shown.first));
  }
  return { svg, top, foot, x };
}

// The pieces that drawings are made of.

import { shape, SVG } from "../common/elements.js";

export function rounded(number) {
  return Math.round(100 * number) / 100;
}

function polygon(corners) {
  return `M${corners.map(([x, y]) => `${rounded(x)},${rounded(y)}`).join("L")}Z`;
}

function around(count, radius, turn = 0) {
  return Array.from({ length: count }, (_, corner) => {
    const angle = 2 * Math.PI * (corner / count + turn);
    return [radius * Math.sin(angle), -radius * Math.cos(angle)];
  });
}

// The marks of the figures, as paths about the origin.
const MARKS = {
  o: "M-4.5,0a4.5,4.5 0 1 0 9,0a4.5,4.5 0 1 0 -9,0Z",
  s: polygon(around(4, 5.6, 1 / 8)),
  "^": polygon(around(3, 5.6)),
  D: polygon(around(4, 5.6)),
  v: polygon(around(3, 5.6, 1 / 2)),
  P: "M-1.7,-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3Z",
  X: "M-5,-2.6L-2.6,-5L0,-2.4L2.6,-5L5,-2.6L2.4,0L5,2.6L2.6,5L0,2.4L-2.6,5L-5,2.6L-2.4,0Z",
  h: polygon(around(6, 5.2)),
};

export function mark(group, x, y) {
  const place = `translate(${rounded(x)},${rounded(y)})`;
  return shape("path", { d: MARKS[group.mark], fill: group.colour, transform: place });
}

export function text(x, y, words, attributes = {}) {
  return shape("text", { x: rounded(x), y: rounded(y), fill: "currentColor", ...attributes }, words);
}

export function rule(x1, y1, x2, y2, attributes = {}) {
  const d = `M${rounded(x1)},${rounded(y1)}L${rounded(x2)},${rounded(y2)}`;
  return shape("path", { d, stroke: "currentColor", fill: "none", ...attributes });
}

// About as wide as the words will be; there is nothing to measure before they are drawn.
export function widthOf(words) {
  return 7.4 * words.length;
}

// Labels with something before each, in as many lines as they need.
export function labelled(items, left, top, width) {
  const drawn = shape("g");
  let [x, y] = [left, top];
  for (const { sign, words } of items) {
    const wide = 14 + widthOf(words) + 14;
    if (x > left && x + wide > left + width) [x, y] = [left, y + 16];
    const piece = shape("g", { transform: `translate(${rounded(x)},${rounded(y)})` }, sign);
    piece.append(text(14, 4, words));
    drawn.append(piece);
    x += wide;
  }
  return { drawn, bottom: y + 10 };
}

export function whole(width, height, words) {
  return shape("svg", {
    xmlns: SVG, width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words,
    "font-size": 12, "font-family": "system-ui, sans-serif",
  });
}

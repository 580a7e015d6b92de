// The drawing of who flipped: a ribbon for each kind of answer.

import { FLOWS } from "./flows.js";
import { flowSentence } from "./sentences.js";
import { labelled, mark, rounded, text, whole } from "./shapes.js";
import { shape } from "../common/elements.js";
import { asPercent } from "../common/format.js";

const GAP = 14; // between right and wrong answers

function ribbon(x1, y1, x2, y2, size, attributes) {
  const middle = (x1 + x2) / 2;
  const curve = (from, to, end) => `C${middle},${rounded(from)} ${middle},${rounded(to)} ${rounded(end)},${rounded(to)}`;
  const there = `M${rounded(x1)},${rounded(y1)}${curve(y1, y2, x2)}`;
  const back = `V${rounded(y2 + size)}${curve(y2 + size, y1 + size, x1)}Z`;
  return shape("path", { d: there + back, ...attributes });
}

function flowLooks(colour) {
  return [
    { fill: colour, "fill-opacity": 0.25 },
    { fill: colour, "fill-opacity": 0.95 },
    { fill: "currentColor", "fill-opacity": 0.6 },
    { fill: "currentColor", "fill-opacity": 0.32 },
    { fill: "currentColor", "fill-opacity": 0.12 },
  ];
}

// Words in lines of so many letters, each broken after a hyphen or a blank where it has one.
function wrapped(words, most) {
  const lines = [""];
  for (const [piece] of words.matchAll(new RegExp(`[^- ]{1,${most - 1}}[- ]?|[- ]`, "gu"))) {
    if (lines.at(-1).length + piece.length > most) lines.push(piece);
    else lines.push(lines.pop() + piece);
  }
  return lines;
}

export function alluvial(view, flows, width) {
  const side = 106, high = 76;
  const svg = whole(width, 10, flowSentence(view, flows));
  const heads = [view.before, view.after].map((name) => wrapped(name, Math.floor((width / 2 - 10) / 8.5)));
  heads.forEach((lines, right) => {
    const [x, anchor] = right ? [width - 2, "end"] : [2, "start"];
    const look = { "text-anchor": anchor, "font-weight": "bold" };
    lines.forEach((words, row) => svg.append(text(x, 14 + 15 * row, words, look)));
  });
  let top = 9 + 15 * Math.max(...heads.map((lines) => lines.length));
  if (!flows.length) svg.append(text(side, top + 20, "No group is chosen."));
  for (const group of flows) {
    const { total, parts } = group;
    const share = (part) => asPercent(part / (total || 1));
    const looks = flowLooks(group.colour);
    svg.append(mark(group, 6, top + 9), text(16, top + 13, group.name, { "font-weight": "bold" }));
    const items = [1, 2, 3].map((part) => ({
      sign: shape("rect", { x: 0, y: -5, width: 9, height: 9, ...looks[part] }),
      words: `${FLOWS[part]} ${parts[part].toLocaleString("en-US")} (${share(parts[part])})`,
    }));
    const lines = labelled(items, 16, top + 26, width - 18);
    svg.append(lines.drawn);
    top = lines.bottom + 6;
    const size = (part) => ((high - GAP) * part) / (total || 1);
    const [kept, lost, won, other, same] = parts.map(size);
    const [x1, x2] = [side, width - side];
    const ends = [
      [0, 0, kept],
      [kept, GAP + kept + won, lost],
      [GAP + kept + lost, kept, won],
      [GAP + kept + lost + won, GAP + kept + won + lost, other],
      [GAP + kept + lost + won + other, GAP + kept + won + lost + other, same],
    ];
    // The thin ones last, or the thick ones would hide them.
    for (const part of [0, 1, 2, 3, 4].sort((one, two) => parts[two] - parts[one])) {
      const [left, right, thick] = ends[part];
      if (parts[part]) svg.append(ribbon(x1, top + left, x2, top + right, Math.max(thick, 0.8), looks[part]));
    }
    for (const [x, right] of [[x1 - 5, kept + lost], [x2, kept + won]]) {
      const [foot, rest] = [rounded(top + right + GAP), rounded(high - GAP - right)];
      svg.append(
        shape("rect", { x, y: top, width: 5, height: rounded(right), fill: group.colour }),
        shape("rect", { x, y: foot, width: 5, height: rest, fill: "currentColor", "fill-opacity": 0.5 }),
      );
    }
    const was = parts[0] + parts[1], now = parts[0] + parts[2];
    for (const [x, anchor, right] of [[x1 - 9, "end", was], [x2 + 9, "start", now]]) {
      svg.append(text(x, top + 11, `right ${share(right)}`, { "text-anchor": anchor }));
      svg.append(text(x, top + high - 2, `wrong ${share(total - right)}`, { "text-anchor": anchor }));
    }
    top += high + 16;
  }
  const height = Math.round(Math.max(top, 60));
  svg.setAttribute("height", height);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return svg;
}

// How right a network is on the points of each group.

import { forward } from "./network.js";
import { GROUPS } from "./points.js";

/** What the network answers: more of "filled" than of "hollow" where this is positive. */
export function leaning(network, x, y) {
  const [hollow, filled] = forward(network, x, y);
  return filled - hollow;
}

/** Of each group: n, accuracy and mean margin; and the gap between both accuracies. */
export function measured(points, network) {
  const found = {};
  for (const group of GROUPS) {
    const own = points.filter((point) => point.group === group);
    const margins = own.map(({ x, y, label }) => leaning(network, x, y) * (label === "filled" ? 1 : -1));
    // Where both logits are equal the network answers with the first label.
    const right = own.filter(({ label }, i) => margins[i] > 0 || (margins[i] === 0 && label === "hollow"));
    const mean = (total) => (own.length ? total / own.length : null);
    found[group] = {
      n: own.length,
      accuracy: mean(right.length),
      margin: mean(margins.reduce((sum, margin) => sum + margin, 0)),
    };
  }
  const [one, other] = GROUPS.map((group) => found[group].accuracy);
  return { ...found, FVO: one === null || other === null ? null : Math.abs(one - other) };
}

/** By how much more the accuracy of the minority fell than that of the majority. */
export function excess(full, now) {
  const [majority, minority] = GROUPS.map((group) => full[group].accuracy - now[group].accuracy);
  const more = minority - majority;
  return Math.abs(more) < 1e-9 ? 0 : more;
}

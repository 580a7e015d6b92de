// Bins as they are embedded, merged as the reader wants them, and named.

import { plain, sum } from "../common/format.js";

// Counts come with a negative number for so many zeros in a row.
export function unpack(packed) {
  const counts = [];
  for (const part of packed) {
    if (part > 0) counts.push(part);
    else for (let zero = 0; zero < -part; zero++) counts.push(0);
  }
  return counts;
}

export function merge(counts, by) {
  const merged = [];
  for (let start = 0; start < counts.length; start += by) merged.push(sum(counts.slice(start, start + by)));
  return merged;
}

// How many bins there may be, few first: zero stays an edge where it is one.
export function choicesOfBins(quantity) {
  const choices = [];
  for (let by = 1; quantity.bins / by >= 10; by++) {
    if (quantity.bins % by === 0 && (!quantity.zero || quantity.zero % by === 0)) choices.unshift(quantity.bins / by);
  }
  return choices.length ? choices : [quantity.bins];
}

export function nearest(wanted, choices) {
  return choices.reduce((best, choice) => (Math.abs(choice - wanted) < Math.abs(best - wanted) ? choice : best));
}

// What stands at a place of the axis, where 0 is its beginning and the number of bins its end.
export function valueAt(shown, place) {
  const at = shown.low + ((shown.high - shown.low) * place) / shown.bins;
  return shown.quantity.factor * (shown.quantity.log ? 10 ** at : Math.abs(at) < 1e-12 ? 0 : at);
}

export function binName(shown, bin) {
  const unit = shown.quantity.unit ? ` ${shown.quantity.unit}` : "";
  if (shown.quantity.whole) {
    const [first, last] = [Math.ceil(valueAt(shown, bin) - 1e-6), Math.floor(valueAt(shown, bin + 1) - 1e-6)];
    if (first === last) return plain(first, 6);
    if (first < last) return `${plain(first, 6)} to ${plain(last, 6)}`;
  }
  const [from, to] = [plain(valueAt(shown, bin)), plain(valueAt(shown, bin + 1))];
  if (shown.of === "answers" && !shown.quantity.closed) {
    if (bin === 0) return `at most ${to}${unit}`;
    if (bin === shown.bins - 1) return `${from}${unit} or more`;
  }
  return `${from} to ${to}${unit}`;
}

// What is seen, in words.

import { FULL } from "./grid.js";
import { excess } from "./measures.js";
import { GROUPS } from "./points.js";
import { withMinus } from "../common/format.js";

export const percent = (share) => Math.round(100 * share);
export const PERCENT = "\u00a0%"; // no line begins with the sign
export const count = (n, thing) => `${n} ${thing}${n === 1 ? "" : "s"}`;
export const signed = (value, digits) => withMinus(value.toFixed(digits));
export const precision = (bits) => (bits === FULL ? "full precision" : `${bits} bits`);

export function sentence(bits, seed, full, now) {
  const where = bits === FULL ? "In full precision" : `At ${bits} bits`;
  const absent = GROUPS.filter((group) => now[group].n === 0);
  if (absent.length) {
    const has = absent.length === 1 ? "has" : "have";
    return `The ${absent.join(" and the ")} ${has} no points: add some to compare.`;
  }
  const right = GROUPS.map((group) => percent(now[group].accuracy));
  const before = GROUPS.map((group) => percent(full[group].accuracy));
  const said =
    `${where}, with seed ${seed}, the majority of ${now.majority.n} is right on ${right[0]}${PERCENT}, ` +
    `the minority of ${now.minority.n} on ${right[1]}${PERCENT}`;
  // From the rounded percentages, so that who subtracts them finds the same.
  const gap = Math.abs(right[0] - right[1]);
  const more = gap - Math.abs(before[0] - before[1]);
  const equal = `${said}: the gap is ${count(gap, "point")}`;
  if (bits === FULL) return `${equal}.`;
  const change = more === 0 ? "as" : `${Math.abs(more)} ${more > 0 ? "more" : "fewer"} than`;
  const lost = GROUPS.filter((group) => full[group].accuracy - now[group].accuracy > 1e-9);
  const further = excess(full, now);
  const both = `both lost, ${further === 0 ? "as much" : `the ${further > 0 ? "minority" : "majority"} more`}`;
  const who = [`neither group lost`, `only the ${lost[0]} lost`, both][lost.length];
  return `${equal}, ${change} in full precision; ${who}.`;
}

/** How many networks agree with what the reader sees; `excesses` holds one number for each seed. */
export function verdictOfSeeds(bits, excesses) {
  if (bits === FULL) return "In full precision nothing is rounded, so nobody can lose. Choose fewer bits.";
  const all = [...excesses.values()];
  if (!all.length) return "Where a group has no points, there is nothing to compare.";
  const more = all.filter((value) => value > 0).length;
  const less = all.filter((value) => value < 0).length;
  return (
    `${all.length} networks learned from these points, each from another seed. At ${bits} bits the minority ` +
    `lost more than the majority in ${more} of them, less in ${less}, as much in ${all.length - more - less}.`
  );
}

export function nameOf({ x, y, label, group }, answer) {
  const place = `${label} point of the ${group} at ${signed(x, 2)}, ${signed(y, 2)}`;
  return `${place}, ${answer === label ? "answered right" : `taken for ${answer}`}`;
}

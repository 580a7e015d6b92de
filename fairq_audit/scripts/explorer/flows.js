// What becomes of each answer from one treatment to another.

import { networksOf } from "./shown.js";
import { sum } from "../common/format.js";

export const FLOWS = ["right → right", "right → wrong", "wrong → right", "wrong → other wrong", "wrong → same wrong"];

export function flowsOf(data, view) {
  const known = (before, after) => data.flows[before]?.[after];
  const other = data.treatments.find((name) => name !== view.before);
  const asked = view.before === view.after ? [view.before, other] : [view.before, view.after];
  const networks = Math.min(...asked.map((name) => networksOf(data, name)));
  const between = (before, after, place) => {
    if (before === after) {
      const [kept, lost] = between(before, other, place);
      return [kept + lost, 0, 0, 0];
    }
    const there = known(before, after);
    if (there) return there[place];
    const [kept, won, lost, others] = known(after, before)[place];
    return [kept, lost, won, others];
  };
  return view.groups.map((place) => {
    const group = data.groups[place];
    const total = group.answers[networks - 1]; // of all networks so far
    const four = between(view.before, view.after, place);
    return { ...group, total, parts: [...four, total - sum(four)] };
  });
}

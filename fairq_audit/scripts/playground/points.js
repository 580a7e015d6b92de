// The task: a majority along both sides of a simple boundary, and a minority that may lie across it.

export const GROUPS = ["majority", "minority"];
export const LABELS = ["hollow", "filled"];

/** Uniform numbers from 0 to 1, the same in every browser (mulberry32). */
export function uniform(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Sums of uniform numbers instead of a true bell: no logarithm that browsers could round differently. */
const bell = (draw) => draw() + draw() + draw() + draw() - 2;

export const within = (value) => Math.floor(1000 * Math.max(-0.97, Math.min(0.97, value)) + 0.5) / 1000;

/** The simple boundary: the majority above it is filled, the majority below it hollow. */
const bend = (x, recipe) => recipe.bend * x * (1 - x * x);

export function pointsOf(size, difficulty, recipe) {
  const points = [];
  let draw = uniform(recipe.draw);
  for (let i = 0; i < recipe.majority; i++) {
    const side = i % 2 ? 1 : -1;
    const x = recipe.reach * (2 * draw() - 1);
    const away = recipe.near + (recipe.far - recipe.near) * draw();
    const y = bend(x, recipe) + side * away;
    points.push({ x: within(x), y: within(y), label: LABELS[i % 2], group: "majority" });
  }
  draw = uniform(recipe.draw + 1);
  for (let i = 0; i < size; i++) {
    const side = i % 2 ? 1 : -1;
    const x = side * recipe.aside;
    const y = bend(x, recipe) + side * (recipe.easy - (recipe.easy + recipe.deep) * difficulty);
    const place = [x + recipe.spread * bell(draw), y + recipe.spread * bell(draw)];
    points.push({ x: within(place[0]), y: within(place[1]), label: LABELS[i % 2], group: "minority" });
  }
  return points;
}

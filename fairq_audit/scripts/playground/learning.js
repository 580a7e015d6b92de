// Networks learn in slices of time, so that no control waits: first the one that is looked at, then the others.

import { training } from "./network.js";

/**
 * `own` returns what the model has under a name. `looked` is called with the network that is looked at when it
 * has learned, be it from points that were moved since; `another` when one of the others has.
 */
export function learning(own, recipe, { looked, another }) {
  const seeds = Array.from({ length: recipe.population }, (_, i) => i + 1);
  let learned = new Map(); // the trained networks on these points, by seed
  let learnedOn = null;
  let working = null;
  let timer = 0;
  let quiet = 0; // when the reader last changed something
  let gone = false;

  const isLearned = () => learnedOn === own("points") && learned.has(own("seed"));

  /** What was learned from earlier points is forgotten. */
  function keepUp() {
    if (learnedOn !== own("points")) [learned, learnedOn] = [new Map(), own("points")];
  }

  function nextJob() {
    keepUp();
    const seed = [own("seed"), ...seeds].find((candidate) => !learned.has(candidate));
    return seed && { seed, points: learnedOn, run: training(learnedOn, seed, recipe) };
  }

  function work() {
    timer = 0;
    if (gone) return;
    const urgent = !isLearned();
    if (!urgent && performance.now() < quiet + 400) return wake(100);
    // What was begun for other seeds gives way. What was begun for earlier points is finished, because else
    // a long drag would show nothing at all.
    if (urgent && working && working.seed !== own("seed")) working = null;
    working ||= nextJob();
    if (!working) return;
    const until = performance.now() + (urgent ? 14 : 7);
    let step = { done: false };
    while (!step.done && performance.now() < until) step = working.run.next();
    if (step.done) {
      const { seed, points } = working;
      working = null;
      if (points === own("points")) learned.set(seed, step.value);
      if (seed === own("seed")) looked(step.value);
      else if (points === own("points")) another();
    }
    wake();
  }

  function wake(wait = 0) {
    if (!timer) timer = setTimeout(work, wait);
  }

  return {
    seeds,
    isLearned,
    keepUp,
    wake,
    network: (seed) => learned.get(seed),
    rest() {
      quiet = performance.now();
    },
    stop() {
      gone = true;
      clearTimeout(timer);
    },
  };
}

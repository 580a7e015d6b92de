// The grid that weights are rounded to.

export const FULL = 32;
export const WIDTHS = [FULL, 8, 7, 6, 5, 4, 3, 2];

/** To the nearest whole number, and from the middle to the even one, as torch.round does. */
function toEven(value) {
  const low = Math.floor(value);
  const above = value - low;
  if (above === 0.5) return low % 2 === 0 ? low : low + 1;
  return above < 0.5 ? low : low + 1;
}

/** The step of the grid: the largest magnitude is its last value. */
export function stepOf(weights, bits) {
  const smallestNormal = 2.2250738585072014e-308;
  const largest = weights.reduce((most, weight) => Math.max(most, Math.abs(weight)), 0);
  return Math.max(largest / (2 ** (bits - 1) - 1), smallestNormal);
}

/** One matrix on its symmetric abs-max grid, as UniformQuantizer(bits) rounds it. */
export function rounded(weights, bits) {
  if (bits === FULL) return weights.slice();
  const step = stepOf(weights, bits);
  const [inverse, last] = [1 / step, 2 ** (bits - 1) - 1];
  return weights.map((weight) => Math.max(-last, Math.min(last, toEven(weight * inverse))) * step + 0);
}

export const quantized = (network, bits) =>
  network.map(({ weights, biases }) => ({ weights: rounded(weights, bits), biases }));

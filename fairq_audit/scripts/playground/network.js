// A network small enough to be trained in the page, as fairq_utils/playground.py trains it.

import { LABELS, uniform } from "./points.js";

/** Weights before training; each matrix row by row, a row for each output. */
export function untrained(seed, recipe) {
  const draw = uniform(seed);
  return recipe.layers.slice(1).map((outputs, i) => {
    const inputs = recipe.layers[i];
    const reach = Math.sqrt(6 / (inputs + outputs));
    return {
      weights: Array.from({ length: outputs * inputs }, () => reach * (2 * draw() - 1)),
      biases: new Array(outputs).fill(0),
    };
  });
}

/** The logits of both labels; `values` receives what every layer answers. */
export function forward(network, x, y, values = network.map(({ biases }) => new Array(biases.length))) {
  let given = [x, y];
  network.forEach(({ weights, biases }, layer) => {
    const answer = values[layer];
    for (let j = 0; j < biases.length; j++) {
      let sum = biases[j];
      for (let k = 0; k < given.length; k++) sum += weights[j * given.length + k] * given[k];
      answer[j] = layer < network.length - 1 ? Math.tanh(sum) : sum;
    }
    given = answer;
  });
  return given;
}

/** Trains by Adam on all points at once, at a rate that falls to 0. Stops after each step, for slices. */
export function* training(points, seed, recipe) {
  const network = untrained(seed, recipe);
  const tensors = network.flatMap(({ weights, biases }) => [weights, biases]);
  const zeros = () => tensors.map((tensor) => new Float64Array(tensor.length));
  const [gradients, means, squares] = [zeros(), zeros(), zeros()];
  const values = network.map(({ biases }) => new Array(biases.length));
  const errors = network.map(({ biases }) => new Array(biases.length));
  const last = network.length - 1;
  let meanLeft = 1;
  let squareLeft = 1;
  for (let step = 0; step < recipe.steps; step++) {
    gradients.forEach((gradient) => gradient.fill(0));
    for (const { x, y, label } of points) {
      const [hollow, filled] = forward(network, x, y, values);
      const error = (1 / (1 + Math.exp(hollow - filled)) - LABELS.indexOf(label)) / points.length;
      errors[last][0] = -error;
      errors[last][1] = error;
      for (let layer = last; layer >= 0; layer--) {
        const given = layer ? values[layer - 1] : [x, y];
        const before = layer ? errors[layer - 1].fill(0) : null;
        const { weights } = network[layer];
        errors[layer].forEach((error, j) => {
          gradients[2 * layer + 1][j] += error;
          for (let k = 0; k < given.length; k++) {
            gradients[2 * layer][j * given.length + k] += error * given[k];
            if (before) before[k] += error * weights[j * given.length + k];
          }
        });
        if (before) given.forEach((value, k) => (before[k] *= 1 - value * value));
      }
    }
    meanLeft *= recipe.momentum;
    squareLeft *= recipe.memory;
    const rate = recipe.rate * (1 - step / recipe.steps);
    tensors.forEach((tensor, i) => {
      for (let k = 0; k < tensor.length; k++) {
        const gradient = gradients[i][k] + recipe.decay * tensor[k];
        means[i][k] = recipe.momentum * means[i][k] + (1 - recipe.momentum) * gradient;
        squares[i][k] = recipe.memory * squares[i][k] + (1 - recipe.memory) * gradient * gradient;
        const size = Math.sqrt(squares[i][k] / (1 - squareLeft)) + recipe.tiny;
        tensor[k] -= (rate * (means[i][k] / (1 - meanLeft))) / size;
      }
    });
    yield;
  }
  return network;
}

export function trained(points, seed, recipe) {
  const run = training(points, seed, recipe);
  for (;;) {
    const { done, value } = run.next();
    if (done) return value;
  }
}

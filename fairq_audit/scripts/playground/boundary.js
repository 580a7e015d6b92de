// Where a network changes its answer, as a line.

import { forward } from "./network.js";

/** The leaning of the network on a lattice over the plane, row by row from the top. */
export function fieldOf(network, cells) {
  const field = new Float64Array((cells + 1) ** 2);
  const values = network.map(({ biases }) => new Array(biases.length));
  for (let j = 0, place = 0; j <= cells; j++) {
    for (let i = 0; i <= cells; i++, place++) {
      const [hollow, filled] = forward(network, (2 * i) / cells - 1, 1 - (2 * j) / cells, values);
      field[place] = filled - hollow;
    }
  }
  return field;
}

/** The lines around all places where the field is positive, closed, as an SVG path. */
export function outline(field, cells, side) {
  const across = cells + 1;
  // Beyond the plane nothing is positive, so that each line closes; what lies out there is not shown.
  const at = (i, j) => (i < 0 || j < 0 || i > cells || j > cells ? -1 : field[j * across + i]);
  const name = (i, j, down) => 2 * ((j + 1) * (across + 2) + i + 1) + down;
  const [places, follows] = [new Map(), new Map()];
  for (let j = -1; j <= cells; j++) {
    for (let i = -1; i <= cells; i++) {
      const ring = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]];
      const signs = ring.map(([a, b]) => at(a, b) > 0);
      const some = signs[0] + signs[1] + signs[2] + signs[3];
      if (some === 0 || some === 4) continue;
      const edges = [name(i, j, 0), name(i + 1, j, 1), name(i, j + 1, 0), name(i, j, 1)];
      for (let e = 0; e < 4; e++) {
        const next = (e + 1) % 4;
        if (!signs[e] || signs[next]) continue;
        let back = next;
        while (signs[back] || !signs[(back + 1) % 4]) back = (back + 1) % 4;
        follows.set(edges[e], edges[back]);
        const [[a, b], [c, d]] = [ring[e], ring[next]];
        const share = at(a, b) / (at(a, b) - at(c, d));
        places.set(edges[e], [a + share * (c - a), b + share * (d - b)]);
      }
    }
  }
  const lines = [];
  while (follows.size) {
    let edge = follows.keys().next().value;
    const line = [];
    while (follows.has(edge)) {
      line.push(places.get(edge).map((place) => ((place * side) / cells).toFixed(1)).join(","));
      const next = follows.get(edge);
      follows.delete(edge);
      edge = next;
    }
    lines.push(`M${line.join("L")}Z`);
  }
  return lines.join("");
}

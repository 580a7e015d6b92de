// The plane: where the network answers "filled", and the points, which the reader moves, adds and removes.

import { fieldOf, outline } from "./boundary.js";
import { FULL } from "./grid.js";
import { leaning } from "./measures.js";
import { button, MARKS, newId, swatch } from "./parts.js";
import { GROUPS, LABELS, within } from "./points.js";
import { count, nameOf, percent, PERCENT, precision } from "./sentences.js";
import { element, set, shape } from "../common/elements.js";

const SIDE = 400; // the plane, in the units of its drawing
const CELLS = 56; // of the lattice that the boundary is drawn from
const SIZES = { majority: 4, minority: 4.6 };
const onPlane = ({ x, y }) => [((x + 1) / 2) * SIDE, ((1 - y) / 2) * SIDE];
const placed = (x, y) => ({ x: within(x), y: within(y) });

function legend() {
  const sample = (viewBox, className, drawing) =>
    shape("svg", { viewBox, class: className, "aria-hidden": "true" }, drawing);
  const line = (className) =>
    sample("0 0 26 10", "pg-key-line", shape("path", { d: "M1,5H25", class: className }));
  const ring = sample("-9 -9 18 18", "pg-swatch", shape("circle", { r: 7.5, class: "pg-ring" }));
  return element(
    "p",
    { class: "pg-legend" },
    element("span", {}, element("i", { class: "pg-shade" }), "here the network answers “filled”"),
    element("span", {}, line("pg-boundary"), "its boundary"),
    element("span", {}, line("pg-before"), "in full precision"),
    element("span", {}, ring, "wrong"),
  );
}

/** Which kind of point a tap adds, and two buttons. */
function editorOf(keys) {
  const kinds = GROUPS.flatMap((group) => LABELS.map((label) => ({ group, label })));
  const chosen = newId();
  const choices = kinds.map(({ group, label }, i) => {
    const radio = element("input", { type: "radio", name: chosen, value: i });
    radio.checked = group === "minority" && label === "filled";
    return element("label", {}, radio, swatch(group, label), `${group}, ${label}`);
  });
  const [add, remove] = [button("Add a point"), button("Remove the chosen point")];
  const fields = element(
    "fieldset",
    { class: "pg-editor" },
    element("legend", {}, "Drag points. Tap an empty place to add:"),
    element("div", { class: "pg-kinds" }, ...choices),
    element("div", { class: "pg-buttons" }, add, remove),
    keys,
  );
  return { fields, add, remove, kind: () => kinds[choices.findIndex((choice) => choice.firstChild.checked)] };
}

/** `own` returns what the model has under a name; `edit` takes the points as the reader made them. */
export function planeOf(own, edit, recipe) {
  const region = shape("path", { class: "pg-region", "fill-rule": "evenodd" });
  const boundary = shape("path", { class: "pg-boundary" });
  const before = shape("path", { class: "pg-before" });
  const view = `0 0 ${SIDE} ${SIDE}`;
  const ground = shape(
    "svg",
    { viewBox: view, role: "img", class: "pg-ground", "aria-label": "The network is still learning." },
    region,
    before,
    boundary,
  );
  const keys = element(
    "p",
    { class: "pg-keys", id: newId() },
    "Keys: arrows move a point, with Shift further. Page Down and Page Up choose the next and the previous " +
      "one. Delete removes it.",
  );
  const layer = shape("svg", {
    viewBox: view,
    role: "application",
    class: "pg-points",
    "aria-label": "The points",
    "aria-describedby": keys.id,
  });
  const editor = editorOf(keys);
  const left = element("div", { class: "pg-left" }, element("div", { class: "pg-plane" }, ground, layer), legend());

  // -- what is drawn
  let whole = {}; // the boundary in full precision
  let answering = null; // the network whose answers are drawn
  let focused = 0; // which point the Tab key comes to
  let picked = null; // which point is being dragged, or was chosen

  function drawNetwork(network, full) {
    const path = outline(fieldOf(network, CELLS), CELLS, SIDE);
    region.setAttribute("d", path);
    boundary.setAttribute("d", path);
    if (whole.network !== full) whole = { network: full, path: outline(fieldOf(full, CELLS), CELLS, SIDE) };
    before.setAttribute("d", own("bits") === FULL ? "" : whole.path);
    answering = network;
  }

  function drawPoints() {
    const points = own("points");
    while (layer.childElementCount > points.length) layer.lastChild.remove();
    while (layer.childElementCount < points.length) {
      layer.append(
        shape(
          "g",
          { role: "img" },
          shape("circle", { r: 11, class: "pg-hit" }),
          shape("circle", { r: 7.4, class: "pg-ring" }),
          shape("path", {}),
        ),
      );
    }
    focused = Math.max(0, Math.min(focused, points.length - 1));
    if (picked !== null && picked >= points.length) picked = null;
    points.forEach((point, i) => {
      const node = layer.children[i];
      const answer = answering && LABELS[Number(leaning(answering, point.x, point.y) > 0)];
      const wrong = answering && answer !== point.label;
      set(node, {
        transform: `translate(${onPlane(point).map((place) => place.toFixed(1)).join(",")})`,
        tabindex: i === focused ? 0 : -1,
        class: `pg-point pg-${point.group} ${wrong ? "pg-wrong" : ""} ${i === picked ? "pg-picked" : ""}`,
        "aria-label": answering ? nameOf(point, answer) : `${point.label} point of the ${point.group}`,
      });
      set(node.lastChild, {
        d: MARKS[point.group](SIZES[point.group]),
        class: `pg-mark pg-${point.group} pg-${point.label}`,
      });
    });
    editor.remove.disabled = picked === null;
    editor.add.disabled = points.length >= recipe.most;
  }

  /** What the plane is called for who cannot see it. */
  function describe(network, now) {
    const wrong = GROUPS.map((group) => Math.round(now[group].n * (1 - (now[group].accuracy ?? 1))));
    const filled = fieldOf(network, CELLS).reduce((sum, value) => sum + (value > 0), 0) / (CELLS + 1) ** 2;
    ground.setAttribute(
      "aria-label",
      `A plane with ${count(own("points").length, "point")}. At ${precision(own("bits"))} the network answers ` +
        `filled on ${percent(filled)}${PERCENT} of it, and is wrong on ${wrong[0]} of ${now.majority.n} points ` +
        `of the majority and on ${wrong[1]} of ${now.minority.n} of the minority.`,
    );
  }

  // -- what the reader does with points
  const replaced = (i, changes) =>
    own("points").map((point, k) => (k === i ? { ...point, ...changes } : point));
  const without = (i) => own("points").filter((_, k) => k !== i);

  function focusOn(i) {
    focused = picked = i;
    drawPoints();
    layer.children[focused]?.focus({ preventScroll: true });
  }

  function addAt(x, y) {
    if (own("points").length >= recipe.most) return;
    const kind = editor.kind();
    edit([...own("points"), { ...placed(x, y), label: kind.label, group: kind.group }]);
    focusOn(own("points").length - 1);
  }

  function removeAt(i) {
    edit(without(i));
    if (own("points").length) focusOn(Math.min(i, own("points").length - 1));
    else [picked, editor.remove.disabled] = [null, true];
  }

  editor.add.addEventListener("click", () => addAt(0, 0));
  editor.remove.addEventListener("click", () => picked !== null && removeAt(picked));

  const here = (event) => {
    const box = layer.getBoundingClientRect();
    const [right, down] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return [2 * right - 1, 1 - 2 * down];
  };
  const nearest = (event) => {
    const box = layer.getBoundingClientRect();
    const [x, y] = here(event);
    const reach = event.pointerType === "mouse" ? 9 : 16; // a finger is less exact
    let [found, least] = [null, reach];
    own("points").forEach((point, i) => {
      const away = (Math.hypot(point.x - x, point.y - y) * box.width) / 2;
      if (away <= least) [found, least] = [i, away];
    });
    return found;
  };

  let drag = null;
  layer.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const i = nearest(event);
    // A finger that means to scroll often lands on one of so many points; it moves those of the minority
    // and the chosen one, and the others only after a tap.
    const isSure = event.pointerType === "mouse" || i === picked;
    const held = i !== null && (isSure || own("points")[i].group === "minority");
    drag = { i, held, moved: false, x: event.clientX, y: event.clientY };
    if (held) {
      event.preventDefault();
      layer.setPointerCapture?.(event.pointerId);
      focusOn(i);
    }
  });
  layer.addEventListener("pointermove", (event) => {
    if (!drag) return;
    drag.moved ||= Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 4;
    if (drag.held && drag.moved) edit(replaced(drag.i, placed(...here(event))));
  });
  layer.addEventListener("pointerup", (event) => {
    if (drag && !drag.moved) {
      if (drag.i === null) addAt(...here(event));
      else focusOn(drag.i);
    }
    drag = null;
  });
  layer.addEventListener("pointercancel", () => (drag = null));
  // The pointer came down just before, so it is known whether this touch drags or scrolls.
  const hold = (event) => drag?.held && event.cancelable && event.preventDefault();
  layer.addEventListener("touchstart", hold, { passive: false });

  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  layer.addEventListener("keydown", (event) => {
    const i = [...layer.children].indexOf(event.target);
    if (i < 0) return;
    const many = own("points").length;
    const goes = { PageDown: (i + 1) % many, PageUp: (i + many - 1) % many, Home: 0, End: many - 1 };
    if (event.key in arrows) {
      const [x, y] = arrows[event.key].map((way) => way * (event.shiftKey ? 0.1 : 0.02));
      const point = own("points")[i];
      edit(replaced(i, placed(point.x + x, point.y + y)));
    } else if (event.key in goes) focusOn(goes[event.key]);
    else if (event.key === "Delete" || event.key === "Backspace") removeAt(i);
    else return;
    event.preventDefault();
    event.stopPropagation(); // or a notebook would take it for a command
  });
  layer.addEventListener("focusin", (event) => {
    const i = [...layer.children].indexOf(event.target);
    if (i >= 0 && i !== picked) {
      focused = picked = i;
      drawPoints();
    }
  });

  return {
    left,
    editor: editor.fields,
    drawNetwork,
    drawPoints,
    describe,
    unpick() {
      picked = null;
    },
  };
}

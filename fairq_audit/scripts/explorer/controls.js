// What a reader chooses by: each control with its label, and what it tells of a change.

import { mark } from "./shapes.js";
import { element, shape } from "../common/elements.js";

export function select(name, words, change) {
  const control = element("select", { "data-control": name, onchange: () => change({ [name]: control.value }) });
  return { control, label: element("label", {}, element("span", {}, words), control) };
}

// Offers these choices; where they are there already nothing is touched, so that an open list stays open.
export function offer(control, pairs) {
  const known = JSON.stringify(pairs);
  if (control.dataset.known === known) return;
  control.dataset.known = known;
  control.replaceChildren(...pairs.map(([value, words]) => element("option", { value }, words)));
}

export function tick(name, words, change) {
  const changed = () => change({ [name]: control.checked });
  const control = element("input", { type: "checkbox", "data-control": name, onchange: changed });
  const said = element("span", {}, words);
  return { control, said, label: element("label", { class: "fairq-tick" }, control, said) };
}

export function slider(name, words, heard) {
  const said = element("output");
  const moved = () => heard(Number(control.value));
  const control = element("input", { type: "range", min: 0, step: 1, "data-control": name, oninput: moved });
  return { control, said, label: element("label", {}, element("span", {}, words, " ", said), control) };
}

export function slide(one, most, place, words) {
  one.control.max = most;
  one.control.value = place;
  one.said.textContent = words;
  one.control.setAttribute("aria-valuetext", words);
}

// A box for each group, with its mark, its size, and room for what a bin says of it.
export function groupBoxes(groups, heard) {
  const boxes = groups.map((group, place) => {
    const changed = () => heard(place, control.checked);
    const control = element("input", { type: "checkbox", "data-control": `group-${place}`, onchange: changed });
    const look = { width: 14, height: 14, viewBox: "-7 -7 14 14", "aria-hidden": "true" };
    const sign = shape("svg", look, mark(group, 0, 0));
    const read = element("span", { class: "fairq-read" });
    const about = element("span", {}, group.name, element("small", {}, ` ${group.n.toLocaleString("en-US")}`));
    return { control, read, label: element("label", { class: "fairq-tick" }, control, sign, about, read) };
  });
  const legend = element("legend", {}, "Groups, and their images");
  const fieldset = element("fieldset", { class: "fairq-groups" }, legend, ...boxes.map((box) => box.label));
  return { boxes, fieldset };
}

// A button that copies the address of what is seen, and a field that shows it.
export function linkTo(address, say) {
  const field = element("input", {
    type: "text", readonly: "", class: "fairq-address", "aria-label": "Link to this view", hidden: "",
  });
  const copy = async () => {
    field.value = address();
    field.hidden = false;
    field.select();
    try {
      await navigator.clipboard.writeText(field.value);
      say("A link to this view is copied.");
    } catch {
      say("Here is a link to this view: copy it from the field.");
    }
  };
  const button = element("button", {
    type: "button", "data-control": "link",
    ...(location.protocol === "about:" && { hidden: "" }), // the page of a frame has no address of its own
    onclick: copy,
  }, "Copy link");
  return { button, field };
}

// Where another treatment is asked for, and how much of it is computed.
export function askFor(ask) {
  const wish = element("input", {
    type: "text", size: 14, placeholder: "int5", maxlength: 80, "data-control": "wish",
    "aria-label": "Another treatment, by its name or width",
  });
  const asked = (event) => {
    event.preventDefault();
    const wanted = wish.value.trim();
    if (wanted) ask(wanted);
  };
  const submit = element("button", { type: "submit", "data-control": "ask" }, "Compute");
  const done = element("progress", { max: 1, value: 0, "aria-label": "How much of it is computed", hidden: "" });
  const words = element("span", {}, "Another treatment:");
  const form = element("form", { class: "fairq-ask", onsubmit: asked }, words, wish, submit, done);
  return { form, done };
}

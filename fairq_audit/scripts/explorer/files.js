// What a reader takes along: a picture or a table.

import { text } from "./shapes.js";
import { element, shape } from "../common/elements.js";

// A spreadsheet takes text that begins so for a formula.
function csvField(value) {
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function csv(rows) {
  return rows.map((row) => row.map(csvField).join(",")).join("\r\n") + "\r\n";
}

// A picture that leaves the page takes along what it is of.
export function captioned(svg, words) {
  const [width, height] = [svg.getAttribute("width"), Number(svg.getAttribute("height")) + 20];
  svg.append(text(2, height - 8, words, { "font-size": 11 }));
  svg.setAttribute("height", height);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  return svg;
}

// A file goes onto paper and slides: dark ink on white, whatever the page looks like.
function onPaper(svg) {
  const copy = svg.cloneNode(true);
  copy.setAttribute("style", "color:#1a1a1a;background:#ffffff");
  copy.prepend(shape("rect", { width: "100%", height: "100%", fill: "#ffffff" }));
  return new XMLSerializer().serializeToString(copy);
}

function asPng(svg) {
  return new Promise((done, failed) => {
    const image = new Image();
    image.onload = () => {
      const canvas = element("canvas", { width: 2 * svg.getAttribute("width"), height: 2 * svg.getAttribute("height") });
      const pen = canvas.getContext("2d");
      pen.scale(2, 2);
      pen.drawImage(image, 0, 0);
      canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error("empty"))), "image/png");
    };
    image.onerror = () => failed(new Error("not drawn"));
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(onPaper(svg))}`;
  });
}

function fileName(...words) {
  return words.join("-").replace(/[^\w.-]+/g, "-").slice(0, 80);
}

function save(name, blob) {
  const link = element("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// A button for each kind of file. `make` draws the picture, `rows` are those of the table, and `words` make
// the name of the file.
export function downloads({ make, words, rows }, say) {
  const failed = () => say("The picture could not be made; take the SVG instead.");
  return ["PNG", "SVG", "CSV"].map((kind) =>
    element("button", {
      type: "button", "data-control": `${words()[0]}-${kind.toLowerCase()}`,
      onclick: () => {
        const name = `${fileName(...words())}.${kind.toLowerCase()}`;
        say(`${kind} of what is shown: ${name}.`);
        if (kind === "CSV") save(name, new Blob(["\ufeff", csv(rows())], { type: "text/csv" }));
        else if (kind === "SVG") save(name, new Blob([onPaper(make())], { type: "image/svg+xml" }));
        else asPng(make()).then((blob) => save(name, blob), failed);
      },
    }, kind),
  );
}

// Boxes, points and outlines over the picture, all in percent of it: right at any size and density.
import { draw } from "./element.js";

const FEW = 20; // marks whose numbers still have room

const percent = (fraction) => `${100 * fraction}%`;
const finite = (...values) => values.every(Number.isFinite);

// What a result has to draw: {boxes, points, outlines}. What is no number among coordinates is left out.
export function marksOf(result) {
  const boxes = (result.objects ?? []).filter((box) => finite(box.x_min, box.y_min, box.x_max, box.y_max));
  const points = (result.points ?? []).filter((point) => finite(point.x, point.y));
  const grounds = (result.reasoning?.grounding ?? []).flatMap((span) => span.points.map(([x, y]) => ({ x, y })));
  return { boxes, points: [...points, ...grounds.filter((point) => finite(point.x, point.y))], outline: outline(result) };
}

function outline({ bbox, path }) {
  return bbox && finite(bbox.x_min, bbox.y_min, bbox.x_max, bbox.y_max) ? { bbox, path: path ?? "" } : null;
}

export function show(svg, { boxes, points, outline }) {
  svg.classList.toggle("many", boxes.length + points.length > FEW);
  svg.replaceChildren(
    ...(outline ? [outlined(outline)] : []),
    ...boxes.map((box, index) => boxed(box, index + 1)),
    ...points.map((point, index) => pointed(point, index + 1)),
  );
}

// The mark with a number (from 1) stands out; with 0 all are alike.
export function highlight(svg, number) {
  svg.classList.toggle("choosing", number > 0);
  for (const mark of svg.querySelectorAll("[data-number]"))
    mark.classList.toggle("chosen", mark.dataset.number === String(number));
}

function area({ x_min, y_min, x_max, y_max }) {
  return {
    x: percent(x_min),
    y: percent(y_min),
    width: percent(Math.max(0, x_max - x_min)),
    height: percent(Math.max(0, y_max - y_min)),
  };
}

function boxed(box, number) {
  const at = area(box);
  // Above the box where there is room, else in it.
  const corner = { x: Math.min(0.97, Math.max(0, box.x_min)), y: Math.min(0.97, Math.max(0, box.y_min)) };
  return draw(
    "g",
    { class: "box", "data-number": number },
    draw("rect", { ...at, class: "halo" }),
    draw("rect", { ...at, class: "line" }),
    badge(corner, number, box.y_min < 0.07 ? 0 : -18),
  );
}

function pointed(point, number) {
  const at = { cx: percent(point.x), cy: percent(point.y) };
  return draw(
    "g",
    { class: "point", "data-number": number },
    draw("circle", { ...at, r: 8, class: "halo" }),
    draw("circle", { ...at, r: 6, class: "dot" }),
    badge(point, number, point.y < 0.07 ? 9 : -25, point.x > 0.93 ? -26 : 8),
  );
}

function badge({ x, y }, number, below, right = 0) {
  const width = 12 + 7 * String(number).length;
  return draw(
    "g",
    { class: "badge", transform: `translate(${right} ${below})` },
    draw("rect", { x: percent(x), y: percent(y), width, height: 18, rx: 4 }),
    draw("text", { x: percent(x), y: percent(y), dx: width / 2, dy: 13 }, String(number)),
  );
}

// The path is in fractions of its box.
function outlined({ bbox, path }) {
  const shape = (name) => draw("path", { d: path, class: name, "vector-effect": "non-scaling-stroke" });
  const inside = { ...area(bbox), viewBox: "0 0 1 1", preserveAspectRatio: "none", overflow: "visible" };
  return draw(
    "g",
    { class: "outline" },
    draw("rect", { ...area(bbox), class: "around" }),
    path && draw("svg", inside, shape("halo"), shape("line")),
  );
}

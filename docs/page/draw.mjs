// Drawings in SVG. Coordinates are those of the plane, y upwards; how lines look, style.css says.

import { range } from "../../golden/port/arrays.mjs";

export function svg(parent, name, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

// An element of the page, with a text and a parent.
export function element(parent, name, text = "", attributes = {}) {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.append(made);
  return made;
}

const text = (points) => points.map(([x, y]) => `${x.toFixed(4)},${(-y).toFixed(4)}`).join(" ");

export const line = (parent, points, look) =>
  svg(parent, "polyline", { points: text(points), class: look });

// As far as `half` to each side of the point (x, y).
export function view(plot, half, [x, y] = [0, 0]) {
  plot.setAttribute("viewBox", [x - half, -y - half, 2 * half, 2 * half].join(" "));
  plot.half = half;
}

export function square(plot, half) {
  line(plot, [[-half, -half], [half, -half], [half, half], [-half, half], [-half, -half]], "frame");
}

export function cross(plot, [x, y]) {
  const r = 0.02 * plot.half;
  line(plot, [[x - r, y - r], [x + r, y + r]], "origin");
  line(plot, [[x - r, y + r], [x + r, y - r]], "origin");
}

// The star of a goal: five points, and five corners between them.
export function star(plot, [x, y]) {
  const corners = range(10).map((i) => {
    const r = plot.half * (i % 2 === 0 ? 0.055 : 0.022);
    const angle = Math.PI * (0.5 + i / 5);
    return [x + r * Math.cos(angle), y + r * Math.sin(angle)];
  });
  return svg(plot, "polygon", { points: text(corners), class: "goal" });
}

// The episodes that a step learned from, in the colour of the parameters that took them.
export const fan = (plot, paths, k) => paths.forEach((path) => line(plot, path, `fan k${k}`));

// A path, with the marker where it ends that it has in the figures. Returns the parts.
export function path(plot, points, k) {
  const drawn = line(plot, points, `path k${k}`);
  return [drawn, marker(plot, points.at(-1), k)];
}

function marker(plot, [x, y], k) {
  const r = 0.022 * plot.half;
  const corners = [
    range(16).map((i) => [r * Math.cos((i * Math.PI) / 8), r * Math.sin((i * Math.PI) / 8)]),
    [[-r, -r], [r, -r], [r, r], [-r, r]],
    [[-1.2 * r, -r], [1.2 * r, -r], [0, 1.3 * r]],
    [[0, -1.4 * r], [1.4 * r, 0], [0, 1.4 * r], [-1.4 * r, 0]],
  ][k];
  const points = corners.map(([dx, dy]) => [x + dx, y + dy]);
  return svg(plot, "polygon", { points: text(points), class: `end k${k}` });
}

// Let a path grow from its start, in so many milliseconds.
export function grow([drawn, end], points, milliseconds) {
  if (milliseconds === 0) return;
  end.setAttribute("visibility", "hidden");
  const start = performance.now();
  const frame = (now) => {
    const share = Math.min(1, Math.max(0, (now - start) / milliseconds));
    drawn.setAttribute("points", text(points.slice(0, 1 + Math.ceil(share * (points.length - 1)))));
    if (share < 1) requestAnimationFrame(frame);
    else end.removeAttribute("visibility");
  };
  requestAnimationFrame(frame);
}

// An arrow from the origin.
export function arrow(plot, [x, y], look) {
  const length = Math.hypot(x, y);
  const head = Math.min(0.09 * plot.half, 0.4 * length);
  const back = (turn) => {
    const angle = Math.atan2(y, x) + turn;
    return [x - head * Math.cos(angle), y - head * Math.sin(angle)];
  };
  line(plot, [[0, 0], [x, y], back(0.45), [x, y], back(-0.45)], look);
}

// The place in the plane of a pointer on the plot.
export function placeOf(plot, event) {
  const box = plot.getBoundingClientRect();
  const along = (at, start, size) => (2 * (at - start) / size - 1) * plot.half;
  return [along(event.clientX, box.left, box.width), -along(event.clientY, box.top, box.height)];
}

// The three sections through the cursor, with their marks. `h`, `v` and `d` are the axes to the right, upwards and into the
// picture; y points up, as in IMOD and in the figures.
const VIEWS = [
  { name: "xy", title: "x–y", h: 0, v: 1, d: 2 },
  { name: "yz", title: "y–z", h: 2, v: 1, d: 0 },
  { name: "xz", title: "x–z", h: 0, v: 2, d: 1 },
].map((view) => ({ ...view, canvas: byId(view.name), context: byId(view.name).getContext("2d"), marks: [] }));
const LEAST_PX = 90, GAP_PX = 4;
let volume = null, pixelsPerVoxel = 1, queued = false;

// Sizes of the three canvases: one scale for all, so that they lie beside each other as they are cut.
function layout() {
  const [width, height, depth] = sizeOf(shown.tomogram);
  const room = byId("stage").clientWidth - GAP_PX;
  const most = Math.max(320, 0.86 * window.innerHeight);
  let side = Math.max(LEAST_PX, (room * depth) / (width + depth));
  pixelsPerVoxel = (room - side) / width;
  const tall = height * pixelsPerVoxel + Math.max(LEAST_PX, depth * pixelsPerVoxel);
  if (tall > most) pixelsPerVoxel *= most / tall;
  side = Math.max(LEAST_PX, depth * pixelsPerVoxel);
  const sizes = { xy: [width, height], yz: [0, height], xz: [width, 0] };
  const ratio = window.devicePixelRatio || 1;
  for (const view of VIEWS) {
    const [w, h] = sizes[view.name].map((n) => Math.round(n ? n * pixelsPerVoxel : side));
    const [pw, ph] = [Math.max(1, Math.round(w * ratio)), Math.max(1, Math.round(h * ratio))];
    if (view.canvas.width !== pw || view.canvas.height !== ph) [view.canvas.width, view.canvas.height] = [pw, ph];
    [view.canvas.style.width, view.canvas.style.height] = [w + "px", h + "px"];
  }
}

const dpr = () => window.devicePixelRatio || 1;
const scale = () => pixelsPerVoxel * dpr() * shown.zoom;
const toX = (view, at) => view.canvas.width / 2 + (at[view.h] - shown.centre[view.h]) * scale();
const toY = (view, at) => view.canvas.height / 2 - (at[view.v] - shown.centre[view.v]) * scale();
// From a canvas pixel back to the point of the section.
function pointAt(view, [px, py]) {
  const at = [...shown.cursor], size = sizeOf(shown.tomogram);
  at[view.h] = shown.centre[view.h] + (px - view.canvas.width / 2) / scale();
  at[view.v] = shown.centre[view.v] - (py - view.canvas.height / 2) / scale();
  return at.map((value, axis) => clamp(value, 0, size[axis] - 1));
}

function draw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => { queued = false; drawNow(); });
}

function drawNow() {
  layout();
  byId("stage").classList.toggle("zoomed", shown.zoom > 1);
  for (const view of VIEWS) drawView(view);
  publish();
}

function drawView(view) {
  const { canvas, context } = view, [width, height] = [canvas.width, canvas.height];
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  const { picture, depth } = volume.section(view.d, shown.cursor[view.d]);
  if (picture) {
    const extent = sizeOf(shown.tomogram);
    extent[2] = depth;
    const corner = [...shown.cursor];
    corner[view.h] = -0.5;
    corner[view.v] = extent[view.v] - 0.5;
    context.filter = "contrast(" + byId("contrast").value + "%)";
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, toX(view, corner), toY(view, corner), extent[view.h] * scale(), extent[view.v] * scale());
    context.filter = "none";
  } else label(view, "reading slices …", width / 2, height / 2, "center");
  crosshair(view);
  drawMarks(view);
  label(view, view.title + "   " + AXES[view.d] + " " + shown.cursor[view.d].toFixed(0), 8 * dpr(), 17 * dpr(), "left");
  if (view.name === "xy") scaleBar(view);
}

function crosshair(view) {
  const { canvas, context } = view, x = toX(view, shown.cursor), y = toY(view, shown.cursor), gap = 14 * dpr();
  context.beginPath();
  for (const [a, b] of [[0, x - gap], [x + gap, canvas.width]]) { context.moveTo(a, y); context.lineTo(b, y); }
  for (const [a, b] of [[0, y - gap], [y + gap, canvas.height]]) { context.moveTo(x, a); context.lineTo(x, b); }
  stroke(context, "rgba(255, 214, 64, 0.75)", dpr());
}

// The radius of the section of a sphere at a distance from its centre; 0 where the plane does not cut it.
const sectionRadius = (radius, away) => Math.sqrt(Math.max(radius ** 2 - away ** 2, 0));

function drawMarks(view) {
  view.marks = [];
  const all = byId("all-z").checked, errorsOnly = byId("errors-only").checked;
  const { truth, picks } = shown.tomogram;
  const hit = new Set(shown.review.items.filter((item) => item.match !== null && item.match >= 0 && passes(item)).map((item) => item.match));
  if (truth && byId("show-truth").checked) {
    for (let i = 0; i < truth.x.length; i++) {
      const kind = classOf(truth.label[i]), at = [truth.x[i], truth.y[i], truth.z[i]];
      const radius = sectionRadius(kind.radius, all ? 0 : away(view, at));
      const found = hit.has(i);
      if (!shown.classes.has(kind.label) || !radius || (errorsOnly && found)) continue;
      ring(view, at, radius, found ? "rgba(255,255,255,0.9)" : kind.colour, found ? "dotted" : "dashed");
      view.marks.push({ at, kind, what: picks.match ? (found ? "true particle, found" : "true particle, missed") : "true particle" });
    }
  }
  drawCandidates(view, all);
  if (!byId("show-picks").checked) return;
  suggestedRing(view);
  for (const item of shown.review.items) {
    const kind = classOf(item.label), wrong = item.match === FALSE_PICK;
    const chosen = item.i === shown.selected;
    if (!isDrawn(item) || (errorsOnly && !wrong)) continue;
    const radius = sectionRadius(kind.radius, all ? 0 : away(view, item.at));
    if (!radius) continue;
    mark(view, item, kind, radius, wrong, chosen);
    view.marks.push({ at: item.at, kind, item, what: outcomeOf(item) });
  }
}

// Where an audit would move the selected particle to.
function suggestedRing(view) {
  const item = shown.review.items[shown.selected], advice = suggested(item);
  if (!advice || advice.do !== "move") return;
  const radius = sectionRadius(classOf(item.label).radius, away(view, advice.at));
  if (radius) ring(view, advice.at, radius, "#56b4e9", "dashed");
}

// How far a position is from the slab of voxels that a section shows: slices may be means of several.
function away(view, at) {
  const position = shown.cursor[view.d];
  if (view.d !== 2) return Math.abs(at[view.d] - Math.round(position));
  const s = volume.slice(position), { from, to } = shown.tomogram;
  return Math.max(from[s] - at[2], at[2] - to[s], 0);
}

// Whether a particle is drawn: of a class that is shown, and, where nothing was decided, at or above the threshold.
const isDrawn = (item) => shown.classes.has(item.label) && (item.i === shown.selected || item.state !== "undecided" || passes(item));

function mark(view, item, kind, radius, wrong, chosen) {
  const { context } = view, x = toX(view, item.at), y = toY(view, item.at), rejected = item.state === "rejected";
  context.globalAlpha = rejected ? 0.45 : 1;
  if (chosen) circle(context, x, y, radius * scale() + 4 * dpr(), "#ffd640", 2.5 * dpr());
  const byScore = byId("rings-by-score").checked ? scoreColour(item.score) : null;
  ring(view, item.at, radius, byScore || kind.colour, "solid");
  if (rejected) slash(context, x, y, Math.max(radius * scale(), 5 * dpr()));
  else if (item.state === "accepted") badge(context, x + 0.72 * radius * scale(), y - 0.72 * radius * scale(), item.added);
  if (wrong) cross(context, x, y, kind.colour);
  else dot(context, x, y, scoreColour(item.score) || kind.colour);
  context.globalAlpha = 1;
}

function stroke(context, colour, width) { context.strokeStyle = colour; context.lineWidth = width; context.stroke(); }
function circle(context, x, y, radius, colour, width) {
  context.beginPath();
  context.arc(x, y, Math.max(radius, 1.5 * dpr()), 0, 2 * Math.PI);
  stroke(context, colour, width);
}
function ring(view, at, radius, colour, line) {
  const { context } = view, x = toX(view, at), y = toY(view, at), thin = line === "dotted";
  context.setLineDash({ solid: [], dashed: [5, 4], dotted: [1.5, 3], dashdot: [7, 3, 1.5, 3] }[line].map((n) => n * dpr()));
  if (!thin) circle(context, x, y, radius * scale(), "rgba(255,255,255,0.75)", 3.8 * dpr());
  circle(context, x, y, radius * scale(), colour, (thin ? 1.6 : 2.2) * dpr());
  context.setLineDash([]);
}
function dot(context, x, y, colour) {
  context.beginPath();
  context.arc(x, y, 3.6 * dpr(), 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
  stroke(context, "#fff", 1.2 * dpr());
}
function lines(context, parts, colour, width) {
  context.beginPath();
  for (const part of parts) part.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.lineCap = context.lineJoin = "round";
  stroke(context, colour, width);
  context.lineCap = "butt";
}
function cross(context, x, y, colour) {
  const a = 5 * dpr(), parts = [[[x - a, y - a], [x + a, y + a]], [[x + a, y - a], [x - a, y + a]]];
  lines(context, parts, "#fff", 5 * dpr());
  lines(context, parts, colour, 2.6 * dpr());
}
function slash(context, x, y, radius) {
  const a = 0.9 * radius, part = [[[x - a, y + a], [x + a, y - a]]];
  lines(context, part, "#fff", 4.5 * dpr());
  lines(context, part, "#b54300", 2.4 * dpr());
}
// A tick in a green disc; a plus where the review added the particle.
function badge(context, x, y, added) {
  const r = 6.5 * dpr(), a = 0.5 * r;
  context.beginPath();
  context.arc(x, y, r, 0, 2 * Math.PI);
  context.fillStyle = "#007a55";
  context.fill();
  stroke(context, "#fff", 1.2 * dpr());
  const tick = [[[x - a, y], [x - 0.2 * a, y + 0.8 * a], [x + a, y - 0.7 * a]]];
  const plus = [[[x - a, y], [x + a, y]], [[x, y - a], [x, y + a]]];
  lines(context, added ? plus : tick, "#fff", 1.7 * dpr());
}
function label(view, text, x, y, align) {
  const { context } = view;
  context.font = 12 * dpr() + "px system-ui, sans-serif";
  context.textAlign = align;
  context.fillStyle = "#fff"; context.strokeStyle = "#000"; context.lineWidth = 3 * dpr();
  context.strokeText(text, x, y);
  context.fillText(text, x, y);
}
function scaleBar(view) {
  const { context, canvas } = view, { voxel } = shown.tomogram;
  if (!voxel) return;
  const nmPerPixel = voxel / 10 / scale(), target = (canvas.width / 5) * nmPerPixel;
  const nice = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000];
  const nm = nice.reduce((a, b) => (Math.abs(Math.log(b / target)) < Math.abs(Math.log(a / target)) ? b : a));
  const x = 14 * dpr(), y = canvas.height - 14 * dpr(), length = nm / nmPerPixel;
  context.fillStyle = "#fff"; context.strokeStyle = "#000"; context.lineWidth = 3 * dpr();
  context.strokeRect(x, y - 4 * dpr(), length, 4 * dpr());
  context.fillRect(x, y - 4 * dpr(), length, 4 * dpr());
  label(view, nm + " nm", x + length / 2, y - 9 * dpr(), "center");
}

// What is drawn, readable by scripts and assistive technology.
function publish() {
  const { tomogram, cursor } = shown, all = byId("all-z").checked;
  const inSection = (picks, truth, dropped) => {
    const counts = [picks + " picks"];
    if (tomogram.truth) counts.push(truth + " true particles");
    if (chosenLimit() !== null) counts.push(dropped + " dropped candidates");
    return counts.join(counts.length > 2 ? ", " : " and ");
  };
  for (const view of VIEWS) {
    const { canvas, marks, title, d } = view, picks = marks.filter((mark) => mark.item), dropped = marks.filter((mark) => mark.candidate).length;
    const truth = marks.length - picks.length - dropped;
    const radius = (mark) => sectionRadius(mark.kind.radius, all ? 0 : away(view, mark.at));
    canvas.dataset.picks = picks.length;
    canvas.dataset.truth = truth;
    canvas.dataset.dropped = dropped;
    canvas.dataset.rings = JSON.stringify(picks.map((mark) => [mark.item.i, radius(mark)]));
    const place = tomogram.name + ", section " + title + " at " + AXES[d] + " " + cursor[d].toFixed(0);
    canvas.setAttribute("aria-label", place + ": " + inSection(picks.length, truth, dropped) + " drawn");
  }
  byId("stage").dataset.cursor = JSON.stringify(cursor);
  byId("stage").dataset.read = volume.isRead;
  const { picks, truth, dropped } = VIEWS[0].canvas.dataset;
  byId("drawn").textContent = inSection(picks, truth, dropped) + " in the x–y section";
}

// The mark nearest to a pixel, none where there is none near.
function markAt(view, [px, py]) {
  let best = null, least = 14 * dpr();
  for (const mark of view.marks) {
    const distance = Math.hypot(toX(view, mark.at) - px, toY(view, mark.at) - py) - (mark.item ? 1 : 0);
    if (distance < least) { least = distance; best = mark; }
  }
  return best;
}

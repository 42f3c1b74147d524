// The viewer's events: mouse, keyboard, files.
function load(index) {
  if (volume) volume.stop();
  const tomogram = data.tomograms[index], review = reviewOf(tomogram);
  const { thresholds } = review, range = scoreRange(tomogram);
  Object.assign(shown, { tomogram, review, thresholds, range, zoom: 1, selected: null, candidates: makeCandidates(tomogram) });
  volume = makeVolume(tomogram, draw);
  const size = sizeOf(tomogram);
  shown.cursor = size.map((n) => Math.floor((n - 1) / 2));
  shown.cursor[2] = fullest();
  shown.centre = size.map((n) => n / 2 - 0.5);
  byId("z").max = tomogram.depth - 1;
  byId("filter").querySelectorAll("[data-kind]").forEach((option) => { option.hidden = option.disabled = !isAudit(); });
  offerLimits();
  showCursor();
  refresh();
}

// The middle of the slice that cuts most particles; the middle one where there are none.
function fullest() {
  const { from, to, picks, truth, depth } = shown.tomogram, count = from.map(() => 0);
  for (const marks of [picks, truth]) {
    if (!marks) continue;
    for (let i = 0; i < marks.x.length; i++) {
      const reach = 0.6 * classOf(marks.label[i]).radius;
      for (let s = 0; s < count.length; s++) if (Math.max(from[s] - marks.z[i], marks.z[i] - to[s], 0) <= reach) count[s]++;
    }
  }
  const best = Math.max(...count), s = count.indexOf(best);
  return best ? Math.floor((from[s] + to[s]) / 2) : Math.floor((depth - 1) / 2);
}

function showCursor() {
  const { from, to, depth } = shown.tomogram, s = volume.slice(shown.cursor[2]);
  byId("z").value = shown.cursor[2];
  byId("z-value").textContent = (from[s] === to[s] ? from[s] : from[s] + "–" + to[s]) + " of 0…" + (depth - 1);
}

function setCursor(at) {
  shown.cursor = at.map((value, axis) => clamp(value, 0, sizeOf(shown.tomogram)[axis] - 1));
  showCursor();
  draw();
}
const step = (axis, by) => setCursor(shown.cursor.map((value, k) => (k === axis ? Math.round(value) + by : value)));

function select(i, follow = true) {
  shown.selected = i;
  shown.place = Math.max(ordered().findIndex((item) => item.i === i), 0);
  const item = particleAt(i);
  if (item && follow) {
    setCursor(item.at);
    if (shown.zoom > 1) { shown.centre = [...shown.cursor]; pan(VIEWS[0], 0, 0); }
  }
  list();
  status();
  draw();
}

function next(by) {
  const items = ordered(), at = items.findIndex((item) => item.i === shown.selected);
  if (!items.length) return;
  // What was decided on may have left the list, whose next entry then stands at its place.
  let target = at + by;
  if (at < 0) target = shown.selected !== null ? shown.place + Math.min(by, 0) : by > 0 ? 0 : items.length - 1;
  select(items[clamp(target, 0, items.length - 1)].i);
}

// Decisions. What was decided on gives way to the next one where that is wished.
function decide(edit, advance) {
  if (!edit) return;
  const items = ordered(), at = items.findIndex((item) => item.i === shown.selected), following = items[at + 1];
  shown.review.do(edit);
  if (advance && byId("advance").checked && following) shown.selected = following.i;
  if (edit.do === "add") shown.selected = shown.review.items.length - 1;
  if (shown.selected !== null && edit.do !== "add") select(shown.selected);
  refresh();
}
const ofSelected = (what, more) => Boolean(shown.review.items[shown.selected]) && { do: what, item: shown.selected, ...more };
const accept = () => {
  const candidate = candidateAt(shown.selected);
  if (candidate) take(candidate); else decide(ofSelected("accept"), true);
};
const reject = () => decide(ofSelected("reject"), true);
const undecide = () => decide(ofSelected("undecide"), false);
const move = () => decide(ofSelected("move", { at: [...shown.cursor] }), false);
const suggest = () => decide(suggested(shown.review.items[shown.selected]), true);
function reclass(label) {
  if (!classes[label - 1]) return;
  byId("class").value = label;
  if (shown.selected !== null) decide(ofSelected("reclass", { class: classes[label - 1].name }), false);
}
function add(at) {
  const kind = classes[Number(byId("class").value) - 1];
  if (kind) decide({ do: "add", class: kind.name, at: [...at] }, false);
}
function back(edit) {
  if (!edit) return;
  if (edit.item !== undefined) shown.selected = edit.item;
  if (shown.selected !== null && !particleAt(shown.selected)) shown.selected = null;
  if (shown.selected !== null) select(shown.selected);
  refresh();
}

function setZoom(value) {
  if (value > shown.zoom && shown.zoom === 1) shown.centre = [...shown.cursor];
  shown.zoom = clamp(value, 1, 16);
  pan(VIEWS[0], 0, 0);
}
function pan(view, dx, dy) {
  shown.centre[view.h] -= dx / scale();
  shown.centre[view.v] += dy / scale();
  shown.centre = shown.centre.map((c, axis) => {
    const size = sizeOf(shown.tomogram)[axis], half = size / 2 / shown.zoom;
    return clamp(c, half - 0.5, size - 0.5 - half);
  });
  draw();
}

function offer(name, text) {
  const href = URL.createObjectURL(new Blob([text], { type: "application/octet-stream" }));
  const link = element("a", undefined, document.body, { download: name, href });
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
const fileName = (name) => name.replace(/[^\p{L}\p{N}._-]+/gu, "_").replace(/^[._]+|[._]+$/g, "") || "tomogram";

function saveList(format) {
  const items = shown.review.items.filter((item) => isListed(item, byId("accepted-only").checked));
  const texts = makeFormats(shown.tomogram, items), name = fileName(shown.tomogram.name);
  if (format === "copick") for (const [file, text] of texts.copick()) offer(file, text);
  else offer(name + "." + format, texts[format]());
}

// Decisions from a file: of the tomograms that are here, where they were made on these lists.
async function takeDecisions(file) {
  const problems = [];
  let taken = 0;
  try {
    const content = JSON.parse(await file.text());
    if (content.review !== 1) throw new Error("not a file of decisions");
    for (const entry of content.tomograms) {
      const tomogram = data.tomograms.find((t) => t.name === entry.name);
      if (!tomogram) continue;
      const given = entry.min_scores || {}, least = Object.fromEntries(classes.map((c) => [c.label, given[c.name]]));
      if (tomogram.list !== entry.list) problems.push(entry.name + ": made on another list");
      else if (!reviewOf(tomogram).replace(entry.edits, least)) problems.push(entry.name + ": an edit makes no sense");
      else taken++;
    }
  } catch (error) {
    problems.push(error.message);
  }
  shown.selected = null;
  refresh();
  const refused = problems.length ? "; not taken: " + problems.join("; ") : "";
  byId("kept").textContent = "Tomograms taken from " + file.name + ": " + taken + refused + ".";
}

const KEYS = {
  n: () => next(1), p: () => next(-1), a: accept, r: reject, x: reject, u: undecide, i: () => add(shown.cursor), m: move, s: suggest,
  z: () => back(shown.review.undo()), y: () => back(shown.review.redo()),
  "+": () => setZoom(shown.zoom * 1.5), "=": () => setZoom(shown.zoom * 1.5), "-": () => setZoom(shown.zoom / 1.5), "0": () => setZoom(1),
  PageUp: (far) => step(2, far), PageDown: (far) => step(2, -far), Home: () => step(2, -1e9), End: () => step(2, 1e9),
  ArrowRight: (far) => step(0, far), ArrowLeft: (far) => step(0, -far), ArrowUp: (far) => step(1, far), ArrowDown: (far) => step(1, -far),
  "?": () => { byId("shortcuts").open = !byId("shortcuts").open; },
};
const IN_LIST = {
  ArrowDown: () => next(1), ArrowUp: () => next(-1), PageDown: () => next(10), PageUp: () => next(-10),
  Home: () => next(-1e9), End: () => next(1e9),
};

byId("viewer-section").addEventListener("keydown", (event) => {
  const target = event.target, typing = target.matches("select, textarea, input:not([type=checkbox]):not([type=button])");
  if (event.altKey) return;
  const undo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z";
  const redo = (event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "y";
  const inPlace = ["Home", "End", "PageUp", "PageDown"].includes(event.key) || event.key.startsWith("Arrow");
  let action = null;
  if (undo || redo) action = redo || event.shiftKey ? KEYS.y : KEYS.z;
  else if (event.ctrlKey || event.metaKey) return;
  else if (typing && (target.tagName !== "INPUT" || target.type !== "range" || inPlace)) return;
  else if (target.closest("#list") && IN_LIST[event.key]) action = IN_LIST[event.key];
  else if (inPlace && !target.closest("#stage")) return;
  else if (/^[1-9]$/.test(event.key)) action = () => reclass(Number(event.key));
  else action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action(event.shiftKey ? 10 : 1);
});

for (const view of VIEWS) {
  const { canvas } = view;
  const place = (event) => {
    const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
    return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
  };
  let drag = null, moved = false;
  canvas.addEventListener("pointerdown", (event) => {
    byId("stage").focus({ preventScroll: true });
    [drag, moved] = [place(event), false];
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const now = place(event);
    if (drag && (moved || Math.hypot(now[0] - drag[0], now[1] - drag[1]) > 4 * dpr())) {
      moved = true;
      if (shown.zoom > 1) { pan(view, now[0] - drag[0], now[1] - drag[1]); drag = now; } else setCursor(pointAt(view, now));
      return;
    }
    const mark = markAt(view, now), [x, y, z] = pointAt(view, now).map((value) => value.toFixed(0));
    byId("hint").textContent = mark ? describe(mark) : "x " + x + ", y " + y + ", z " + z;
  });
  canvas.addEventListener("pointerup", (event) => {
    const now = place(event), clicked = drag && !moved;
    drag = null;
    if (!clicked) return;
    if (event.shiftKey) { add(pointAt(view, now)); return; }
    const mark = markAt(view, now);
    setCursor(mark ? mark.at : pointAt(view, now));
    const chosen = mark && (mark.item || mark.candidate);
    select(chosen ? chosen.i : null, false);
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("dblclick", (event) => { if (!event.shiftKey) setZoom(shown.zoom > 1 ? 1 : 2.5); });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== byId("stage")) return;  // the page scrolls
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) setZoom(shown.zoom * (event.deltaY < 0 ? 1.2 : 1 / 1.2));
    else step(view.d, event.deltaY < 0 ? 1 : -1);
  }, { passive: false });
}

data.tomograms.forEach((t, i) => element("option", t.name, byId("tomogram"), { value: i }));
byId("tomogram-row").hidden = data.tomograms.length < 2;
element("option", "all classes", byId("score-class"), { value: 0 });
for (const c of classes) {
  element("option", c.name, byId("score-class"), { value: c.label });
  element("option", c.label < 10 ? c.label + "  " + c.name : c.name, byId("class"), { value: c.label });
}
const on = (id, event, action) => byId(id).addEventListener(event, action);
on("tomogram", "change", () => load(Number(byId("tomogram").value)));
on("z", "input", () => setCursor([shown.cursor[0], shown.cursor[1], Number(byId("z").value)]));
on("score", "input", () => setThreshold(byId("score").value));
on("score-class", "change", refresh);
on("contrast", "input", () => { byId("contrast-value").textContent = byId("contrast").value + " %"; draw(); });
for (const id of ["show-truth", "show-picks", "errors-only", "all-z", "rings-by-score"]) on(id, "change", draw);
for (const id of ["filter", "order", "accepted-only"]) on(id, "change", refresh);
on("show-dropped", "click", toggleDropped);
on("zoom-in", "click", () => setZoom(shown.zoom * 1.5));
on("zoom-out", "click", () => setZoom(shown.zoom / 1.5));
on("zoom-reset", "click", () => setZoom(1));
const BUTTONS = {
  accept, reject, undecide, move, suggest, undo: KEYS.z, redo: KEYS.y,
  add: () => add(shown.cursor), previous: () => next(-1), next: () => next(1),
};
for (const [id, action] of Object.entries(BUTTONS)) on(id, "click", () => action());
on("class", "change", () => reclass(Number(byId("class").value)));
for (const format of ["xml", "star", "csv", "copick"]) on("save-" + format, "click", () => saveList(format));
on("save-decisions", "click", () => {
  offer(data.decisions.file, decisionsText());
  byId("after-saving").hidden = false;
});
on("take-decisions", "change", () => { const [file] = byId("take-decisions").files; if (file) takeDecisions(file); });
function copying(button, text) {
  on(button, "click", () => {
    const done = (label) => { byId(button).textContent = label; };
    if (navigator.clipboard) navigator.clipboard.writeText(text()).then(() => done("copied"), () => done("select and copy it"));
    else done("select and copy it");
  });
}
copying("copy-command", command);
copying("copy-next", () => data.decisions.next);
byId("next-file").textContent = data.decisions.file;
byId("next-command").textContent = data.decisions.next;
window.addEventListener("beforeunload", (event) => {
  if ([...reviews.values()].some((review) => review.edits.length && !review.keeps)) event.preventDefault();
});
if (window.ResizeObserver) new ResizeObserver(draw).observe(byId("stage"));
load(0);

// What stands beside and below the sections: histogram and threshold, counts, the list, the command, the state of the review.
const BINS = 48, ROWS = 120;

// Particles in the order of the list that is shown, those that its filter leaves.
function ordered() {
  const filter = byId("filter").value, order = byId("order").value;
  const items = chosenLimit() !== null ? shownCandidates() : shown.review.items.filter((item) =>
    shown.classes.has(item.label) && (item.state !== "undecided" || passes(item)) &&
    (filter === "all" || item.state === filter || item.kind === filter || (filter === "added" && item.added)));
  const rank = (item) => (item.score === null ? Infinity : item.score);
  const near = (item) => Math.abs(rank(item) - Math.max(thresholdOf(item.given), shown.range ? shown.range[0] : 0));
  const keys = { high: (item) => -rank(item), low: rank, near, number: (item) => item.i };
  const key = keys[order];
  return items.sort((a, b) => {
    const [p, q] = [key(a), key(b)];
    return p - q || a.i - b.i || 0;  // candidates, which have names, keep their order
  });
}

function drawHistogram() {
  const svg = byId("histogram"), { range } = shown, chosen = Number(byId("score-class").value);
  svg.replaceChildren();
  svg.style.display = range ? "" : "none";
  if (!range) return;
  const [low, high] = range, width = (high - low) / BINS || 1, counts = new Array(BINS).fill(0);
  for (const item of shown.review.items) {
    if (item.score === null || (chosen && item.given !== chosen)) continue;
    counts[clamp(Math.floor((item.score - low) / width), 0, BINS - 1)]++;
  }
  const most = Math.max(...counts, 1), least = currentThreshold();
  const make = (name, attributes) => {
    const node = document.createElementNS(svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    svg.append(node);
    return node;
  };
  counts.forEach((count, bin) => {
    if (!count) return;
    const height = 2 + 46 * Math.sqrt(count / most), middle = low + (bin + 0.5) * width;
    const bar = make("rect", { x: bin + 0.06, y: 50 - height, width: 0.88, height, fill: scoreColour(middle) || "#8a8f98" });
    if (low + (bin + 1) * width <= least) bar.setAttribute("opacity", 0.25);
    bar.dataset.count = count;
  });
  if (least > low) {
    const x = clamp((least - low) / width, 0, BINS);
    make("line", { x1: x, x2: x, y1: 0, y2: 50, class: "cut" });
  }
  svg.setAttribute("aria-label", "Histogram of " + counts.reduce((a, b) => a + b, 0) + " scores from " + plain(low, 3) + " to " + plain(high, 3));
}

// The threshold that the slider shows: that of the class chosen beside it, or the smallest of all.
function currentThreshold() {
  const chosen = Number(byId("score-class").value);
  return chosen ? thresholdOf(chosen) : Math.min(...classes.map((c) => thresholdOf(c.label)));
}

function showThreshold() {
  const { range } = shown, slider = byId("score"), least = currentThreshold();
  slider.disabled = !range;
  if (range) {
    [slider.min, slider.max] = range[1] > range[0] ? range : [range[0], range[0] + 1];
    slider.step = "any";
    slider.value = Math.max(least, range[0]);
  }
  const several = !Number(byId("score-class").value) && new Set(classes.map((c) => thresholdOf(c.label))).size > 1;
  const text = several ? "differs by class" : least === -Infinity ? "all" : "≥ " + plain(least, 4);
  byId("score-value").textContent = range ? text : "picks carry no score";
}

function setThreshold(value) {
  const { range } = shown, chosen = Number(byId("score-class").value);
  if (!range) return;
  // The slider rounds its ends.
  const least = Number(value) <= range[0] + 1e-4 * (range[1] - range[0]) ? undefined : Number(plain(Number(value), 4));
  for (const c of classes) {
    if (chosen && c.label !== chosen) continue;
    if (least === undefined) delete shown.thresholds[c.label]; else shown.thresholds[c.label] = least;
  }
  shown.review.save();
  refresh();
}

// Numbers over the whole tomogram at the present thresholds.
function countsTable() {
  const { truth, picks } = shown.tomogram, body = byId("counts");
  body.replaceChildren();
  const head = element("tr", undefined, body);
  const names = picks.match ? ["", "picks", "true", "P", "R", "F1"] : ["", isAudit() ? "rows" : "picks", "in list"];
  names.forEach((text) => element("th", text, head));
  const ratio = (a, b) => (b ? (a / b).toFixed(2) : "–");
  const kinds = [...classes];
  if (picks.label.includes(0) || (truth && truth.label.includes(0))) kinds.push(unknown);
  for (const kind of kinds) {
    const given = shown.review.items.filter((item) => item.given === kind.label && isCounted(item) && passes(item));
    const hits = given.filter((item) => item.match !== null && item.match >= 0).length;
    const real = truth ? truth.label.filter((label) => label === kind.label).length : 0;
    const listed = shown.review.items.filter((item) => item.label === kind.label && isListed(item)).length;
    const row = element("tr", undefined, body), label = element("label", undefined, element("td", undefined, row));
    const box = element("input", undefined, label, { type: "checkbox", "data-label": kind.label });
    box.checked = shown.classes.has(kind.label);
    box.addEventListener("change", () => { shown.classes[box.checked ? "add" : "delete"](kind.label); refresh(); });
    swatch(kind.colour, label);
    element("span", kind.name, label);
    const n = given.length;
    const cells = picks.match ? [n, real, ratio(hits, n), ratio(hits, real), ratio(2 * hits, n + real)] : [n, listed];
    cells.forEach((text) => element("td", text, row));
  }
}

const STATE_MARKS = { undecided: "", dropped: "", accepted: "✓", rejected: "✗" };
function list() {
  const body = byId("list"), items = ordered(), at = items.findIndex((item) => item.i === shown.selected);
  const first = clamp(at - ROWS / 2, 0, Math.max(0, items.length - ROWS)), rows = items.slice(first, first + ROWS);
  const top = body.scrollTop;
  body.replaceChildren();
  if (first) element("div", first + " more above", body, { class: "more" });
  for (const item of rows) {
    const chosen = item.i === shown.selected;
    const look = "pick " + item.state + (item.kind || item.by ? " suspected" : "");
    const row = element("div", undefined, body, { role: "option", id: "pick-" + item.i, class: look, "aria-selected": chosen });
    element("span", STATE_MARKS[item.state] + (item.added ? "+" : ""), row, { class: "state", "aria-label": item.state });
    swatch(classOf(item.label).colour, row);
    element("span", classOf(item.label).name, row, { class: "what" });
    const score = element("span", item.score === null ? "" : item.score.toFixed(3), row, { class: "number" });
    if (scoreColour(item.score)) score.style.borderBottom = "2px solid " + scoreColour(item.score);
    element("span", item.at.map((value) => value.toFixed(1)).join(", "), row, { class: "number where" });
    if (item.kind || item.by) element("span", item.by ? "dropped by " + item.by : KINDS[item.kind], row, { class: "soft" });
    row.addEventListener("click", () => select(item.i));
  }
  const rest = items.length - first - rows.length;
  if (rest > 0) element("div", rest + " more below", body, { class: "more" });
  const leftOut = candidatesLeftOut();
  if (leftOut) element("div", leftOut + " more of lower scores, which the page does not hold", body, { class: "more" });
  if (!items.length) element("div", "nothing here at this threshold and filter", body, { class: "more" });
  body.setAttribute("aria-activedescendant", at < 0 ? "" : "pick-" + shown.selected);
  body.scrollTop = top;
  const chosen = byId("pick-" + shown.selected);
  if (chosen && (chosen.offsetTop < body.scrollTop || chosen.offsetTop + chosen.offsetHeight > body.scrollTop + body.clientHeight)) {
    body.scrollTop = chosen.offsetTop - body.clientHeight / 2;
  }
}

function status() {
  const { items } = shown.review, count = (test) => items.filter(test).length;
  const listed = items.filter((item) => isListed(item, byId("accepted-only").checked)).length;
  byId("status").textContent = count((item) => item.state === "accepted" && !item.added) + " accepted, " +
    count((item) => item.state === "rejected") + " rejected, " + count((item) => item.added && item.state === "accepted") + " added, " +
    count((item) => item.state === "undecided") + " undecided; the list holds " + listed + ".";
  byId("kept").textContent = shown.review.keeps ? "Kept in this browser; reloading the page loses nothing."
    : "This browser keeps nothing for this page: save the decisions before you close it.";
  byId("undo").disabled = !shown.review.canUndo;
  byId("redo").disabled = !shown.review.canRedo;
  const item = items[shown.selected], candidate = candidateAt(shown.selected);
  for (const id of ["accept", "reject", "undecide", "move"]) byId(id).disabled = !item;
  if (candidate) byId("accept").disabled = candidate.state === "accepted" || !candidate.label;
  byId("suggest").hidden = !isAudit();
  byId("suggest").disabled = !suggested(item);
  byId("save-copick").disabled = !shown.tomogram.voxel;
  byId("save-copick").title = shown.tomogram.voxel ? "" : "copick's positions are in Å, and the voxel size is not known";
  if (item) byId("class").value = item.label || byId("class").value;
  if (candidate) byId("class").value = candidate.label || byId("class").value;
  byId("selected").textContent = candidate ? inSentence(candidate) : !item ? "No particle is selected: click one, or press N."
    : describe({ item, kind: classOf(item.label), at: item.at, what: whatIs(item) }) + ", " + item.state;
  byId("command").textContent = command();
}

const inSentence = (candidate) => describe({ item: candidate, kind: classOf(candidate.label), at: candidate.at, what: whyDropped(candidate) }) +
  (candidate.state === "accepted" ? ", taken" : "; accept takes it into the list");
const whatIs = (item) => (item.added ? "added pick" : item.kind ? KINDS[item.kind] : "pick");
const inWords = (at) => at.map((value, axis) => AXES[axis] + " " + value.toFixed(1)).join(", ");

function describe(mark) {
  const given = mark.item || mark.candidate, score = given && given.score !== null ? ", score " + given.score.toFixed(3) : "";
  const advice = mark.item && suggested(mark.item);
  let text = mark.what + ": " + mark.kind.name + score + ", at " + inWords(mark.at);
  if (advice) {
    text += "; suggested: ";
    if (advice.do === "reclass") text += advice.class;
    else if (advice.do === "move") text += "move to " + inWords(advice.at);
    else text += advice.do === "reject" ? "remove" : "add";
  }
  return text;
}

// The command that gives the list at these thresholds again.
function command() {
  const { before, flag, after, language } = data.command;
  const quote = (text) => "'" + text.replace(/'/g, "'\\''") + "'";
  const least = classes.map((c) => [c.name, Math.max(thresholdOf(c.label), 0)]);
  if (!Object.keys(shown.thresholds).length) return [before, after].join(language === "python" ? "" : " ");
  const one = String(Math.max(currentThreshold(), 0)), byClass = quote(JSON.stringify(Object.fromEntries(least)));
  if (language === "python") {
    const option = flag + "=" + JSON.stringify(Object.fromEntries(least));
    return before + ".with_options('" + option.replace(/[\\']/g, "\\$&") + "')" + after;
  }
  const value = flag === "--min-score" ? one : byClass;
  return [before, flag, value, after].join(" ").trim();
}

function refresh() {
  showThreshold();
  drawHistogram();
  expectations();
  showDroppedControls();
  countsTable();
  list();
  status();
  draw();
}

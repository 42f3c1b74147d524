// Candidates that a limit of picking dropped: shown, listed and taken into the list, where the filter of the list asks for them.
// They are no particles of the review. Taking one adds a particle at its place.
const DROPPED = "dropped";

// The candidates of a tomogram, in the form of a review's items.
function makeCandidates({ dropped }) {
  if (!dropped) return [];
  return dropped.x.map((x, k) => ({
    i: DROPPED + k, at: [x, dropped.y[k], dropped.z[k]], label: dropped.label[k], given: dropped.label[k],
    score: dropped.score ? dropped.score[k] : null, by: dropped.by[k], added: false, kind: null, match: null,
    get state() { return takenPlaces().has(this.at.join()) ? "accepted" : "dropped"; },
  }));
}
// Places of the particles that the review added; a candidate at one of them was taken.
const takenPlaces = () => new Set(shown.review.items.filter((item) => item.added && item.state === "accepted").map((item) => item.at.join()));

// The limit whose candidates are shown: "" for all limits, null where none are.
function chosenLimit() {
  const [what, limit] = byId("filter").value.split(":");
  return what === DROPPED ? limit || "" : null;
}
function shownCandidates() {
  const limit = chosenLimit();
  if (limit === null) return [];
  return shown.candidates.filter((candidate) => shown.classes.has(candidate.label) && (!limit || candidate.by === limit));
}
const candidateAt = (i) => shown.candidates.find((candidate) => candidate.i === i);
const particleAt = (i) => shown.review.items[i] || candidateAt(i);

// What the list can be filtered by, and the sentence that says what was dropped.
function offerLimits() {
  const select = byId("filter"), before = select.value, { dropped } = shown.tomogram, totals = Object.entries(dropped ? dropped.totals : {});
  select.querySelectorAll("optgroup").forEach((group) => group.remove());
  byId("dropped-row").hidden = !totals.length;
  byId("show-dropped").hidden = !shown.candidates.length;
  if (totals.length) {
    const group = element("optgroup", undefined, select, { label: "dropped candidates" });
    element("option", "dropped by any limit", group, { value: DROPPED });
    for (const [limit, count] of totals) element("option", "dropped by " + limit + " (" + count + ")", group, { value: DROPPED + ":" + limit });
    byId("dropped-counts").textContent = "Dropped candidates: " + totals.map(([limit, count]) => count + " by " + limit).join(", ") + ".";
  }
  select.value = [...select.options].some((option) => option.value === before) ? before : "all";
}

function toggleDropped() {
  byId("filter").value = chosenLimit() === null ? DROPPED : "all";
  refresh();
}

function showDroppedControls() {
  const on = chosenLimit() !== null;
  byId("show-dropped").textContent = on ? "hide" : "show";
  byId("key-dropped").hidden = !on;
}

// How many of the candidates that the filter asks for the page does not hold; it keeps the best ones.
function candidatesLeftOut() {
  const limit = chosenLimit(), { dropped } = shown.tomogram;
  if (limit === null || !dropped) return 0;
  const of = (entries) => entries.filter(([name]) => !limit || name === limit).reduce((sum, [, count]) => sum + count, 0);
  return of(Object.entries(dropped.totals)) - shown.candidates.filter((candidate) => !limit || candidate.by === limit).length;
}

const whyDropped = (candidate) => "candidate dropped by " + candidate.by + " (" + (data.limits[candidate.by] || "its limit") + ")";

function drawCandidates(view, all) {
  const taken = takenPlaces();
  for (const candidate of shownCandidates()) {
    const kind = classOf(candidate.label), radius = sectionRadius(kind.radius, all ? 0 : away(view, candidate.at));
    if (!radius || taken.has(candidate.at.join())) continue;
    const { context } = view, x = toX(view, candidate.at), y = toY(view, candidate.at);
    if (candidate.i === shown.selected) circle(context, x, y, radius * scale() + 4 * dpr(), "#ffd640", 2.5 * dpr());
    ring(view, candidate.at, radius, kind.colour, "dashdot");
    const a = 4 * dpr(), diamond = [[[x, y - a], [x + a, y], [x, y + a], [x - a, y], [x, y - a]]];
    lines(context, diamond, "#fff", 3.4 * dpr());
    lines(context, diamond, kind.colour, 1.6 * dpr());
    view.marks.push({ at: candidate.at, kind, candidate, what: whyDropped(candidate) });
  }
}

// Add the particle that a candidate stands for.
function take(candidate) {
  const kind = classes[candidate.label - 1], items = ordered(), following = items[items.indexOf(candidate) + 1];
  if (!kind || candidate.state === "accepted") return;
  shown.review.do({ do: "add", class: kind.name, at: [...candidate.at] });
  select(byId("advance").checked && following ? following.i : candidate.i);
  refresh();
}

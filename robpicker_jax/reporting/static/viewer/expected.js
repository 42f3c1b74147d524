// What picks of at least a score are worth without truth, by the calibration tomograms; nothing where no calibration is known.
const calibrated = () => (isAudit() || !shown.range ? [] : classes.filter((kind) => kind.expected.length));

// The point of a class's calibration that speaks of a smallest score; `picking.expectation.expected_at` has the same rule.
function expectedAt(kind, score) {
  const reached = kind.expected.filter((point) => point.score >= score).length;
  return kind.expected[Math.max(reached, 1) - 1];
}

// Scores of the list's own picks of a class, whatever was decided on them.
const scoresOf = (kind) => shown.review.items.filter((item) => item.given === kind.label && item.score !== null).map((item) => item.score);

// The smallest score that counts for a class. Without a threshold it is the calibrated one that all picks of the list reach,
// since the list may have been cut when it was made.
function keptFrom(kind) {
  const own = thresholdOf(kind.label);
  if (own > -Infinity) return own;
  const lowest = scoresOf(kind).reduce((a, b) => Math.min(a, b), Infinity), below = kind.expected.find((point) => point.score <= lowest);
  return below ? below.score : -Infinity;
}

function expectations() {
  const kinds = calibrated();
  byId("expected").hidden = !kinds.length;
  if (!kinds.length) return;
  drawCurves(kinds);
  const body = byId("expectations");
  body.replaceChildren();
  const head = element("tr", undefined, body);
  for (const text of ["", "P", "R", "right", "there"]) element("th", text, head);
  const bounded = (row, rate, write) => {
    const cell = element("td", rate ? write(rate[0]) : "–", row);
    if (rate) element("span", write(rate[1]) + "–" + write(rate[2]), cell, { class: "soft" });
  };
  const share = (value) => value.toFixed(2), whole = (value) => value.toFixed(0);
  for (const kind of kinds) {
    const point = expectedAt(kind, keptFrom(kind)), { precision, recall, perPick } = point;
    const scores = scoresOf(kind), n = scores.filter((score) => score >= thresholdOf(kind.label)).length;
    // How many particles there are follows from the picks of the score that the recall was seen at, where there are any.
    const seen = scores.filter((score) => score >= point.score).length || n;
    const row = element("tr", undefined, body, { "data-score": point.score }), name = element("td", undefined, row);
    row.title = "seen with scores of at least " + plain(point.score, 4);
    swatch(kind.colour, name);
    name.append(kind.name);
    bounded(row, precision, share);
    bounded(row, recall, share);
    bounded(row, n ? precision.map((value) => n * value) : null, whole);
    // Picks below all calibrated scores are beyond that score: there are never fewer particles than picks that are right.
    bounded(row, seen && perPick ? perPick.map((value, k) => Math.max(seen * value, n * precision[k])) : null, whole);
  }
}

// Precision and recall against the smallest score, on the histogram's axis; bounds where one class alone is shown.
function drawCurves(kinds) {
  const svg = byId("curves"), [low, high] = shown.range, chosen = Number(byId("score-class").value);
  const drawn = chosen ? kinds.filter((kind) => kind.label === chosen) : kinds.filter((kind) => shown.classes.has(kind.label));
  const x = (score) => clamp(((score - low) / (high - low || 1)) * BINS, 0, BINS), y = (value) => 48 - 46 * value;
  const make = (name, attributes) => {
    const node = document.createElementNS(svg.namespaceURI, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    svg.append(node);
  };
  // Corners of the steps from left to right: between two calibrated scores the higher one speaks.
  const corners = (kind, name, k) => {
    const points = kind.expected.filter((point) => point[name]).reverse(), found = [];
    points.forEach((point, i) => {
      found.push([i ? x(points[i - 1].score) : 0, y(point[name][k])], [i < points.length - 1 ? x(point.score) : BINS, y(point[name][k])]);
    });
    return found;
  };
  const path = (points) => points.map(([a, b], i) => (i ? "L" : "M") + a.toFixed(2) + " " + b.toFixed(2)).join("");
  svg.replaceChildren();
  make("line", { x1: 0, x2: BINS, y1: y(0.5), y2: y(0.5), class: "half" });
  for (const kind of drawn) {
    for (const name of ["precision", "recall"]) {
      const style = "color: " + kind.colour;
      if (drawn.length === 1) make("path", { d: path([...corners(kind, name, 1), ...corners(kind, name, 2).reverse()]), class: "band", style });
      make("path", { d: path(corners(kind, name, 0)), class: name, style });
    }
  }
  const least = currentThreshold();
  if (least > low) make("line", { x1: x(least), x2: x(least), y1: 0, y2: 50, class: "cut" });
  byId("band").hidden = drawn.length !== 1;
  svg.setAttribute("aria-label", "Expected precision and recall against the smallest score, of " + drawn.map((kind) => kind.name).join(", "));
}

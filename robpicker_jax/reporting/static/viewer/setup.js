// What all parts of the viewer share: the page's data, the tomogram that is shown, and small helpers.
const data = JSON.parse(document.getElementById("viewer-data").textContent);
const byId = (id) => document.getElementById(id);
const classes = data.classes.map((c, i) => ({ ...c, label: i + 1 }));
const unknown = { ...data.unknown, label: 0, radius: mean(classes.map((c) => c.radius)) || 5 };
const classOf = (label) => classes[label - 1] || unknown;
const AXES = ["x", "y", "z"];

// The tomogram, its review, and what is shown of it. `cursor` is the point, in voxels, that the three sections pass through;
// `selected` the number of a particle, or the name of a dropped candidate, and `place` where it stood in the list when it was
// selected.
const shown = {
  tomogram: null, review: null, cursor: [0, 0, 0], zoom: 1, centre: [0, 0, 0], selected: null, place: 0, range: null,
  candidates: [],
  classes: new Set([0, ...classes.map((c) => c.label)]), thresholds: {},
};

function mean(values) { return values.reduce((a, b) => a + b, 0) / (values.length || 1); }
function clamp(value, low, high) { return Math.min(Math.max(value, low), high); }

function element(name, text, parent, attributes) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;  // never as markup: names come from files
  for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
  if (parent) parent.append(node);
  return node;
}

function swatch(colour, parent) {
  const node = element("span", undefined, parent, { class: "swatch" });
  node.style.background = colour;
  return node;
}

const sizeOf = (tomogram) => [tomogram.width, tomogram.height, tomogram.depth];
const isAudit = () => Boolean(shown.tomogram.picks.kind);
const KINDS = { false: "false: nothing there", wrong_class: "wrong class", displaced: "displaced", missing: "missing" };
// What a pick's match is where it hits no particle: false, or left out of the scores, as outside of a mask.
const FALSE_PICK = -1, UNCOUNTED = -2;
const isCounted = (item) => !item.added && item.match !== UNCOUNTED;
const WITHOUT_PARTICLE = { [FALSE_PICK]: "false pick", [UNCOUNTED]: "pick outside of what is scored" };
const outcomeOf = (item) => item.match === null ? "pick" : WITHOUT_PARTICLE[item.match] || "correct pick";
const plain = (value, digits) => Number(value.toPrecision(digits)).toString();

// The lowest and the highest score of a tomogram, which is `shown.range`; null where its picks have none.
function scoreRange(tomogram) {
  const scores = (tomogram.picks.score || []).filter((s) => s !== null);
  if (!scores.length) return null;
  let low = Infinity, high = -Infinity;
  for (const s of scores) { low = Math.min(low, s); high = Math.max(high, s); }
  return [low, high];
}

// A score within the tomogram's range by the colours of matplotlib's viridis; null without scores.
function scoreColour(score) {
  const { range } = shown;
  if (!range || score === null || range[1] <= range[0]) return null;
  const share = clamp((score - range[0]) / (range[1] - range[0]), 0, 1);
  return data.scoreColours[Math.round(share * (data.scoreColours.length - 1))];
}

const thresholdOf = (label) => {
  const own = shown.thresholds[label];
  if (own !== undefined) return own;
  const all = Object.values(shown.thresholds);
  return label === 0 && all.length && all.length === classes.length ? Math.min(...all) : -Infinity;
};
// Whether a particle reaches its class's threshold. One without a score does.
const passes = (item) => item.score === null || item.score >= thresholdOf(item.given);

// Whether a particle is in the list that is downloaded: `ReviewList.stays` has the same rule.
function isListed(item, acceptedOnly) {
  if (item.state !== "undecided") return item.state === "accepted";
  if (acceptedOnly || item.added) return false;
  return isAudit() ? item.kind !== "missing" : passes(item);
}

// A review is the sequence of its edits; undoing drops the last. `robpicker_jax.reviewing.edits` folds them by the same rules.
function makeReview(tomogram) {
  const picks = tomogram.picks, n = picks.x.length;
  const key = ["robpicker", data.run, tomogram.name, tomogram.list].join("\n");
  const thresholds = {};  // smallest score by class label; a class without one keeps all
  let edits = [], undone = [], items = [], keeps = true;

  function fold() {
    items = [];
    for (let i = 0; i < n; i++) {
      items.push({
        i, at: [picks.x[i], picks.y[i], picks.z[i]], label: picks.label[i], given: picks.label[i],
        score: picks.score ? picks.score[i] : null, state: "undecided", added: false,
        kind: picks.kind ? picks.kind[i] : null, match: picks.match ? picks.match[i] : null,
      });
    }
    for (const edit of edits) apply(edit);
  }

  function apply(edit) {
    const label = edit.class === undefined ? null : data.classes.findIndex((c) => c.name === edit.class) + 1;
    if (edit.do === "add") {
      const i = items.length, found = { score: null, kind: null, match: null };
      items.push({ i, at: edit.at, label, given: label, state: "accepted", added: true, ...found });
      return;
    }
    const item = items[edit.item];
    if (edit.do === "reclass") item.label = label;
    if (edit.do === "move") item.at = edit.at;
    item.state = { reject: "rejected", undecide: "undecided" }[edit.do] || "accepted";
  }

  // Kept under the run, the tomogram and its list, so that the review of another list stays apart.
  function save() {
    try {
      localStorage.setItem(key, JSON.stringify({ edits, undone, thresholds }));
      keeps = true;
    } catch {
      keeps = false;
    }
  }

  function load() {
    let kept = null;
    try {
      kept = JSON.parse(localStorage.getItem(key));
    } catch {
      keeps = false;
    }
    const listed = (value) => (Array.isArray(value) ? value : []);
    edits = soundOnes(listed(kept && kept.edits));
    // What was undone makes sense after the edits, in the order in which it would be done again.
    undone = soundOnes([...edits, ...listed(kept && kept.undone).slice().reverse()]).slice(edits.length).reverse();
    setThresholds(kept && kept.thresholds);
    fold();
  }

  function setThresholds(given) {
    for (const c of classes) {
      delete thresholds[c.label];
      if (given && Number.isFinite(given[c.label])) thresholds[c.label] = given[c.label];
    }
  }

  // Those edits, of a file or of the browser's store, that make sense one after the other.
  function soundOnes(given) {
    let known = n;
    return given.filter((edit) => {
      if (!edit || !["accept", "reject", "undecide", "reclass", "move", "add"].includes(edit.do)) return false;
      const named = data.classes.some((c) => c.name === edit.class);
      const placed = Array.isArray(edit.at) && edit.at.length === 3 && edit.at.every(Number.isFinite);
      if (["reclass", "add"].includes(edit.do) && !named) return false;
      if (["move", "add"].includes(edit.do) && !placed) return false;
      if (edit.do === "add") { known++; return true; }
      return Number.isInteger(edit.item) && edit.item >= 0 && edit.item < known;
    });
  }

  function step(source, target) {
    if (!source.length) return null;
    target.push(source.pop());
    fold();
    save();
    return target[target.length - 1];
  }

  load();
  return {
    tomogram, thresholds, save,
    get items() { return items; },
    get edits() { return edits; },
    get keeps() { return keeps; },
    get canUndo() { return edits.length > 0; },
    get canRedo() { return undone.length > 0; },
    do(edit) { edits.push(edit); undone = []; apply(edit); save(); },
    undo: () => step(edits, undone),
    redo: () => step(undone, edits),
    // All edits and thresholds of a file, in place of those made here; false where the file has some that make no sense.
    replace(given, least) {
      if (!Array.isArray(given) || soundOnes(given).length < given.length) return false;
      edits = given.slice();
      undone = [];
      setThresholds(least);
      fold();
      save();
      return true;
    },
  };
}

const reviews = new Map();
function reviewOf(tomogram) {
  if (!reviews.has(tomogram.name)) reviews.set(tomogram.name, makeReview(tomogram));
  return reviews.get(tomogram.name);
}

// The edit that does what an audit suggests for a row; null where it suggests nothing.
function suggested(item) {
  const { picks } = shown.tomogram;
  if (!item || !item.kind || !picks.suggested.label[item.i]) return null;
  const label = picks.suggested.label[item.i], at = AXES.map((axis) => picks.suggested[axis][item.i]);
  return {
    false: { do: "reject", item: item.i },
    wrong_class: { do: "reclass", item: item.i, class: classOf(label).name },
    displaced: { do: "move", item: item.i, at },
    missing: { do: "accept", item: item.i },
  }[item.kind];
}

"use strict";
// Slice viewer: grey slices with true particles and picks. Everything it shows is in the page; it asks the network for nothing.
(function () {
  const source = document.getElementById("viewer-data");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const byId = (id) => document.getElementById(id);
  const stage = byId("stage"), canvas = byId("canvas"), context = canvas.getContext("2d");
  const zSlider = byId("z"), scoreSlider = byId("score"), contrastSlider = byId("contrast"), chooser = byId("tomogram");
  const classes = data.classes.map((c, i) => ({ ...c, label: i + 1 }));
  const unknown = { ...data.unknown, label: 0, radius: mean(classes.map((c) => c.radius)) || 5 };
  const classOf = (label) => classes[label - 1] || unknown;
  const visible = new Set([0, ...classes.map((c) => c.label)]);
  let tomogram, images = [], slice = 0, threshold = -Infinity, zoom = 1, centre = [0, 0], marks = [], drag = null;

  function mean(values) { return values.reduce((a, b) => a + b, 0) / (values.length || 1); }
  function element(name, text, parent) {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;  // never as markup: names come from files
    if (parent) parent.append(node);
    return node;
  }
  const scoreOf = (i) => (tomogram.picks.score && tomogram.picks.score[i] !== null ? tomogram.picks.score[i] : Infinity);
  const passes = (i) => scoreOf(i) >= threshold;

  function load(index) {
    tomogram = data.tomograms[index];
    images = tomogram.slices.map(() => null);
    zoom = 1;
    centre = [tomogram.width / 2 - 0.5, tomogram.height / 2 - 0.5];
    canvas.style.aspectRatio = tomogram.width + " / " + tomogram.height;
    zSlider.max = tomogram.slices.length - 1;
    const scores = (tomogram.picks.score || []).filter((s) => s !== null);
    scoreSlider.disabled = scores.length === 0;
    let low = Infinity, high = -Infinity;
    for (const s of scores) { low = Math.min(low, s); high = Math.max(high, s); }
    const range = high > low ? high - low : 1;
    if (scores.length) { scoreSlider.min = low; scoreSlider.max = low + range; scoreSlider.step = "any"; }
    scoreSlider.value = scoreSlider.min;
    threshold = -Infinity;
    setSlice(fullest());
    table();
    draw();
  }

  function fullest() {
    const count = tomogram.slices.map(() => 0);
    for (const list of [tomogram.picks, tomogram.truth]) {
      if (!list) continue;
      for (let i = 0; i < list.x.length; i++) {
        const reach = 0.6 * classOf(list.label[i]).radius;
        for (let s = 0; s < count.length; s++) if (distance(list.z[i], s) <= reach) count[s]++;
      }
    }
    const best = Math.max(...count);
    return best ? count.indexOf(best) : Math.floor(count.length / 2);
  }

  // distance in z of a particle from the slab that a slice shows
  function distance(z, s) { return Math.max(tomogram.from[s] - z, z - tomogram.to[s], 0); }

  function image(s) {
    if (!images[s]) {
      images[s] = new Image();
      images[s].onload = () => { if (s === slice) draw(); };
      images[s].src = "data:image/jpeg;base64," + tomogram.slices[s];
    }
    return images[s];
  }

  function setSlice(s) {
    slice = Math.min(Math.max(Math.round(s), 0), tomogram.slices.length - 1);
    zSlider.value = slice;
    const from = tomogram.from[slice], to = tomogram.to[slice];
    byId("z-value").textContent = (from === to ? from : from + "–" + to) + " of 0…" + (tomogram.depth - 1);
    for (const near of [slice + 1, slice - 1]) if (tomogram.slices[near]) image(near);
  }

  function setScore(value) {
    threshold = scoreSlider.disabled || Number(value) <= Number(scoreSlider.min) ? -Infinity : Number(value);
    scoreSlider.value = value;
  }

  const scale = () => (canvas.width / tomogram.width) * zoom;
  // voxel → canvas pixel; y points up, as in IMOD and in the figures
  const toX = (x) => canvas.width / 2 + (x - centre[0]) * scale();
  const toY = (y) => canvas.height / 2 - (y - centre[1]) * scale();

  function draw() {
    const dpr = window.devicePixelRatio || 1;
    const width = Math.max(1, Math.round(stage.clientWidth * dpr));
    const height = Math.max(1, Math.round((width * tomogram.height) / tomogram.width));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    stage.classList.toggle("zoomed", zoom > 1);
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    const picture = image(slice);
    if (picture.complete && picture.naturalWidth) {
      context.filter = "contrast(" + contrastSlider.value + "%)";
      context.imageSmoothingQuality = "high";
      context.drawImage(picture, toX(-0.5), toY(tomogram.height - 0.5), tomogram.width * scale(), tomogram.height * scale());
      context.filter = "none";
    }
    overlay(dpr);
    scaleBar(dpr);
    publish();
  }

  function overlay(dpr) {
    marks = [];
    const all = byId("all-z").checked, errorsOnly = byId("errors-only").checked;
    const match = tomogram.picks.match, truth = tomogram.truth;
    const found = new Set();
    if (match) match.forEach((t, i) => { if (t >= 0 && passes(i)) found.add(t); });
    if (truth && byId("show-truth").checked) {
      for (let i = 0; i < truth.x.length; i++) {
        const kind = classOf(truth.label[i]), away = distance(truth.z[i], slice);
        if (!visible.has(kind.label) || (!all && away > kind.radius) || (errorsOnly && found.has(i))) continue;
        const radius = all ? kind.radius : Math.max(Math.sqrt(kind.radius ** 2 - away ** 2), 0.35 * kind.radius);
        ring(toX(truth.x[i]), toY(truth.y[i]), radius * scale(), kind.colour, match && !found.has(i), dpr);
        marks.push({ list: truth, i, kind, what: match ? (found.has(i) ? "true particle, found" : "true particle, missed") : "true particle" });
      }
    }
    if (byId("show-picks").checked) {
      for (let i = 0; i < tomogram.picks.x.length; i++) {
        const kind = classOf(tomogram.picks.label[i]);
        const wrong = match ? match[i] < 0 : false;
        if (!visible.has(kind.label) || !passes(i) || (errorsOnly && !wrong)) continue;
        if (!all && distance(tomogram.picks.z[i], slice) > kind.radius) continue;
        const x = toX(tomogram.picks.x[i]), y = toY(tomogram.picks.y[i]);
        if (wrong) cross(x, y, kind.colour, dpr);
        else if (match) dot(x, y, kind.colour, opacity(i), dpr);
        else {
          // Without truth a pick shows how large its particle is, and by its dot how sure the model is.
          const away = distance(tomogram.picks.z[i], slice);
          const radius = all ? kind.radius : Math.max(Math.sqrt(Math.max(kind.radius ** 2 - away ** 2, 0)), 0.35 * kind.radius);
          ring(x, y, radius * scale(), kind.colour, false, dpr);
          dot(x, y, scoreColour(i, kind.colour), 1, dpr);
        }
        marks.push({ list: tomogram.picks, i, kind, pick: true, what: match ? (wrong ? "false pick" : "correct pick") : "pick" });
      }
    }
  }

  // A pick's score within the tomogram's range, by the colours of matplotlib's viridis; the class's where it has none.
  function scoreColour(i, fallback) {
    const low = Number(scoreSlider.min), high = Number(scoreSlider.max), score = scoreOf(i);
    if (score === Infinity || high <= low) return fallback;
    const share = Math.min(Math.max((score - low) / (high - low), 0), 1) * (data.scoreColours.length - 1);
    return data.scoreColours[Math.round(share)];
  }

  function opacity(i) {
    const low = Number(scoreSlider.min), high = Number(scoreSlider.max), score = scoreOf(i);
    return scoreSlider.disabled || score === Infinity ? 1 : 0.4 + (0.6 * (score - low)) / (high - low);
  }
  function stroke(colour, width) { context.strokeStyle = colour; context.lineWidth = width; context.stroke(); }
  function ring(x, y, radius, colour, dashed, dpr) {
    context.beginPath();
    context.arc(x, y, Math.max(radius, 2 * dpr), 0, 2 * Math.PI);
    context.setLineDash(dashed ? [4 * dpr, 3.5 * dpr] : []);
    stroke("rgba(255,255,255,0.8)", 4 * dpr);
    stroke(colour, 2.2 * dpr);
    context.setLineDash([]);
  }
  function dot(x, y, colour, alpha, dpr) {
    context.globalAlpha = alpha;
    context.beginPath();
    context.arc(x, y, 4 * dpr, 0, 2 * Math.PI);
    context.fillStyle = colour;
    context.fill();
    stroke("#fff", 1.3 * dpr);
    context.globalAlpha = 1;
  }
  function cross(x, y, colour, dpr) {
    const arm = 5 * dpr;
    context.beginPath();
    context.moveTo(x - arm, y - arm); context.lineTo(x + arm, y + arm);
    context.moveTo(x + arm, y - arm); context.lineTo(x - arm, y + arm);
    context.lineCap = "round";
    stroke("#fff", 5.5 * dpr);
    stroke(colour, 2.8 * dpr);
  }

  function scaleBar(dpr) {
    if (!tomogram.voxel) return;
    const nmPerPixel = tomogram.voxel / 10 / scale(), target = (canvas.width / 5) * nmPerPixel;
    const nice = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000];
    const nm = nice.reduce((a, b) => (Math.abs(Math.log(b / target)) < Math.abs(Math.log(a / target)) ? b : a));
    const x = 14 * dpr, y = canvas.height - 14 * dpr, length = nm / nmPerPixel;
    context.font = 12 * dpr + "px system-ui, sans-serif";
    context.fillStyle = "#fff"; context.strokeStyle = "#000"; context.lineWidth = 3 * dpr; context.textAlign = "center";
    context.strokeRect(x, y - 4 * dpr, length, 4 * dpr);
    context.fillRect(x, y - 4 * dpr, length, 4 * dpr);
    context.strokeText(nm + " nm", x + length / 2, y - 9 * dpr);
    context.fillText(nm + " nm", x + length / 2, y - 9 * dpr);
  }

  // numbers over the whole tomogram at the present threshold
  function table() {
    const truth = tomogram.truth, match = tomogram.picks.match, body = byId("counts");
    body.replaceChildren();
    const head = element("tr", undefined, body);
    (match ? ["", "picks", "true", "P", "R", "F1"] : ["", "picks"]).forEach((text) => element("th", text, head));
    const ratio = (a, b) => (b ? (a / b).toFixed(2) : "–");
    const shown = [...classes];
    if (tomogram.picks.label.includes(0) || (truth && truth.label.includes(0))) shown.push(unknown);
    for (const kind of shown) {
      let picked = 0, hits = 0;
      tomogram.picks.label.forEach((label, i) => {
        if (label !== kind.label || !passes(i)) return;
        picked++;
        if (match && match[i] >= 0) hits++;
      });
      const real = truth ? truth.label.filter((label) => label === kind.label).length : 0;
      const row = element("tr", undefined, body), label = element("label", undefined, element("td", undefined, row));
      const box = element("input", undefined, label);
      box.type = "checkbox";
      box.checked = visible.has(kind.label);
      box.dataset.label = kind.label;
      box.addEventListener("change", () => { box.checked ? visible.add(kind.label) : visible.delete(kind.label); draw(); });
      element("span", undefined, label).className = "swatch";
      label.lastChild.style.background = kind.colour;
      element("span", kind.name, label);
      const cells = match ? [picked, real, ratio(hits, picked), ratio(hits, real), ratio(2 * hits, picked + real)] : [picked];
      cells.forEach((text) => element("td", text, row));
    }
    byId("score-value").textContent =
      scoreSlider.disabled ? "picks carry no score" : threshold === -Infinity ? "all" : "≥ " + threshold.toFixed(2);
  }

  // what is drawn, readable by scripts and assistive technology
  function publish() {
    const picks = marks.filter((m) => m.pick).length;
    canvas.dataset.picks = picks;
    canvas.dataset.truth = marks.length - picks;
    canvas.dataset.slice = slice;
    canvas.setAttribute("aria-label", tomogram.name + ", slice " + slice + ": " + picks + " picks, " + (marks.length - picks) + " true particles drawn");
    byId("drawn").textContent = picks + " picks" + (tomogram.truth ? " and " + (marks.length - picks) + " true particles" : "") + " drawn";
  }

  function place(event) {
    const box = canvas.getBoundingClientRect(), ratio = canvas.width / box.width;
    return [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
  }
  function hover(event) {
    const [px, py] = place(event), near = 14 * (canvas.width / canvas.clientWidth);
    let best = null, least = near;
    for (const mark of marks) {
      const away = Math.hypot(toX(mark.list.x[mark.i]) - px, toY(mark.list.y[mark.i]) - py) - (mark.pick ? 1 : 0);
      if (away < least) { least = away; best = mark; }
    }
    const x = centre[0] + (px - canvas.width / 2) / scale(), y = centre[1] - (py - canvas.height / 2) / scale();
    let text = "x " + x.toFixed(0) + ", y " + y.toFixed(0) + ", z " + tomogram.from[slice];
    if (best) {
      const { list, i } = best, score = best.pick && scoreOf(i) !== Infinity ? ", score " + scoreOf(i).toFixed(3) : "";
      text = best.what + ": " + best.kind.name + score + ", at x " + list.x[i] + ", y " + list.y[i] + ", z " + list.z[i];
    }
    byId("hint").textContent = text;
  }
  function setZoom(value) {
    zoom = Math.min(Math.max(value, 1), 16);
    pan(0, 0);
  }
  function pan(dx, dy) {
    const half = [tomogram.width / 2 / zoom, tomogram.height / 2 / zoom];
    centre = [centre[0] - dx / scale(), centre[1] + dy / scale()].map((c, k) => {
      const size = k ? tomogram.height : tomogram.width;
      return Math.min(Math.max(c, half[k] - 0.5), size - 0.5 - half[k]);
    });
    draw();
  }
  const move = (by) => { setSlice(slice + by); draw(); };

  data.tomograms.forEach((t, i) => { element("option", t.name, chooser).value = i; });
  byId("tomogram-row").hidden = data.tomograms.length < 2;
  chooser.addEventListener("change", () => load(Number(chooser.value)));
  zSlider.addEventListener("input", () => { setSlice(Number(zSlider.value)); draw(); });
  scoreSlider.addEventListener("input", () => { setScore(scoreSlider.value); table(); draw(); });
  contrastSlider.addEventListener("input", () => { byId("contrast-value").textContent = contrastSlider.value + " %"; draw(); });
  for (const id of ["show-truth", "show-picks", "errors-only", "all-z"]) byId(id).addEventListener("change", draw);
  byId("zoom-in").addEventListener("click", () => setZoom(zoom * 1.5));
  byId("zoom-out").addEventListener("click", () => setZoom(zoom / 1.5));
  byId("zoom-reset").addEventListener("click", () => setZoom(1));
  stage.addEventListener("keydown", (event) => {
    const action = {
      ArrowUp: () => move(1), ArrowRight: () => move(1), ArrowDown: () => move(-1), ArrowLeft: () => move(-1),
      PageUp: () => move(10), PageDown: () => move(-10), Home: () => move(-1e9), End: () => move(1e9),
      "+": () => setZoom(zoom * 1.5), "=": () => setZoom(zoom * 1.5), "-": () => setZoom(zoom / 1.5), "0": () => setZoom(1),
    }[event.key];
    if (action && !event.ctrlKey && !event.metaKey && !event.altKey) { event.preventDefault(); action(); }
  });
  canvas.addEventListener("pointerdown", (event) => { stage.focus(); if (zoom > 1) { drag = place(event); canvas.setPointerCapture(event.pointerId); } });
  canvas.addEventListener("pointermove", (event) => {
    if (drag) { const now = place(event); pan(now[0] - drag[0], now[1] - drag[1]); drag = now; } else hover(event);
  });
  canvas.addEventListener("pointerup", () => { drag = null; });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("dblclick", () => setZoom(zoom > 1 ? 1 : 2));
  if (window.ResizeObserver) new ResizeObserver(draw).observe(stage);
  load(0);
})();

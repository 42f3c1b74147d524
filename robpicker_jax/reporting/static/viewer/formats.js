// Lists as text, in the formats of `robpicker_jax.annotations`: x y z in voxels, the centre of the first voxel at 0.
// Numbers are written so that they read back as the same numbers.
function makeFormats(tomogram, given) {
  // The scores of an audit are those of suspicions, which are none of particles.
  const items = tomogram.picks.kind ? given.map((item) => ({ ...item, score: null })) : given;
  const rotations = tomogram.picks.rotations;
  const angles = (item, how) => (rotations && !item.added && rotations[how][item.i]) || null;
  const sizes = tomogram.picks.size;
  const size = (item) => (sizes && !item.added ? sizes[item.i] : 0);
  const name = (item) => (item.label ? classOf(item.label).name : "");
  const hasScores = items.some((item) => item.score !== null);
  const markup = (text) => String(text)
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, "")
    .replace(/[&<>"\t\n\r]/g, (c) => "&#" + c.charCodeAt(0) + ";");

  function xml() {
    const lines = items.map((item) => {
      const [x, y, z] = item.at, euler = angles(item, "deepfinder");
      const attributes = { tomo_idx: tomogram.name, class_label: item.label, class_name: name(item), x, y, z };
      if (euler) [attributes.phi, attributes.psi, attributes.the] = euler;
      if (size(item)) attributes.cluster_size = size(item);
      if (item.score !== null) attributes.score = item.score;
      return "  <object " + Object.entries(attributes).map(([key, value]) => key + '="' + markup(value) + '"').join(" ") + " />";
    });
    return ["<?xml version='1.0' encoding='utf-8'?>", "<objlist>", ...lines, "</objlist>", ""].join("\n");
  }

  // RELION 4's form. What its readers cannot quote is replaced, as `annotations.star` does.
  function star() {
    const text = (value) => {
      const plainText = value.replace(/["'#\u0000-\u001f\u007f\u0085\u2028\u2029]/g, "_");
      return plainText === "" || /\s/.test(plainText) || /^[_$[\]]/.test(plainText) ? '"' + plainText + '"' : plainText;
    };
    const known = Boolean(rotations), blocks = [];
    if (tomogram.voxel) {
      blocks.push(loop("optics", ["rlnOpticsGroup", "rlnOpticsGroupName", "rlnTomoTiltSeriesPixelSize"], [[1, "opticsGroup1", tomogram.voxel]]));
    }
    const columns = ["rlnTomoName", "rlnCoordinateX", "rlnCoordinateY", "rlnCoordinateZ"];
    if (known) columns.push("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rpkOrientationKnown");
    columns.push("rlnClassNumber", "rlnParticleName");
    if (hasScores) columns.push("rlnAutopickFigureOfMerit");
    if (sizes) columns.push("rpkClusterSize");
    if (tomogram.voxel) columns.push("rlnOpticsGroup");
    blocks.push(loop("particles", columns, items.map((item) => {
      const row = [text(tomogram.name), ...item.at], euler = angles(item, "relion");
      if (known) row.push(...(euler || [0, 0, 0]), euler ? 1 : 0);
      row.push(item.label, text(name(item)));
      if (hasScores) row.push(item.score === null ? "nan" : item.score);
      if (sizes) row.push(size(item));
      if (tomogram.voxel) row.push(1);
      return row;
    })));
    return blocks.join("\n");
  }

  function loop(block, columns, rows) {
    const head = columns.map((column, i) => "_" + column + " #" + (i + 1));
    return ["data_" + block, "", "loop_", ...head, ...rows.map((row) => row.join("\t")), "", ""].join("\n");
  }

  function csv() {
    const cell = (value) => (/[",\n\r]/.test(String(value)) ? '"' + String(value).replace(/"/g, '""') + '"' : String(value));
    const columns = ["tomogram", "class_label", "class_name", "x_vox", "y_vox", "z_vox"];
    if (rotations) columns.push("phi", "psi", "the");
    if (hasScores) columns.push("score");
    if (sizes) columns.push("cluster_size");
    const rows = items.map((item) => {
      const row = [tomogram.name, item.label, name(item), ...item.at];
      if (rotations) row.push(...(angles(item, "deepfinder") || ["", "", ""]));
      if (hasScores) row.push(item.score === null ? "" : item.score);
      if (sizes) row.push(size(item));
      return row.map(cell).join(",");
    });
    return [columns.join(","), ...rows, ""].join("\n");
  }

  // copick keeps one object of one run in a file: pairs of a file's name and its text.
  function copick() {
    const groups = new Map();
    for (const item of items) groups.set(item.label, [...(groups.get(item.label) || []), item]);
    return [...groups].map(([label, group]) => {
      const object = label ? classOf(label).name : "unknown";
      const oriented = group.every((item) => angles(item, "matrix"));
      const points = group.map((item) => {
        const r = angles(item, "matrix") || [1, 0, 0, 0, 1, 0, 0, 0, 1];
        const [x, y, z] = item.at.map((value) => value * tomogram.voxel);
        const rows = [0, 3, 6].map((k) => [r[k], r[k + 1], r[k + 2], 0]);
        return { location: { x, y, z }, transformation_: [...rows, [0, 0, 0, 1]], instance_id: 0, score: item.score === null ? 1 : item.score };
      });
      const content = {
        pickable_object_name: object, user_id: "review", session_id: "1", run_name: tomogram.name,
        voxel_spacing: tomogram.voxel, unit: "angstrom", points, trust_orientation: oriented,
      };
      return ["review_1_" + object.replace(/[^\p{L}\p{N}.-]/gu, "-").replace(/^\.+/, "") + ".json", JSON.stringify(content, null, 2) + "\n"];
    });
  }

  return { xml, star, csv, copick };
}

// The decisions on every tomogram with edits, in the form of `robpicker_jax.reviewing.decisions`.
function decisionsText() {
  const tomograms = data.tomograms.map(reviewOf).filter((review) => review.edits.length || Object.keys(review.thresholds).length);
  return JSON.stringify({
    review: 1,
    run: data.run,
    classes: data.classes.map((c) => c.name),
    tomograms: tomograms.map((review) => ({
      name: review.tomogram.name,
      list: review.tomogram.list,
      voxel_size_angstrom: review.tomogram.voxel,
      shape_zyx: review.tomogram.shape,
      min_scores: Object.fromEntries(Object.entries(review.thresholds).map(([label, value]) => [classOf(Number(label)).name, value])),
      edits: review.edits,
    })),
  }, null, 1) + "\n";
}

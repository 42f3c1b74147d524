// Densities of the tomogram that is shown. The page holds slices x–y alone; the other two sections are cut from these once
// all of them have been read, which goes on in the background.
function makeVolume(tomogram, onChange) {
  const images = tomogram.slices.map(() => null);
  const thickness = tomogram.to[0] - tomogram.from[0] + 1;  // voxels of z that a slice is the mean of
  let voxels = null, width = 0, height = 0, read = 0, stopped = false;

  function image(s) {
    if (!images[s]) {
      images[s] = new Image();
      images[s].onload = onChange;
      images[s].src = "data:image/jpeg;base64," + tomogram.slices[s];
    }
    return images[s];
  }

  async function readAll() {
    const canvas = document.createElement("canvas");
    let context = null;
    for (let s = 0; s < images.length && !stopped; s++) {
      const picture = image(s);
      try { await picture.decode(); } catch { continue; }
      if (stopped) return;
      if (!context) {
        [width, height] = [picture.naturalWidth, picture.naturalHeight];
        [canvas.width, canvas.height] = [width, height];
        context = canvas.getContext("2d", { willReadFrequently: true });
        voxels = new Uint8Array(width * height * images.length);
      }
      context.drawImage(picture, 0, 0);
      const pixels = context.getImageData(0, 0, width, height).data, base = s * width * height;
      for (let i = 0, p = 0; i < width * height; i++, p += 4) voxels[base + i] = pixels[p];
      read = s + 1;
    }
    if (!stopped) onChange();
  }

  // The slice that a position lies in.
  function slice(z) {
    const s = tomogram.to.findIndex((last) => z <= last + 0.5);
    return s < 0 ? images.length - 1 : s;
  }

  // A section across the slices as a picture: rows from the top, voxels as they are stored.
  function across(axis, position) {
    if (!voxels || read < images.length) return null;
    const depth = images.length, canvas = document.createElement("canvas");
    const row = clamp(Math.floor(((tomogram.height - 1 - position + 0.5) * height) / tomogram.height), 0, height - 1);
    const column = clamp(Math.floor(((position + 0.5) * width) / tomogram.width), 0, width - 1);
    [canvas.width, canvas.height] = axis === 1 ? [width, depth] : [depth, height];
    const context = canvas.getContext("2d"), picture = context.createImageData(canvas.width, canvas.height);
    for (let s = 0; s < depth; s++) {
      const length = axis === 1 ? width : height;
      for (let k = 0; k < length; k++) {
        const value = voxels[s * width * height + (axis === 1 ? row * width + k : k * width + column)];
        const target = 4 * (axis === 1 ? (depth - 1 - s) * width + k : k * depth + s);
        picture.data[target] = picture.data[target + 1] = picture.data[target + 2] = value;
        picture.data[target + 3] = 255;
      }
    }
    context.putImageData(picture, 0, 0);
    return canvas;
  }

  // The section across an axis at a position: a picture, and the voxels that it covers along z.
  function section(axis, position) {
    if (axis !== 2) return { picture: across(axis, position), depth: images.length * thickness };
    const s = slice(position), picture = image(s);
    for (const near of [s + 1, s - 1]) if (tomogram.slices[near]) image(near);
    return { picture: picture.complete && picture.naturalWidth ? picture : null, depth: tomogram.depth };
  }

  readAll();
  return { section, slice, stop: () => { stopped = true; }, get isRead() { return read === images.length; } };
}

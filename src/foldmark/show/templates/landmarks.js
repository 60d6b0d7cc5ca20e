// What Foldmark does around the net, as in Python: core/geometry.py, data/crops.py, export/looks.py.
// An affine is [a, b, c, d, e, f]: x' = a x + b y + c, y' = d x + e y + f. Points are [[x, y], ...], pixel centres at integers.
// A picture is { data, width, height }, grey.
"use strict";

const Landmarks = (() => {
  const apply = ([a, b, c, d, e, f], points) => points.map(([x, y]) => [a * x + b * y + c, d * x + e * y + f]);

  // The affine that does the second first.
  const compose = ([a, b, c, d, e, f], [p, q, r, s, t, u]) => [
    a * p + b * s, a * q + b * t, a * r + b * u + c,
    d * p + e * s, d * q + e * t, d * r + e * u + f,
  ];

  const invert = ([a, b, c, d, e, f]) => {
    const area = a * e - b * d;
    const [p, q, s, t] = [e / area, -b / area, -d / area, a / area];
    return [p, q, -(p * c + q * f), s, t, -(s * c + t * f)];
  };

  const centre = (points) => {
    const sum = points.reduce(([x, y], [u, v]) => [x + u, y + v], [0, 0]);
    return sum.map((value) => value / points.length);
  };

  // The similarity that lays points onto a target with the least squared distance (Procrustes, without reflection).
  const align = (points, target) => {
    const [x0, y0] = centre(points), [u0, v0] = centre(target);
    let spread = 0, cos = 0, sin = 0;
    points.forEach(([px, py], index) => {
      const x = px - x0, y = py - y0, u = target[index][0] - u0, v = target[index][1] - v0;
      spread += x * x + y * y;
      cos += x * u + y * v;
      sin += x * v - y * u;
    });
    spread = Math.max(spread, 1e-12);
    cos /= spread;
    sin /= spread;
    return [cos, -sin, u0 - (cos * x0 - sin * y0), sin, cos, v0 - (sin * x0 + cos * y0)];
  };

  // Python rounds halves to the even neighbour.
  const round = (value) => {
    const floor = Math.floor(value);
    return value - floor === 0.5 ? floor + (floor % 2 === 0 ? 0 : 1) : Math.round(value);
  };

  const storeSide = (crop) => crop.size[0] + 2 * round((crop.size[0] * (crop.margin - 1)) / 2);

  // Left, top and side in whole pixels of the square about a box [left, top, width, height] that the store crop shows.
  const storeWindow = ([left, top, width, height], crop) => {
    const longer = Math.max(width, height);
    const side = Math.max(1, round(longer * crop.enlargement * (storeSide(crop) / crop.size[0])));
    return [round(left + (width - side) / 2), round(top + crop.down * longer + (height - side) / 2), side];
  };

  const windowToStore = ([left, top, side], crop) => {
    const scale = storeSide(crop) / side;
    return [scale, 0, (0.5 - left) * scale - 0.5, 0, scale, (0.5 - top) * scale - 0.5];
  };

  const centreAffine = (crop) => {
    const shift = (crop.size[0] - storeSide(crop)) / 2;
    return [1, 0, shift, 0, 1, shift];
  };

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  // For each of `count` target pixels the source pixels that it is made of and their shares: by area when it shrinks, else linearly.
  const weights = (side, count) => {
    const scale = side / count;
    return Array.from({ length: count }, (_, index) => {
      if (scale <= 1) {
        const place = (index + 0.5) * scale - 0.5, first = Math.floor(place), share = place - first;
        return [[clamp(first, 0, side - 1), 1 - share], [clamp(first + 1, 0, side - 1), share]];
      }
      const from = index * scale, to = Math.min(side, from + scale), parts = [];
      for (let pixel = Math.floor(from); pixel < to - 1e-9; pixel += 1) {
        parts.push([pixel, (Math.min(to, pixel + 1) - Math.max(from, pixel)) / (to - from)]);
      }
      return parts;
    });
  };

  // Cut a square window out of a picture, padded with its edge pixels, and scale it to a side.
  const cut = ({ data, width, height }, [left, top, side], target) => {
    const shares = weights(side, target), rows = new Map(), out = new Uint8ClampedArray(target * target);
    // Each row of the window once, scaled along x.
    const scaledRow = (row) => {
      const y = clamp(top + row, 0, height - 1);
      if (!rows.has(y)) {
        rows.set(y, Float32Array.from(shares, (parts) =>
          parts.reduce((sum, [pixel, share]) => sum + share * data[y * width + clamp(left + pixel, 0, width - 1)], 0)));
      }
      return rows.get(y);
    };
    shares.forEach((parts, row) => {
      const sums = new Float32Array(target);
      for (const [pixel, share] of parts) scaledRow(pixel).forEach((value, column) => { sums[column] += share * value; });
      out.set(sums, row * target);
    });
    return { data: out, width: target, height: target };
  };

  // Resample a picture to a side by an affine from picture to target; beyond its edges the edge pixels repeat.
  const warp = ({ data, width, height }, affine, side) => {
    const [a, b, c, d, e, f] = invert(affine), out = new Uint8ClampedArray(side * side);
    for (let row = 0; row < side; row += 1) {
      for (let column = 0; column < side; column += 1) {
        const x = a * column + b * row + c, y = d * column + e * row + f;
        const left = Math.floor(x), top = Math.floor(y), right = x - left, down = y - top;
        const x0 = clamp(left, 0, width - 1), x1 = clamp(left + 1, 0, width - 1);
        const y0 = clamp(top, 0, height - 1) * width, y1 = clamp(top + 1, 0, height - 1) * width;
        const upper = data[y0 + x0] * (1 - right) + data[y0 + x1] * right;
        const lower = data[y1 + x0] * (1 - right) + data[y1 + x1] * right;
        out[row * side + column] = upper * (1 - down) + lower * down;
      }
    }
    return { data: out, width: side, height: side };
  };

  // RGBA pixels as grey, as Pillow does it.
  const toGrey = (rgba, width, height) => {
    const data = new Uint8ClampedArray(width * height);
    for (let index = 0, at = 0; index < data.length; index += 1, at += 4) {
      data[index] = (rgba[at] * 19595 + rgba[at + 1] * 38470 + rgba[at + 2] * 7471 + 0x8000) >> 16;
    }
    return { data, width, height };
  };

  // Where another config cuts the same box: store crop to that crop.
  const otherCrop = (crop, other) => {
    const scale = (crop.enlargement / other.enlargement) * (other.size[0] / crop.size[0]);
    const down = ((crop.down - other.down) / other.enlargement) * other.size[1];
    const middle = (other.size[0] - 1 - scale * (crop.size[0] - 1)) / 2;
    return compose([scale, 0, middle, 0, scale, middle + down], centreAffine(crop));
  };

  // Where the net looks first, store crop to crop: about the box, or as the aligner says. run(crop, true) gives the aligner's points.
  const place = async (run, store, facts) => {
    if (!facts.aligner) return centreAffine(facts.crop);
    const storeToOther = otherCrop(facts.crop, facts.aligner);
    const { points } = await run(warp(store, storeToOther, facts.aligner.size[0]), true);
    return align(apply(invert(storeToOther), points), facts.mean_points_crop);
  };

  // One look: points and standard deviations in pixels of the picture, and whether it is unlike the faces that the net learned.
  // run(crop) gives those in crop pixels.
  const look = async (run, store, pxToStore, storeToCrop, facts) => {
    const crop = warp(store, storeToCrop, facts.crop.size[0]);
    const { points, std, unlike } = await run(crop);
    const cropToPx = invert(compose(storeToCrop, pxToStore));
    const scale = Math.sqrt(Math.abs(cropToPx[0] * cropToPx[4] - cropToPx[1] * cropToPx[3]));
    return { points: apply(cropToPx, points), std: Array.from(std, (value) => value * scale), unlike };
  };

  // The face in a box: first as the box, or the aligner, says, then aligned to the mean face.
  const predict = async (run, picture, box, facts) => {
    const window = storeWindow(box, facts.crop), pxToStore = windowToStore(window, facts.crop);
    const store = cut(picture, window, storeSide(facts.crop));
    let face = await look(run, store, pxToStore, await place(run, store, facts), facts);
    for (let again = 1; again < facts.looks; again += 1) {
      const storeToCrop = align(apply(pxToStore, face.points), facts.mean_points_crop);
      face = await look(run, store, pxToStore, storeToCrop, facts);
    }
    return face;
  };

  // The box about which a net cuts a face that lies like these points: the next picture's, where the last one's points are known.
  const boxOf = (points, facts) => {
    const cropToPx = invert(align(points, facts.mean_points_crop)), middle = (facts.crop.size[0] - 1) / 2;
    const [[x, y]] = apply(cropToPx, [[middle, middle]]);
    const longer = (Math.hypot(cropToPx[0], cropToPx[3]) * facts.crop.size[0]) / facts.crop.enlargement;
    return [x + 0.5 - longer / 2, y + 0.5 - facts.crop.down * longer - longer / 2, longer, longer];
  };

  // The next picture of a face that moves: one look, aligned to the points of the last one.
  const track = async (run, picture, last, facts) => {
    const window = storeWindow(boxOf(last, facts), facts.crop), pxToStore = windowToStore(window, facts.crop);
    const store = cut(picture, window, storeSide(facts.crop));
    return look(run, store, pxToStore, align(apply(pxToStore, last), facts.mean_points_crop), facts);
  };

  return { apply, compose, invert, align, storeSide, storeWindow, windowToStore, centreAffine, otherCrop, cut, warp, toGrey, predict, boxOf, track };
})();

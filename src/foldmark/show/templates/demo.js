// The page: a photo or the camera, a box, and the points of the face in it.
"use strict";

const demo = (() => {
  const one = (id) => document.getElementById(id);
  const facts = JSON.parse(one("facts").textContent);
  const view = one("view"), pen = view.getContext("2d", { willReadFrequently: true }), status = one("status");
  // The mean standard deviation, as a share of the face, over which what is seen is taken for no face.
  const LOST = 0.03, LONGEST = 1600, POINTS = "#ff9f1c", DISCS = "#2b7de966";
  // What is shown, and what was found last, be it a face or not; read by the tests.
  const state = { source: null, grey: null, box: null, face: null, found: null, frames: 0, ms: 0, rate: 0, firstPoints: 0 };
  let run = null, picture = null, frame = null, stream = null, drag = null, busy = false, tracked = false;
  const say = (text) => { status.textContent = text; };

  const unpack = async (id) => {
    if (!one(id)) return null;
    const text = atob(one(id).textContent), bytes = new Uint8Array(text.length);
    for (let index = 0; index < text.length; index += 1) bytes[index] = text.charCodeAt(index);
    one(id).remove();
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  const load = async () => {
    const [script, wasm, net, aligner] = await Promise.all(["script", "wasm", "net", "aligner"].map(unpack));
    const ort = await import(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
    // From file:// neither workers nor fetch can be had: one thread, and the binary as it is.
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = wasm;
    const [looks, aligns] = await Promise.all([net, aligner].map((model) =>
      model && ort.InferenceSession.create(model, { executionProviders: ["wasm"] })));
    run = async (crop, byAligner = false) => {
      const input = new ort.Tensor("uint8", new Uint8Array(crop.data.buffer), [1, 1, crop.height, crop.width]);
      const { points_crop: { data }, std_crop: std, unlike } = await (byAligner ? aligns : looks).run({ crops: input });
      const points = Array.from({ length: data.length / 2 }, (_, k) => [data[2 * k], data[2 * k + 1]]);
      return { points, std: std?.data, unlike: unlike?.data[0] > 0 };
    };
    say("Ready.");
  };

  const draw = () => {
    // The picture that the points were found in: the camera's may have moved on.
    if (frame) pen.putImageData(frame, 0, 0);
    else if (picture) pen.drawImage(picture, 0, 0, view.width, view.height);
    const unit = Math.max(view.width, view.height) / 400, box = drag ?? state.box;
    pen.lineWidth = unit;
    pen.strokeStyle = "#ffffffcc";
    if (box && !(tracked && state.source === "camera")) pen.strokeRect(...box);
    if (!state.face || drag) return;
    const { points, std } = state.face, middle = ([x, y]) => [x + 0.5, y + 0.5];
    const disc = (point, radius, colour) => {
      pen.fillStyle = colour;
      pen.beginPath();
      pen.arc(...middle(point), radius, 0, 2 * Math.PI);
      pen.fill();
    };
    if (one("discs").checked) points.forEach((point, k) => disc(point, std[k], DISCS));
    pen.strokeStyle = POINTS;
    for (const line of facts.markup.lines) {
      pen.beginPath();
      line.forEach((k) => pen.lineTo(...middle(points[k])));
      pen.stroke();
    }
    points.forEach((point) => disc(point, 1.3 * unit, POINTS));
  };

  const readGrey = () => {
    pen.fillStyle = "white";
    pen.fillRect(0, 0, view.width, view.height);
    pen.drawImage(picture, 0, 0, view.width, view.height);
    frame = pen.getImageData(0, 0, view.width, view.height);
    return Landmarks.toGrey(frame.data, view.width, view.height);
  };

  const meanStd = ({ std }) => std.reduce((sum, value) => sum + value, 0) / std.length;
  const looksLikeAFace = (face) => !face.unlike && meanStd(face) < LOST * Landmarks.boxOf(face.points, facts)[2];

  const note = (found, face, started) => {
    const now = performance.now();
    Object.assign(state, { found, face, ms: now - started, frames: state.frames + 1, firstPoints: state.firstPoints || now });
  };

  const describe = () => {
    const face = state.face, unsure = face && !looksLikeAFace(face);
    if (!face) return state.source === "camera" ? "Looking for a face: hold it into the box." : "Drag a box over a face.";
    const rate = state.source === "camera" ? `, ${state.rate.toFixed(1)} frames/s` : "";
    return `${facts.markup.count} points in ${state.ms.toFixed(0)} ms${rate}, standard deviation ${meanStd(face).toFixed(1)} px`
      + (unsure ? ". This hardly looks like a face: drag a box from the brows to the chin." : ".");
  };

  // Predict the face in a box of the photo, or from there on of the camera.
  const predict = async (box) => {
    await loading;
    if (!picture) return;
    state.box = box;
    tracked = false;
    const started = performance.now();
    if (!busy) {
      busy = true;
      try {
        if (state.source === "photo") state.grey = readGrey();
        const found = await Landmarks.predict(run, state.grey, box, facts);
        note(found, found, started);
        tracked = looksLikeAFace(found);
      } finally { busy = false; }
    }
    draw();
    say(describe());
  };

  const middleBox = (share) => {
    const side = share * Math.min(view.width, view.height);
    return [(view.width - side) / 2, (view.height - side) / 2, side, side];
  };

  const resize = (width, height, longest) => {
    const scale = Math.min(1, longest / Math.max(width, height));
    view.width = Math.round(width * scale);
    view.height = Math.round(height * scale);
  };

  const openPhoto = async (file) => {
    stop();
    try {
      picture = await createImageBitmap(file);
    } catch {
      say(`${file.name} is no picture that this browser can show.`);
      return;
    }
    Object.assign(state, { source: "photo", face: null, box: null, firstPoints: 0 });
    frame = null;
    resize(picture.width, picture.height, LONGEST);
    draw();
    await predict(middleBox(0.6));
  };

  const step = async (last) => {
    if (!stream) return;
    const started = performance.now();
    if (!drag && !busy && picture.readyState >= 2) {
      busy = true;
      try {
        state.grey = readGrey();
        state.box ??= middleBox(0.5);
        const found = tracked
          ? await Landmarks.track(run, state.grey, state.face.points, facts)
          : await Landmarks.predict(run, state.grey, state.box, facts);
        if (stream) {
          if (tracked && !looksLikeAFace(found)) state.box = middleBox(0.5);
          tracked = looksLikeAFace(found);
          note(found, tracked ? found : null, started);
          state.rate = 0.9 * state.rate + 0.1 * (1000 / (started - last));
        }
      } finally { busy = false; }
      draw();
      say(describe());
    }
    requestAnimationFrame(() => step(started));
  };

  const stop = () => {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    one("camera").textContent = "Start camera";
  };

  const startCamera = async () => {
    await loading;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
    } catch (error) {
      say(`The camera cannot be used (${error.name}); choose a photo instead.`);
      return;
    }
    const video = document.createElement("video");
    Object.assign(video, { srcObject: stream, muted: true, playsInline: true });
    await video.play();
    picture = video;
    Object.assign(state, { source: "camera", face: null, box: null, frames: 0, rate: 0, firstPoints: 0 });
    [frame, tracked] = [null, false];
    resize(video.videoWidth, video.videoHeight, LONGEST);
    one("camera").textContent = "Stop camera";
    step(performance.now() - 100);
  };

  const place = ({ clientX, clientY }) => {
    const { left, top, width, height } = view.getBoundingClientRect();
    return [((clientX - left) * view.width) / width, ((clientY - top) * view.height) / height];
  };

  view.addEventListener("pointerdown", (event) => {
    if (!picture) return;
    view.setPointerCapture(event.pointerId);
    const [x, y] = place(event);
    drag = [x, y, 0, 0];
    const move = (moved) => {
      const [u, v] = place(moved);
      drag = [Math.min(x, u), Math.min(y, v), Math.abs(u - x), Math.abs(v - y)];
      draw();
    };
    view.addEventListener("pointermove", move);
    view.addEventListener("pointerup", () => {
      view.removeEventListener("pointermove", move);
      const box = drag;
      drag = null;
      if (Math.min(box[2], box[3]) >= 8) predict(box);
      else draw();
    }, { once: true });
  });
  one("file").addEventListener("change", ({ target }) => { if (target.files.length) openPhoto(target.files[0]); });
  one("camera").addEventListener("click", () => (stream ? (stop(), say("Camera stopped.")) : startCamera()));
  one("discs").addEventListener("change", draw);
  for (const kind of ["dragover", "drop"]) document.addEventListener(kind, (event) => event.preventDefault());
  document.addEventListener("drop", ({ dataTransfer }) => { if (dataTransfer.files.length) openPhoto(dataTransfer.files[0]); });
  const loading = load().catch((error) => {
    say(`The net cannot be loaded in this browser (${error.message}).`);
    throw error;
  });
  return { state, predict, loading, facts };
})();

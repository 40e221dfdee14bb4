// Pictures: unpack label maps, and paint images, segments and mistakes on canvases.

const VOID_CODE = 1; // codes of truth maps are labels + 2: overlap 0, void 1, background 2, objects from 3
const SCALE = 3; // canvas pixels for each pixel of a picture
const KIND_COLOURS = { right: [0, 158, 115], split: [230, 159, 0], merged: [204, 121, 167], missed: [213, 94, 0], spilled: [86, 180, 233], wrong: [213, 94, 0] };

function bytesOf(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

// The codes of a label map, row by row.
async function unpack(map) {
  const stream = new Blob([bytesOf(map.text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const buffer = await new Response(stream).arrayBuffer();
  if (map.bytes === 1) return new Uint8Array(buffer);
  const view = new DataView(buffer);
  return Uint16Array.from({ length: buffer.byteLength / 2 }, (_, index) => view.getUint16(2 * index, true));
}

async function decodeImage(text) {
  const image = new Image();
  image.src = `data:image/webp;base64,${text}`;
  await image.decode();
  return image;
}

// A sample with its maps unpacked. Of a video, one frame.
async function unpackScene(scene, frame) {
  const part = scene.frames ? scene.frames[frame] : scene;
  const [image, truth, ...maps] = await Promise.all([
    decodeImage(part.image),
    part.truth ? unpack(part.truth) : null,
    ...scene.runs.map((run) => {
      const map = run && !run.error ? (run.maps ? run.maps[frame] : run.map) : null;
      return map ? unpack(map) : null;
    }),
  ]);
  return { height: scene.size[0], width: scene.size[1], image, truth, maps };
}

function paintImage(canvas, picture, dim) {
  canvas.width = picture.width * SCALE;
  canvas.height = picture.height * SCALE;
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.filter = dim ? "grayscale(1) brightness(0.75)" : "none";
  context.drawImage(picture.image, 0, 0, canvas.width, canvas.height);
  context.filter = "none";
  return context;
}

// Colours of pixels over the image. colourOf: position of a pixel to [r, g, b, alpha 0..1], or null to leave it.
function paintPixels(canvas, picture, colourOf, dim) {
  const context = paintImage(canvas, picture, dim);
  const layer = document.createElement("canvas");
  layer.width = picture.width;
  layer.height = picture.height;
  const inner = layer.getContext("2d");
  const pixels = inner.createImageData(picture.width, picture.height);
  for (let place = 0; place < picture.width * picture.height; place += 1) {
    const colour = colourOf(place);
    if (colour) pixels.data.set([colour[0], colour[1], colour[2], Math.round(255 * colour[3])], 4 * place);
  }
  inner.putImageData(pixels, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(layer, 0, 0, canvas.width, canvas.height);
  return context;
}

const colourNumber = (number, palette) => palette[number % palette.length];

// Whether a pixel is shown, when one slot or one object is in focus.
function shown(place, picture, focus) {
  if (!focus) return true;
  return focus.kind === "object" ? picture.truth[place] === focus.code : picture.maps[focus.run]?.[place] === focus.code;
}

const DIMMED = [128, 128, 128, 0.82];

function paintTruth(canvas, picture, page, { opacity = 0.7, focus = null, first = 3 } = {}) {
  paintPixels(canvas, picture, (place) => {
    if (!shown(place, picture, focus)) return DIMMED;
    const code = picture.truth[place];
    if (code <= VOID_CODE) return [255, 255, 255, opacity];
    return code < first ? null : [...colourNumber(code - first, page.palette), opacity];
  }, true);
}

function paintSegments(canvas, picture, run, answer, page, { opacity = 0.7, focus = null, hidden = null } = {}) {
  const map = picture.maps[run];
  paintPixels(canvas, picture, (place) => {
    if (!shown(place, picture, focus)) return DIMMED;
    if (hidden?.has(map[place])) return null;
    const colour = answer.colours[map[place]];
    return colour < 0 ? null : [...colourNumber(colour, page.palette), opacity];
  }, true);
}

function paintMistakes(canvas, picture, run, answer, page, { opacity = 0.7, focus = null } = {}) {
  const map = picture.maps[run];
  const digits = page.kinds.map((name) => KIND_COLOURS[name]);
  paintPixels(canvas, picture, (place) => {
    if (!shown(place, picture, focus)) return DIMMED;
    const label = picture.truth[place] - 2;
    if (label < 0) return [255, 255, 255, opacity];
    const kind = Number(answer.kinds[label]?.[map[place]]);
    const colour = digits[kind];
    if (!colour) return null;
    return [...colour, page.kinds[kind] === "right" ? 0.6 * opacity : Math.min(1, opacity + 0.15)];
  }, true);
}

// Outlines of boxes [left, top, right, bottom, ...] in pixels of the picture.
function paintBoxes(canvas, boxes, colourOf) {
  const context = canvas.getContext("2d");
  context.lineWidth = 2;
  for (const box of boxes) {
    context.strokeStyle = `rgb(${colourOf(box).join(",")})`;
    context.strokeRect(box[0] * SCALE, box[1] * SCALE, (box[2] - box[0]) * SCALE, (box[3] - box[1]) * SCALE);
  }
}

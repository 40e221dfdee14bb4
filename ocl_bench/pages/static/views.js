// One sample: image, truth, and what each run predicted, by the kind of task.

async function paintThumbnail(canvas, scene, page, run) {
  const frame = scene.frames ? Math.floor(scene.frames.length / 2) : 0;
  const picture = await unpackScene(scene, frame);
  const answer = scene.runs[run];
  if (picture.maps[run] && answer.colours) paintSegments(canvas, picture, run, answer, page);
  else paintImage(canvas, picture, false);
}

function panel(caption, label) {
  const canvas = element("canvas", { role: "img", "aria-label": label, width: 3, height: 3 });
  return { canvas, figure: element("figure", {}, canvas, element("figcaption", {}, caption)) };
}

async function showScene(holder, scene, page) {
  await (page.view === "neighbours" ? showNeighbours : showSegments)(holder, scene, page);
}

// Images and videos with segments: panels that share one focus, one opacity, one frame and one least score.
async function showSegments(holder, scene, page) {
  const state = { frame: 0, opacity: 0.7, focus: null, least: 0, first: scene.classes && !scene.background ? 2 : 3 };
  const two = page.runs.length > 1;
  const of = (run) => (two ? ` of ${page.runs[run]}` : "");
  const names = scene.classes ? Object.values(scene.classes) : scene.names;
  const image = panel(scene.frames ? "Frame" : "Image", "the image");
  const truth = panel("Truth", `truth: ${names.length ? names.join(", ") : "the objects in colours"}`);
  const drawn = scene.runs.map((answer, run) => (answer && !answer.error ? {
    run, answer,
    prediction: panel(`Prediction${of(run)}`, `prediction${of(run)}: ${answer.ids.length} segments`),
    mistakes: panel(`Errors${of(run)}`, `errors${of(run)}: ${errorText(answer)}`),
  } : null)).filter(Boolean);
  let picture = await unpackScene(scene, 0);
  const paint = () => {
    paintImage(image.canvas, picture, false);
    if (state.focus) paintPixels(image.canvas, picture, (place) => (shown(place, picture, state.focus) ? null : DIMMED), false);
    paintTruth(truth.canvas, picture, page, state);
    if (scene.boxes) paintBoxes(truth.canvas, scene.boxes, () => [255, 255, 255]);
    for (const { run, answer, prediction, mistakes } of drawn) {
      const hidden = new Set((answer.detections ?? []).filter((one) => one[5] < state.least).map((one) => answer.ids.indexOf(one[0])));
      paintSegments(prediction.canvas, picture, run, answer, page, { ...state, hidden });
      if (answer.detections) paintDetections(prediction.canvas, answer.detections.filter((one) => one[5] >= state.least));
      paintMistakes(mistakes.canvas, picture, run, answer, page, state);
    }
  };
  const focusOn = (focus) => {
    if (JSON.stringify(focus) === JSON.stringify(state.focus)) return;
    state.focus = focus;
    paint();
  };
  followPointer(truth.canvas, () => picture, () => picture.truth, (code) => (code >= state.first ? { kind: "object", code } : null), focusOn);
  for (const { run, prediction } of drawn) followPointer(prediction.canvas, () => picture, () => picture.maps[run], (code) => ({ kind: "slot", run, code }), focusOn);
  const tools = element("div", { class: "tools" });
  if (scene.frames) tools.append(scrubber(scene, async (frame) => { state.frame = frame; picture = await unpackScene(scene, frame); paint(); }));
  tools.append(slider("Opacity", "opacity", state.opacity, (value) => { state.opacity = value; paint(); }));
  if (drawn.some(({ answer }) => answer.detections)) tools.append(slider("Least score", "least", 0, (value) => { state.least = value; paint(); }));
  if (drawn.length) tools.append(element("span", { class: "legend small" }, page.kinds.filter((kind) => kind !== "background").map((kind) => element("span", {}, element("span", { class: `key kind-${kind}` }), kind))));
  if (drawn.some(({ answer }) => answer.detections)) tools.append(element("span", { class: "small muted" }, "Boxes: white ones meet an object at IoU .50, orange ones meet none."));
  const panels = two && drawn.length === 2
    ? [image, drawn[0].prediction, drawn[0].mistakes, truth, drawn[1].prediction, drawn[1].mistakes]
    : [image, truth, ...drawn.flatMap((one) => [one.prediction, one.mistakes])];
  holder.append(tools, element("div", { class: panels.length === 6 ? "panels three" : "panels" }, panels.map((one) => one.figure)));
  scene.runs.forEach((run, number) => { if (run?.error) holder.append(element("p", { class: "muted small" }, `${page.runs[number]}: ${run.error}`)); });
  for (const { run, answer } of drawn) {
    if (two) holder.append(element("h4", {}, page.runs[run]));
    if (answer.detections) holder.append(detectionTable(answer, run, focusOn));
    else holder.append(slotChips(answer, run, scene, page, focusOn));
    if (answer.recognised) holder.append(recognisedTable(answer));
    holder.append(objectList(answer, scene));
  }
  paint();
}

// Detections that meet an object in white, over those that meet none.
function paintDetections(canvas, detections) {
  const [missed, met] = [[], []];
  for (const one of detections) (one[8] === 0 ? missed : met).push(one.slice(1, 5));
  paintBoxes(canvas, missed, () => KIND_COLOURS.wrong, 1);
  paintBoxes(canvas, met, () => [255, 255, 255]);
}

// Calls focusOn with what lies under the pointer.
function followPointer(canvas, pictureNow, mapNow, focusOf, focusOn) {
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const picture = pictureNow();
    const column = Math.floor(((event.clientX - box.left) / box.width) * picture.width);
    const row = Math.floor(((event.clientY - box.top) / box.height) * picture.height);
    const code = mapNow()?.[row * picture.width + column];
    focusOn(code === undefined ? null : focusOf(code));
  });
  canvas.addEventListener("pointerleave", () => focusOn(null));
}

function slider(label, id, value, change) {
  return element("label", {}, label, element("input", { type: "range", id, min: 0, max: 1, step: 0.05, value, oninput: (event) => change(Number(event.target.value)) }));
}

function errorText(answer) {
  const total = Math.max(1, sum(Object.values(answer.pixels)));
  return Object.entries(answer.pixels).filter(([kind]) => kind !== "right" && kind !== "background").map(([kind, pixels]) => `${kind} ${percent(pixels / total)}`).join(", ");
}

const objectName = (scene, label) => scene.classes?.[label] ?? scene.names[label - 1] ?? `object ${label}`;

function swatch(number, page) {
  const key = element("span", { class: "key" });
  if (number >= 0) key.style.background = `rgb(${colourNumber(number, page.palette).join(",")})`;
  return key;
}

const focusing = (focus, focusOn) => ({ onmouseenter: () => focusOn(focus), onmouseleave: () => focusOn(null), onfocus: () => focusOn(focus), onblur: () => focusOn(null) });

// A button for each segment: hover or focus shows it alone on all panels.
function slotChips(answer, run, scene, page, focusOn) {
  const chips = answer.ids.map((id, code) => {
    const owner = answer.owners?.[code];
    const mine = answer.objects.some(([label]) => label === owner);
    const text = answer.classes ? answer.classes[code] : `slot ${id}: ${mine ? objectName(scene, owner) : "background"}`;
    return element("li", {}, element("button", { type: "button", ...focusing({ kind: "slot", run, code }, focusOn) }, swatch(answer.colours[code], page), text));
  });
  return element("ul", { class: "chips", "aria-label": answer.classes ? "Predicted classes" : "Slots" }, chips);
}

function objectList(answer, scene) {
  const count = answer.objects.length;
  const what = scene.classes ? (count === 1 ? "class" : "classes") : count === 1 ? "object" : "objects";
  const rows = answer.objects.map(([label, iou, fragments, size]) => `${objectName(scene, label)}: ${scene.classes ? "IoU" : "best IoU"} ${digits(iou, 2)}, ${percent(size)} of the ${scene.frames ? "frames" : "image"}${scene.classes ? "" : `, ${fragments} segment${fragments === 1 ? "" : "s"}`}`);
  return element("details", {}, element("summary", { class: "small" }, `${count} ${what}; ${errorText(answer)}`), element("ul", { class: "small" }, rows.map((text) => element("li", {}, text))));
}

function table(caption, head, rows) {
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption }, element("table", { class: "small" },
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, rows)));
}

const SHOWN_DETECTIONS = 12;

function detectionTable(answer, run, focusOn) {
  const rows = answer.detections.slice(0, SHOWN_DETECTIONS).map(([number, , , , , score, name, iou, hits]) => {
    const code = answer.ids.indexOf(number);
    const focus = code < 0 ? null : { kind: "slot", run, code };
    const button = element("button", { type: "button", class: "quiet", ...focusing(focus, focusOn) }, name || `detection ${number}`);
    return element("tr", {}, element("th", { scope: "row" }, button), element("td", {}, digits(score)), element("td", {}, digits(iou, 2)), element("td", {}, hits === null ? "–" : hits === 0 ? "no" : `up to IoU ${(0.45 + 0.05 * hits).toFixed(2)}`));
  });
  const more = answer.detections.length > SHOWN_DETECTIONS ? `, of which the best ${SHOWN_DETECTIONS} are listed` : "";
  return table(`${answer.detections.length} detections${more}`, ["Detection", "Score", "Best IoU", "Meets an object"], rows);
}

function recognisedTable(answer) {
  const rows = answer.recognised.map(([name, slot, named, rank, iou]) => element("tr", {},
    element("th", { scope: "row" }, name), element("td", {}, slot === null ? "no slot" : `slot ${slot}`),
    element("td", {}, named.length ? element("span", { class: rank === 1 ? "hit-right" : "hit-wrong" }, named[0]) : "–"),
    element("td", {}, named.slice(1).join(", ") || "–"), element("td", {}, digits(iou, 2))));
  return table("Objects and what their slots are called", ["Object", "Slot", "Called", "Next", "Box IoU"], rows);
}

// One square of a strip of squares.
function paintTile(strip, place, side) {
  const canvas = element("canvas", { "aria-hidden": "true", width: 2 * side, height: 2 * side });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(strip, place * side, 0, side, side, 0, 0, 2 * side, 2 * side);
  return canvas;
}

// The image, its nearest neighbours, and how the classes vote.
async function showNeighbours(holder, scene, page) {
  const image = await decodeImage(scene.image);
  const query = panel(`Class: ${scene.label}`, `the image, of class ${scene.label}`);
  paintImage(query.canvas, { image, height: scene.size[0], width: scene.size[1] }, false);
  const votesOfRuns = element("div", {});
  holder.append(element("div", { class: "query" }, query.figure, votesOfRuns));
  for (const [run, answer] of scene.runs.entries()) {
    if (!answer || answer.error) {
      if (answer) votesOfRuns.append(element("p", { class: "muted small" }, `${page.runs[run]}: ${answer.error}`));
      continue;
    }
    const verdict = element("p", {}, page.runs.length > 1 ? `${page.runs[run]} predicts ` : "Predicted: ", element("span", { class: answer.right ? "hit-right" : "hit-wrong" }, answer.predicted), answer.right ? ", right" : ", wrong");
    const list = element("ol", { class: "neighbours", "aria-label": "Nearest neighbours" });
    const strip = answer.strip && await decodeImage(answer.strip.image);
    for (const [place, [name, cosine, vote, right]] of answer.neighbours.entries()) {
      const canvas = answer.strip?.known[place] ? paintTile(strip, place, answer.strip.side) : null;
      list.append(element("li", {}, canvas, element("div", {}, element("span", { class: right ? "hit-right" : "hit-wrong" }, name), element("div", { class: "muted" }, `${percent(vote)}, cosine ${digits(cosine)}`))));
    }
    const votes = new Map();
    for (const [name, , vote] of answer.neighbours) votes.set(name, (votes.get(name) ?? 0) + vote);
    const text = [...votes].sort((a, b) => b[1] - a[1]).slice(0, 4).map(([name, vote]) => `${name} ${percent(vote)}`).join(", ");
    votesOfRuns.append(verdict, element("p", { class: "small muted" }, `Votes of all ${answer.neighbours.length} neighbours: ${text}.`), list);
  }
}

// A slider over the frames of a video, and a button that plays them.
function scrubber(scene, go) {
  const names = scene.frames.map((frame) => frame.name);
  const text = (frame) => `frame ${names[frame]} (${frame + 1} of ${names.length} shown, ${scene.count} in all)`;
  const output = element("output", { for: "scrubber", class: "number small" }, text(0));
  const slider = element("input", { type: "range", id: "scrubber", min: 0, max: names.length - 1, step: 1, value: 0, "aria-valuetext": `frame ${names[0]}` });
  const show = async (frame) => {
    slider.value = frame;
    slider.setAttribute("aria-valuetext", `frame ${names[frame]}`);
    output.textContent = text(frame);
    await go(frame);
  };
  slider.addEventListener("input", () => show(Number(slider.value)));
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  const play = element("button", { type: "button", id: "play", onclick: () => {
    if (timer) { stop(); return; }
    play.textContent = "Pause";
    timer = setInterval(() => { if (slider.isConnected) show((Number(slider.value) + 1) % names.length); else stop(); }, 250);
  } }, "Play");
  return element("div", { class: "tools" }, play, element("label", {}, "Frame", slider), output);
}

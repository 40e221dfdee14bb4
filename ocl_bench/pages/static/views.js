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
  await (SCENES[page.view] ?? showSegments)(holder, scene, page);
}

const SCENES = { masks: showSegments, frames: showSegments };

// Images and videos with segments: panels that share one focus, one opacity and one frame.
async function showSegments(holder, scene, page) {
  const state = { frame: 0, opacity: 0.7, focus: null };
  const two = page.runs.length > 1;
  const answers = scene.runs.map((run) => (run && !run.error ? run : null));
  const image = panel(scene.frames ? "Frame" : "Image", "the image");
  const truth = panel("Truth", `truth: ${scene.names.length ? scene.names.join(", ") : "the objects in colours"}`);
  const panels = [image, truth];
  const drawn = [];
  answers.forEach((answer, run) => {
    if (!answer) return;
    const who = two ? ` of ${page.runs[run]}` : "";
    const prediction = panel(`Prediction${who}`, `prediction${who}: ${answer.ids.length} segments`);
    const mistakes = panel(element("span", {}, `Errors${who}`), `errors${who}: ${errorText(answer)}`);
    panels.push(prediction, mistakes);
    drawn.push({ run, answer, prediction, mistakes });
  });
  let picture = await unpackScene(scene, 0);
  const paint = () => {
    paintImage(image.canvas, picture, false);
    if (state.focus) paintPixels(image.canvas, picture, (place) => (shown(place, picture, state.focus) ? null : DIMMED), false);
    paintTruth(truth.canvas, picture, page, state);
    for (const { run, answer, prediction, mistakes } of drawn) {
      paintSegments(prediction.canvas, picture, run, answer, page, state);
      paintMistakes(mistakes.canvas, picture, run, answer, page, state);
    }
  };
  const focusOn = (focus) => {
    if (JSON.stringify(focus) === JSON.stringify(state.focus)) return;
    state.focus = focus;
    paint();
  };
  const under = (canvas, map, focusOf) => {
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const column = Math.floor(((event.clientX - box.left) / box.width) * picture.width);
      const row = Math.floor(((event.clientY - box.top) / box.height) * picture.height);
      const code = map()?.[row * picture.width + column];
      focusOn(code === undefined ? null : focusOf(code));
    });
    canvas.addEventListener("pointerleave", () => focusOn(null));
  };
  under(truth.canvas, () => picture.truth, (code) => (code > 2 ? { kind: "object", code } : null));
  for (const { run, prediction } of drawn) under(prediction.canvas, () => picture.maps[run], (code) => ({ kind: "slot", run, code }));
  const tools = element("div", { class: "tools" });
  if (scene.frames) tools.append(scrubber(scene, async (frame) => { state.frame = frame; picture = await unpackScene(scene, frame); paint(); }));
  tools.append(element("label", {}, "Opacity", element("input", { type: "range", id: "opacity", min: 0, max: 1, step: 0.05, value: state.opacity, oninput: (event) => { state.opacity = Number(event.target.value); paint(); } })));
  if (drawn.length) tools.append(element("span", { class: "legend small" }, ...["right", "split", "merged", "missed", "spilled"].map((kind) => element("span", {}, element("span", { class: `key kind-${kind}` }), kind))));
  holder.append(tools, element("div", { class: "panels" }, panels.map((one) => one.figure)));
  scene.runs.forEach((run, number) => { if (run?.error) holder.append(element("p", { class: "muted small" }, `${page.runs[number]}: ${run.error}`)); });
  for (const { run, answer } of drawn) holder.append(...slotChips(answer, run, scene, page, two, focusOn));
  paint();
}

function errorText(answer) {
  const total = sum(Object.values(answer.pixels));
  return ["split", "merged", "missed", "spilled"].map((kind) => `${kind} ${percent(answer.pixels[kind] / total)}`).join(", ");
}

// A button for each segment: hover or focus shows it alone on all panels.
function slotChips(answer, run, scene, page, two, focusOn) {
  const nameOf = (label) => scene.names[label - 1] ?? `object ${label}`;
  const chips = answer.ids.map((id, code) => {
    const owner = answer.owners[code];
    const mine = answer.objects.find(([label]) => label === owner);
    const key = element("span", { class: "key" });
    if (answer.colours[code] >= 0) key.style.background = `rgb(${colourNumber(answer.colours[code], page.palette).join(",")})`;
    const focus = { kind: "slot", run, code };
    return element("li", {}, element("button", { type: "button", onmouseenter: () => focusOn(focus), onmouseleave: () => focusOn(null), onfocus: () => focusOn(focus), onblur: () => focusOn(null) },
      key, `slot ${id}: ${mine ? nameOf(owner) : "background"}`));
  });
  const objects = answer.objects.map(([label, iou, fragments, size]) => `${nameOf(label)}: best IoU ${digits(iou, 2)}, ${percent(size)} of the ${scene.frames ? "frames" : "image"}, ${fragments} segment${fragments === 1 ? "" : "s"}`);
  return [
    element("h4", { class: "small" }, two ? `Slots of ${page.runs[run]}` : "Slots"),
    element("ul", { class: "chips" }, chips),
    element("details", {}, element("summary", { class: "small" }, `${answer.objects.length} objects; ${errorText(answer)}`), element("ul", { class: "small" }, objects.map((text) => element("li", {}, text)))),
  ];
}

// A slider over the frames of a video, and a button that plays them.
function scrubber(scene, go) {
  const names = scene.frames.map((frame) => frame.name);
  const output = element("output", { for: "scrubber", class: "number small" }, `frame ${names[0]}`);
  const slider = element("input", { type: "range", id: "scrubber", min: 0, max: names.length - 1, step: 1, value: 0, "aria-valuetext": `frame ${names[0]}` });
  const show = async (frame) => {
    slider.value = frame;
    slider.setAttribute("aria-valuetext", `frame ${names[frame]}`);
    output.textContent = `frame ${names[frame]} (${frame + 1} of ${names.length} shown, ${scene.count} in all)`;
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

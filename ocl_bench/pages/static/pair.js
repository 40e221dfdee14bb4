// Two runs: each sample as a point, and the samples with the largest gains and losses.

function showPair(page, holder, explorer) {
  const metric = page.samples.metrics.find((one) => one.name === page.main) ?? page.samples.metrics[0];
  if (!metric) return;
  const [first, second] = metric.values;
  const both = first.map((_, index) => index).filter((index) => first[index] !== null && second[index] !== null);
  const gain = (index) => metric.direction * (first[index] - second[index]);
  const open = (index) => { explorer.choose(index, true); document.getElementById("detail").scrollIntoView({ block: "start" }); };
  holder.replaceChildren(scatter(page, metric, both, open), extremes(page, metric, both, gain, open));
}

function scatter(page, metric, both, open) {
  const [first, second] = metric.values;
  const size = 340;
  const pad = 52;
  const [low, high] = extent(both.flatMap((index) => [first[index], second[index]]));
  const at = (value) => pad + ((size - pad - 10) * (value - low)) / (high - low);
  const x = (index) => at(second[index]);
  const y = (index) => size - at(first[index]);
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low));
  const better = both.filter((index) => metric.direction * (first[index] - second[index]) > 0).length;
  const label = `${metric.name} of ${page.runs[0]} against ${page.runs[1]}: ${page.runs[0]} is better on ${better} of ${both.length} ${page.unit}`;
  const svg = drawing("svg", { viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": label });
  for (const tick of ticks) {
    svg.append(
      drawing("line", { class: "grid", x1: at(tick), x2: at(tick), y1: 10, y2: size - pad }),
      drawing("line", { class: "grid", x1: pad, x2: size - 10, y1: size - at(tick), y2: size - at(tick) }),
      drawing("text", { x: at(tick), y: size - pad + 16, "text-anchor": "middle" }, digits(tick, 2)),
      drawing("text", { x: pad - 6, y: size - at(tick) + 4, "text-anchor": "end" }, digits(tick, 2)));
  }
  svg.append(drawing("line", { class: "rule", x1: pad, y1: size - pad, x2: size - 10, y2: 10 }));
  for (const index of both) {
    svg.append(drawing("circle", { class: "dot run0", cx: x(index).toFixed(1), cy: y(index).toFixed(1), r: 3.2, onclick: () => open(index) }, drawing("title", {}, `${page.samples.ids[index]}: ${digits(first[index])} and ${digits(second[index])}`)));
  }
  svg.append(
    drawing("text", { x: (size + pad) / 2, y: size - pad + 36, "text-anchor": "middle" }, `${metric.name} of ${page.runs[1]}`),
    drawing("text", { transform: `translate(10 ${(size - pad) / 2}) rotate(-90)`, "text-anchor": "middle" }, `${metric.name} of ${page.runs[0]}`));
  return element("figure", { class: "scatter" }, svg, element("figcaption", { class: "small muted" }, `${page.runs[0]} is better above the line: ${better} of ${both.length} ${page.unit}.`));
}

const EXTREMES = 4;

function extremes(page, metric, both, gain, open) {
  const order = [...both].sort((a, b) => gain(b) - gain(a));
  const list = (title, chosen) => element("section", { "aria-label": title }, element("h3", {}, title), chosen.length ? null : element("p", { class: "muted" }, "None."), element("ul", {}, chosen.map((index) => {
    const two = element("div", { class: "two" });
    fillTwo(two, page, index);
    const [a, b] = metric.values.map((values) => digits(values[index], 2));
    return element("li", {}, element("button", { type: "button", onclick: () => open(index) }, two, element("span", {}, `${a} against ${b}`), element("span", { class: "muted" }, page.samples.ids[index])));
  })));
  return element("div", { class: "extremes" },
    list(`Largest gains of ${page.runs[0]}`, order.filter((index) => gain(index) > 0).slice(0, EXTREMES)),
    list(`Largest losses of ${page.runs[0]}`, order.filter((index) => gain(index) < 0).reverse().slice(0, EXTREMES)));
}

async function fillTwo(holder, page, index) {
  const scene = await picturesOf(page, index).catch(() => null);
  if (!scene || scene.error) return;
  for (const run of [0, 1]) {
    const canvas = element("canvas", { "aria-hidden": "true" });
    holder.append(canvas);
    await paintThumbnail(canvas, scene, page, run);
  }
}

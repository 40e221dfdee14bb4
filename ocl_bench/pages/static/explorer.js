// The explorer: sort, filter, page through the samples, and show one of them.

const PAGE_SIZE = 24;
const MOST_PARTS = 16; // of about 4 MB in memory
const partCache = new Map();

// The pictures of one sample: from the page, or from a file beside it.
async function picturesOf(page, index) {
  if (page.pictures.length) return page.pictures[index];
  const file = page.files.find((one) => index >= one.first && index < one.first + one.count);
  if (!file) return null;
  if (!partCache.has(file.file)) {
    if (partCache.size >= MOST_PARTS) partCache.delete(partCache.keys().next().value); // the oldest, so that memory stays small
    partCache.set(file.file, loadPart(file.file));
  }
  return (await partCache.get(file.file))[index - file.first];
}

function loadPart(file) {
  return new Promise((resolve, reject) => {
    const frame = element("iframe", { hidden: true, title: "pictures of the report" });
    const done = (act, value) => { window.removeEventListener("message", listen); frame.remove(); act(value); };
    const listen = (event) => { if (event.source === frame.contentWindow && event.data?.pictures) done(resolve, event.data.pictures); };
    window.addEventListener("message", listen);
    frame.addEventListener("load", () => setTimeout(() => done(reject, new Error(`${file} is missing beside the page`)), 3000));
    frame.src = file;
    document.body.append(frame);
  });
}

// How ids stand in the gallery: their ends, which tell them apart.
const shortened = (id) => (id.length > 10 ? `…${id.slice(-8)}` : id);

function columnsOf(page) {
  const samples = page.samples;
  const of = (entry, run, name) => ({ name, direction: entry.direction, meaning: entry.meaning, values: entry.values[run] });
  const columns = [];
  for (const entry of [...samples.metrics, ...samples.mistakes]) {
    page.runs.forEach((who, run) => columns.push(of(entry, run, page.runs.length > 1 ? `${entry.name} of ${who}` : entry.name)));
    if (page.runs.length > 1) {
      const values = entry.values[0].map((value, index) => (value === null || entry.values[1][index] === null ? null : entry.direction * (value - entry.values[1][index])));
      columns.push({ name: `gain in ${entry.name}`, direction: 1, meaning: "first minus second, positive is better for the first", values });
    }
  }
  for (const [name, values] of Object.entries(samples.properties)) columns.push({ name: page.view === "classes" && name === "objects" ? "classes" : name, direction: 1, meaning: name, values });
  for (const column of columns) column.places = column.values.every((value) => value === null || Number.isInteger(value)) ? 0 : 3;
  return columns;
}

class Explorer {
  constructor(page, holder) {
    this.page = page;
    this.columns = columnsOf(page);
    this.state = { column: 0, worst: true, bin: null, text: "", ranges: {}, start: 0, chosen: null, failed: false };
    this.build(holder);
    this.readHash();
    window.addEventListener("hashchange", () => this.readHash());
    this.update();
  }

  build(holder) {
    this.status = element("p", { class: "small muted", role: "status", "aria-live": "polite" });
    this.bars = element("div", { class: "histogram", role: "group", "aria-label": "Histogram; choose a bar to filter" });
    this.axis = element("div", { class: "histogram-axis", "aria-hidden": "true" });
    this.list = element("ul", { class: "gallery", "aria-label": "Samples" });
    this.pager = element("nav", { class: "pager", "aria-label": "Pages of samples" });
    this.detail = element("div", { class: "detail", id: "detail", tabindex: -1, role: "region", "aria-label": "Chosen sample" });
    holder.replaceChildren(this.controls(), this.bars, this.axis, this.status, element("div", { class: "browser" }, element("div", {}, this.list, this.pager), this.detail));
  }

  controls() {
    const set = (change) => { Object.assign(this.state, change, { start: 0 }); this.update(); };
    const sort = element("select", { id: "sort", onchange: (event) => set({ column: Number(event.target.value), bin: null }) },
      this.columns.map((column, index) => element("option", { value: index }, column.name)));
    this.order = element("button", { type: "button", id: "order", onclick: () => set({ worst: !this.state.worst }) });
    const field = (label, id, ...inputs) => element("div", { class: "field" }, element("label", { for: id }, label), ...inputs);
    const range = (name, values) => {
      const known = values.filter((value) => value !== null);
      const whole = known.every(Number.isInteger);
      const input = (end) => element("input", {
        type: "number", id: `${name}-${end}`, step: whole ? 1 : "any", min: 0, placeholder: digits(end === "min" ? Math.min(...known) : Math.max(...known), whole ? 0 : 2),
        "aria-label": `${name}, ${end === "min" ? "least" : "most"}`,
        oninput: (event) => {
          const value = event.target.value === "" ? null : Number(event.target.value);
          set({ ranges: { ...this.state.ranges, [name]: { ...this.state.ranges[name], [end]: value } } });
        },
      });
      return field({ objects: this.page.view === "classes" ? "Classes" : "Objects", size: "Object size", contact: "Contact" }[name] ?? name, `${name}-min`, element("div", { class: "range" }, input("min"), "–", input("max")));
    };
    const ranges = Object.entries(this.page.samples.properties).map(([name, values]) => range(name, values));
    const search = element("input", { type: "search", id: "search", oninput: (event) => set({ text: event.target.value.toLowerCase() }) });
    const failures = Object.keys(this.page.samples.errors).length;
    const failed = failures ? element("button", { type: "button", id: "failed", "aria-pressed": "false", onclick: (event) => {
      set({ failed: !this.state.failed });
      event.target.setAttribute("aria-pressed", String(this.state.failed));
    } }, `${failures} failed`) : null;
    const reset = element("button", { type: "button", id: "reset", onclick: () => {
      this.form.querySelectorAll("input").forEach((one) => { one.value = ""; });
      failed?.setAttribute("aria-pressed", "false");
      set({ bin: null, text: "", ranges: {}, failed: false });
    } }, "Reset");
    const first = this.columns.length ? [field("Sort by", "sort", element("div", { class: "range" }, sort, this.order))] : [];
    this.form = element("div", { class: "controls", role: "search", "aria-label": "Sort and filter samples" }, ...first, ...ranges, field("Id contains", "search", search), failed, reset);
    return this.form;
  }

  // Positions of the samples that pass the filters, apart from the bar of the histogram.
  filtered() {
    const { samples } = this.page;
    const { text, ranges, failed } = this.state;
    return samples.ids.map((_, index) => index).filter((index) => {
      const id = samples.ids[index];
      if (failed && !samples.errors[id]) return false;
      if (text && !id.toLowerCase().includes(text)) return false;
      return Object.entries(ranges).every(([name, { min = null, max = null }]) => {
        const value = samples.properties[name][index];
        return (min === null && max === null) || (value !== null && (min === null || value >= min) && (max === null || value <= max));
      });
    });
  }

  update() {
    const column = this.columns[this.state.column];
    const passed = this.filtered();
    let found = passed;
    if (column) {
      const bins = binsOf(passed.map((index) => column.values[index]));
      histogram(this.bars, bins, this.state.bin, column.name, (bin) => { this.state.bin = bin; this.state.start = 0; this.update(); this.bars.querySelector('[tabindex="0"]')?.focus(); });
      this.axis.replaceChildren(...(bins.length ? [element("span", {}, digits(bins[0].low, 2)), element("span", {}, column.name), element("span", {}, digits(bins.at(-1).high, 2))] : []));
      if (this.state.bin) found = passed.filter((index) => inBin(column.values[index], this.state.bin));
      const sign = (this.state.worst ? 1 : -1) * column.direction;
      found = [...found].sort((a, b) => {
        const [x, y] = [column.values[a], column.values[b]];
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return sign * (x - y) || a - b;
      });
      this.order.textContent = this.state.worst ? "Worst first" : "Best first";
    }
    this.found = found;
    this.status.textContent = `${found.length} of ${this.page.samples.ids.length} ${this.page.unit}`;
    this.showPage();
    if (this.state.chosen === null && found.length) this.choose(found[0], false);
  }

  showPage() {
    const { start } = this.state;
    const column = this.columns[this.state.column];
    const shown = this.found.slice(start, start + PAGE_SIZE);
    const buttons = shown.map((index, place) => {
      const id = this.page.samples.ids[index];
      const error = this.page.samples.errors[id];
      const canvas = this.page.pictures.some(Boolean) || this.page.files.length ? element("canvas", { width: 1, height: 1, "aria-hidden": "true" }) : null;
      if (canvas) this.thumbnail(canvas, index);
      const value = error ? "failed" : column ? digits(column.values[index], column.places) : "";
      return element("button", {
        type: "button", "data-index": index, "aria-current": String(index === this.state.chosen), title: id, "aria-label": `${id}, ${column?.name ?? ""} ${value}`,
        onclick: () => this.choose(index, true),
        onkeydown: (event) => {
          const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
          const next = step && buttons[place + step];
          if (next) { event.preventDefault(); next.focus(); }
        },
      }, canvas, element("span", {}, value), element("span", { class: "muted" }, shortened(id)));
    });
    this.list.replaceChildren(...buttons.map((button) => element("li", {}, button)));
    const go = (to) => { this.state.start = to; this.showPage(); };
    const last = Math.min(start + PAGE_SIZE, this.found.length);
    this.pager.replaceChildren(
      element("button", { type: "button", disabled: start === 0, onclick: () => go(start - PAGE_SIZE) }, "Previous"),
      element("span", { class: "number" }, this.found.length ? `${start + 1}–${last} of ${this.found.length}` : "no sample"),
      element("button", { type: "button", disabled: last >= this.found.length, onclick: () => go(start + PAGE_SIZE) }, "Next"),
    );
  }

  async thumbnail(canvas, index) {
    const scene = await picturesOf(this.page, index).catch(() => null);
    if (!scene || scene.error) return;
    await paintThumbnail(canvas, scene, this.page, 0);
  }

  // Show a sample, and write it into the address.
  choose(index, byHand) {
    this.state.chosen = index;
    this.list.querySelectorAll("button").forEach((button) => button.setAttribute("aria-current", String(Number(button.dataset.index) === index)));
    if (byHand) history.replaceState(null, "", this.link(index));
    this.show(index, byHand);
  }

  link(index) {
    return `#sample=${encodeURIComponent(this.page.samples.ids[index])}`;
  }

  readHash() {
    const found = /^#sample=(.*)$/.exec(location.hash);
    if (!found) return;
    let id;
    try { id = decodeURIComponent(found[1]); } catch { return; }
    const index = this.page.samples.ids.indexOf(id);
    if (index >= 0 && index !== this.state.chosen) {
      this.choose(index, false);
      this.detail.scrollIntoView({ block: "start" });
    }
  }

  valueLine(index) {
    const known = this.columns.filter((column) => column.values[index] !== null);
    return element("div", { class: "values" }, known.map((column) => element("span", { title: column.meaning }, `${column.name} `, element("b", {}, digits(column.values[index], column.places)))));
  }

  valueTable(index) {
    const { metrics, mistakes } = this.page.samples;
    const rows = [...metrics, ...mistakes].map((entry) => {
      const [a, b] = entry.values.map((values) => values[index]);
      const gain = a === null || b === null ? null : entry.direction * (a - b);
      return element("tr", {}, element("th", { scope: "row" }, entry.name), ...[a, b, gain].map((value) => element("td", { class: "number" }, digits(value))));
    });
    return table("Values of this sample; a positive gain is better for the first run", ["", ...this.page.runs, "Gain"], rows);
  }

  async show(index, byHand) {
    const { samples } = this.page;
    const id = samples.ids[index];
    const step = (by) => {
      const place = this.found.indexOf(this.state.chosen);
      const to = this.found[Math.min(this.found.length - 1, Math.max(0, place + by))];
      if (to === undefined) return;
      this.state.start = PAGE_SIZE * Math.floor(this.found.indexOf(to) / PAGE_SIZE);
      this.showPage();
      this.choose(to, true);
      this.detail.querySelector(by < 0 ? "#previous" : "#next").focus();
    };
    const head = element("div", { class: "detail-head" },
      element("h3", {}, id),
      element("div", {},
        element("a", { href: this.link(index), id: "permalink" }, "Link to this sample"),
        element("button", { type: "button", id: "previous", onclick: () => step(-1) }, "Previous sample"),
        element("button", { type: "button", id: "next", onclick: () => step(1) }, "Next sample")));
    const values = this.page.runs.length > 1 ? this.valueTable(index) : this.valueLine(index);
    const body = element("div", {});
    const error = samples.errors[id];
    this.detail.replaceChildren(head, ...(error ? [element("div", { class: "note warn" }, element("p", {}, error))] : []), body, values);
    try {
      const scene = await picturesOf(this.page, index);
      if (this.state.chosen !== index) return;
      if (scene?.error) body.append(element("p", { class: "muted" }, scene.error));
      else if (scene) await showScene(body, scene, this.page);
    } catch (problem) {
      body.append(element("p", { class: "muted" }, problem.message));
    }
    this.detail.dataset.ready = id;
    if (byHand && matchMedia("(max-width: 760px)").matches) this.detail.scrollIntoView({ block: "start" });
  }
}

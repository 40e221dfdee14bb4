// Small helpers for elements, and the histogram and scatter plot of the page.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function drawing(tag, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

const digits = (value, places = 3) => (value === null || value === undefined ? "–" : value.toFixed(places));
const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

// Ends of an axis that holds the values: 0 to 1 for shares, else what they need.
function extent(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  if (low >= 0 && high <= 1) return [0, 1];
  return low === high ? [low - 0.5, high + 0.5] : [low, high];
}

const BINS = 20;

function binsOf(values) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return [];
  const [low, high] = extent(known);
  const width = (high - low) / BINS;
  const bins = Array.from({ length: BINS }, (_, index) => ({ low: low + index * width, high: low + (index + 1) * width, count: 0, last: index === BINS - 1 }));
  for (const value of known) bins[Math.min(BINS - 1, Math.floor((value - low) / width))].count += 1;
  return bins;
}

const inBin = (value, bin) => value !== null && value >= bin.low && (value < bin.high || bin.last);

// A histogram of buttons: one tab stop, arrow keys inside. choose(bin or null) is called on a click.
function histogram(holder, bins, chosen, name, choose) {
  const most = Math.max(1, ...bins.map((bin) => bin.count));
  const isChosen = (bin) => chosen !== null && bin.low === chosen.low && bin.high === chosen.high;
  const stop = Math.max(0, bins.findIndex(isChosen));
  const buttons = bins.map((bin, index) => {
    const bar = element("i");
    bar.style.height = `${(100 * bin.count) / most}%`;
    const text = `${name} ${digits(bin.low, 2)} to ${digits(bin.high, 2)}: ${bin.count}`;
    return element("button", {
      type: "button", title: text, "aria-label": text, "aria-pressed": String(isChosen(bin)), tabindex: index === stop ? 0 : -1,
      onclick: () => choose(isChosen(bin) ? null : bin),
      onkeydown: (event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        const next = step && buttons[index + step];
        if (!next) return;
        event.preventDefault();
        buttons[index].tabIndex = -1;
        next.tabIndex = 0;
        next.focus();
      },
    }, bar);
  });
  holder.replaceChildren(...buttons);
}

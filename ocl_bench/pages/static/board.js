// The board of a task: tabs, sorting, filters, columns, folded seeds, copying. The page is whole without it.

const STATE = new URLSearchParams(location.hash.slice(1));

function remember(key, value) {
  if (value) STATE.set(key, value); else STATE.delete(key);
  history.replaceState(null, "", STATE.size ? `#${STATE}` : location.pathname + location.search);
}

function startTabs() {
  const list = document.querySelector("[role=tablist]");
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const choose = (tab, focus) => {
    for (const one of tabs) {
      const chosen = one === tab;
      one.setAttribute("aria-selected", chosen);
      one.tabIndex = chosen ? 0 : -1;
      document.getElementById(one.getAttribute("aria-controls")).hidden = !chosen;
    }
    if (focus) tab.focus();
  };
  const key = (tab) => tab.id.slice(4);
  for (const tab of tabs) {
    document.getElementById(tab.getAttribute("aria-controls")).setAttribute("role", "tabpanel");
    tab.addEventListener("click", () => { choose(tab); remember("tab", key(tab)); });
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
      choose(next, true);
      remember("tab", key(next));
    });
  }
  document.body.classList.add("tabbed");
  list.hidden = false;
  const filled = tabs.find((tab) => document.getElementById(tab.getAttribute("aria-controls")).querySelector("table"));
  choose(tabs.find((tab) => key(tab) === STATE.get("tab")) ?? filled ?? tabs[0]);
}

// Rows of a block: each row of the table with the rows of its training seeds, which stay below it.
function entries(block) {
  const found = [];
  for (const row of block.rows) {
    if (row.classList.contains("block")) continue;
    if ("seed" in row.dataset) found.at(-1).push(row); else found.push([row]);
  }
  return found;
}

function startSorting(table) {
  const heads = [...table.tHead.rows[0].cells];
  const sort = (head, direction) => {
    const place = heads.indexOf(head);
    const numeric = head.dataset.sort === "number";
    const value = (row) => row.cells[place].dataset.value ?? "";
    for (const one of heads) one.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
    for (const block of table.tBodies) {
      const sorted = entries(block).sort(([a], [b]) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return direction * (numeric ? x - y : x.localeCompare(y));
      });
      for (const rows of sorted) block.append(...rows);
    }
  };
  const by = (head) => head.dataset.column ?? "model";
  for (const head of heads.filter((one) => one.dataset.sort)) {
    const button = document.createElement("button");
    button.type = "button";
    const ends = head.querySelector(".ends");
    button.append(...[...head.childNodes].filter((node) => node !== ends));
    head.prepend(button);
    button.addEventListener("click", () => {
      const first = head.dataset.sort === "number" ? -1 : 1;
      const direction = head.ariaSort ? (head.ariaSort === "ascending" ? -1 : 1) : first;
      sort(head, direction);
      remember("sort", `${by(head)} ${direction > 0 ? "up" : "down"}`);
    });
  }
  const [name, way] = (STATE.get("sort") ?? "").split(" ");
  const head = heads.find((one) => one.dataset.sort && by(one) === name);
  if (head) sort(head, way === "up" ? 1 : -1);
}

function startFilters(panel, table) {
  const selects = [...panel.querySelectorAll("[data-filter]")];
  const count = panel.querySelector("[data-count]");
  const apply = () => {
    let shown = 0, all = 0;
    for (const block of table.tBodies) {
      let any = false;
      for (const [row, ...seeds] of entries(block)) {
        const keep = selects.every((select) => !select.value || row.dataset[select.dataset.filter] === select.value);
        row.classList.toggle("out", !keep);
        row.hidden = !keep;
        const open = row.querySelector(".fold")?.ariaExpanded === "true";
        for (const seed of seeds) seed.hidden = !keep || !open;
        all += 1;
        shown += keep;
        any ||= keep;
      }
      block.hidden = !any;
    }
    count.textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
  };
  for (const select of selects) {
    const stored = STATE.get(select.dataset.filter);
    if (stored && [...select.options].some((option) => option.value === stored)) select.value = stored;
    select.addEventListener("change", () => { remember(select.dataset.filter, select.value); apply(); });
  }
  for (const fold of table.querySelectorAll(".fold")) {
    fold.hidden = false;
    fold.addEventListener("click", () => { fold.ariaExpanded = String(fold.ariaExpanded !== "true"); apply(); });
  }
  apply();
}

function startColumns(panel, table) {
  const boxes = [...panel.querySelectorAll("[data-show]")];
  const apply = (box) => {
    for (const cell of table.querySelectorAll(`[data-column="${CSS.escape(box.dataset.show)}"]`)) cell.hidden = !box.checked;
  };
  const stored = STATE.get("columns")?.split(",");
  for (const box of boxes) {
    if (stored) { box.checked = stored.includes(box.dataset.show); apply(box); }
    box.addEventListener("change", () => {
      apply(box);
      remember("columns", boxes.filter((one) => one.checked).map((one) => one.dataset.show).join(","));
    });
  }
  const menu = panel.querySelector(".columns");
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); }
  });
}

// One stop for the Tab key in all numbers of a table; the arrow keys lead from number to number.
function startNumbers(table) {
  const visible = () => [...table.querySelectorAll(".digits")].filter((one) => one.offsetParent);
  const first = table.querySelector(".digits");
  if (first) first.tabIndex = 0;
  table.addEventListener("keydown", (event) => {
    if (!event.target.classList.contains("digits")) return;
    const here = event.target.closest("td"), all = visible();
    const row = all.filter((one) => one.closest("tr") === here.parentElement);
    const column = all.filter((one) => one.closest("td").cellIndex === here.cellIndex);
    const [line, step] = { ArrowRight: [row, 1], ArrowLeft: [row, -1], ArrowDown: [column, 1], ArrowUp: [column, -1] }[event.key] ?? [];
    const next = line?.[line.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

function visibleCells(row) {
  return [...row.cells].filter((cell) => !cell.hidden && !cell.classList.contains("links"));
}

function plainText(cell) {
  const digits = cell.querySelector(".digits");
  if (digits) return digits.firstChild.textContent;
  const copy = cell.cloneNode(true);
  for (const one of copy.querySelectorAll(".fold, .ends, .remark, .visually-hidden, .whisker")) one.remove();
  return copy.textContent.trim().replace(/\s+/g, " ");
}

const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "↑": "$\\uparrow$", "↓": "$\\downarrow$", "●": "$\\bullet$", "–": "--" };

function latexText(text) {
  return text.replace(/[\\~^↑↓●–&%$#_{}]/g, (sign) => LATEX[sign] ?? `\\${sign}`);
}

function shownRows(table) {
  return [...table.tBodies].filter((block) => !block.hidden)
    .flatMap((block) => [...block.rows].filter((row) => !row.hidden && !row.classList.contains("block")));
}

function latex(table) {
  const heads = visibleCells(table.tHead.rows[0]);
  const line = (cells) => `  ${cells.map((cell) => latexText(plainText(cell))).join(" & ")} \\\\`;
  const columns = heads.map((head) => head.classList.contains("metric") ? "r" : "l").join("");
  const blocks = [...table.tBodies].filter((block) => !block.hidden)
    .map((block) => [...block.rows].filter((row) => !row.hidden && !row.classList.contains("block")).map((row) => line(visibleCells(row))));
  return [`% ${document.title}, ${location.href}`, `\\begin{tabular}{${columns}}`, "  \\toprule", line(heads), "  \\midrule",
    blocks.map((rows) => rows.join("\n")).join("\n  \\midrule\n"), "  \\bottomrule", "\\end{tabular}", ""].join("\n");
}

function bibtex(table) {
  const known = pageData().bibtex;
  const keys = new Set(shownRows(table).map((row) => row.dataset.paper));
  return [...keys].filter((key) => known[key]).map((key) => known[key]).join("\n\n") + "\n";
}

function startCopying(panel, table) {
  const dialog = document.getElementById("copied");
  const area = dialog.querySelector("textarea");
  const make = { latex: [latex, "LaTeX of the rows shown"], bibtex: [bibtex, "BibTeX of the papers shown"] };
  for (const button of panel.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => {
      const [text, title] = make[button.dataset.copy];
      dialog.querySelector("h2").textContent = title;
      area.value = text(table);
      dialog.showModal();
      area.select();
    });
  }
}

function startDialog() {
  const dialog = document.getElementById("copied");
  const area = dialog.querySelector("textarea");
  dialog.querySelector("[data-do=copy]").addEventListener("click", async (event) => {
    area.select();
    try { await navigator.clipboard.writeText(area.value); } catch { document.execCommand("copy"); }
    event.target.textContent = "Copied";
  });
  dialog.addEventListener("close", () => { dialog.querySelector("[data-do=copy]").textContent = "Copy"; });
  dialog.querySelector("[data-do=close]").addEventListener("click", () => dialog.close());
}

startTabs();
startDialog();
for (const panel of document.querySelectorAll(".panel")) {
  const table = panel.querySelector("table.board");
  if (!table) continue;
  panel.querySelector(".controls").hidden = false;
  startSorting(table);
  startColumns(panel, table);
  startFilters(panel, table);
  startNumbers(table);
  startCopying(panel, table);
}

// Making and changing elements. Text is always set as text: nothing that comes from a caller or an
// upstream is ever read as markup.

export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value == null || value === false) continue;
    if (name === "onclick") element.addEventListener("click", value);
    else if (name === "text") element.textContent = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

// Only what differs is touched, so that a reader's place and selection stay.
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function setData(element, name, value) {
  if (element.dataset[name] !== value) element.dataset[name] = value;
}

// Keep one child of `parent` for each item, by key, in order; make and drop what is needed.
export function keyed(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    if (child) old.delete(name);
    else {
      child = make(item);
      child.dataset.key = name;
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
    update(child, item);
  }
  for (const child of old.values()) child.remove();
}

// A table whose rows are kept by key. On a narrow screen each row becomes a card, so the roles are
// said aloud: `display: block` would take them away.
export class Table {
  constructor(parent, { label, columns, key, empty }) {
    this.columns = columns;
    this.key = key;
    this.body = h("tbody", { role: "rowgroup" });
    const heads = columns.map((c) =>
      h("th", { role: "columnheader", scope: "col", class: c.number ? "number" : null, text: c.title, title: c.hint }),
    );
    const head = h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...heads));
    this.table = h("table", { role: "table", "aria-label": label }, head, this.body);
    this.empty = h("p", { class: "empty", text: empty });
    parent.append(this.table, this.empty);
    this.update([]);
  }

  update(rows) {
    this.table.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
    keyed(this.body, rows, this.key, (row) => this.#make(row), (element, row) => this.#fill(element, row));
  }

  #make() {
    const cells = this.columns.map((c, at) =>
      h(at === 0 ? "th" : "td", {
        role: at === 0 ? "rowheader" : "cell",
        scope: at === 0 ? "row" : null,
        class: c.number ? "number" : null,
        "data-label": c.title,
      }),
    );
    return h("tr", { role: "row" }, ...cells);
  }

  #fill(element, row) {
    this.columns.forEach((column, at) => {
      const cell = element.children[at];
      setText(cell, column.value(row));
      const grade = column.grade?.(row);
      if (grade) setData(cell, "grade", grade);
      else delete cell.dataset.grade;
      const title = column.full?.(row);
      if (title && cell.title !== title) cell.title = title;
    });
  }
}

"use strict";
// Sorts the lines of a table by a column, and the other way round when asked again. References stay
// where they are; what has no number, or was not run, is at the end whichever way.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const key = (row, column) => (row.classList.contains("silent") ? undefined : row.cells[column]?.dataset.value);
  const number = (text) => (text.trim() === "" ? NaN : Number(text));
  const compare = (x, y) => {
    const [a, b] = [number(x), number(y)];
    return isNaN(a) || isNaN(b) ? x.localeCompare(y, undefined, { numeric: true }) : a - b;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [key(a, column), key(b, column)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        return compare(x, y) * (down ? -1 : 1);
      });
      body.append(...rows);
    });
  });
}

// A plot opens large, by click or key, and closes by Escape or click.
for (const plot of document.querySelectorAll("figure.plot")) {
  const open = () => {
    const dialog = document.createElement("dialog");
    dialog.append(...[...plot.childNodes].map((node) => node.cloneNode(true)));
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => { dialog.remove(); plot.focus(); });
    document.body.append(dialog);
    dialog.showModal();
  };
  plot.tabIndex = 0;
  plot.addEventListener("click", open);
  plot.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
}

// Charts as images and tables as CSV, made where they are seen: nothing is asked of the server.

// Drawn for a page, whatever the width of the window.
const NARROWEST = 760;
// The light theme's, which an image on a white ground is read in.
const PAPER = "#ffffff";
const INK = "#1a2029";
// A spreadsheet would take text that begins so for a formula.
const FORMULA = /^[=+\-@\t\r\n\uff0b\uff0d\uff1d\uff20]/;
const NUMBER = /^[+-]?(\d[\d,]*\.?\d*|\.\d+)(e[+-]?\d+)?%?$/i;

// The page's name and the part's, as one that any file system takes: demo-block-5-kl-by-block.
const nameFile = (label) =>
  [...document.title.split(" · ").slice(0, -1).reverse(), label]
    .join("-")
    .normalize("NFKC")
    .replace(/[^\p{L}\p{N}.]+/gu, "-")
    .replace(/^[-.]+|[-.]+$/g, "")
    .slice(0, 120) || "awqscope";

const saveText = (text, name) => {
  // With a mark of its encoding, without which a spreadsheet reads it in another.
  const href = URL.createObjectURL(new Blob(["\ufeff", text], { type: "text/csv;charset=utf-8" }));
  const link = Object.assign(document.createElement("a"), { href, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
};

const writeField = (value) => {
  if (value === null || value === undefined) return "";
  const given = String(value);
  const text = typeof value !== "number" && FORMULA.test(given) && !NUMBER.test(given) ? `'${given}` : given;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

const writeCsv = (rows) => rows.map((row) => `${row.map(writeField).join(",")}\r\n`).join("");

// What has a look of its own stands on a line of its own.
const readCell = (cell) =>
  Array.isArray(cell)
    ? cell.map((part, at) => `${at && part.look ? " " : ""}${readCell(part)}`).join("")
    : typeof cell === "string"
      ? cell
      : cell.text;

const readShown = (cell) => {
  const text = readCell(cell);
  return text === "–" ? "" : text;
};

// All rows of a table, with numbers as they were before they were rounded.
const listFields = ({ columns, rows, heads, values }) => {
  if (!values || !values.length) return [columns, ...rows.map((row) => row.map(readShown))];
  const fill = (fields, count) => [...fields, ...Array(count).fill("")].slice(0, count);
  const body = rows.map((row, line) =>
    row.flatMap((cell, at) => fill(values[line][at] || [readShown(cell)], heads[at].length)),
  );
  return [heads.flat(), ...body];
};

// What a table is called: by its caption, by the chart that it goes with, or by the part it is in.
const nameTable = (box, caption) => {
  if (caption) return caption;
  const folder = box.closest("details");
  const before = folder && folder.previousElementSibling;
  if (before && before.matches(".chart")) return before.getAttribute("aria-label").split(", see the")[0];
  if (folder) return folder.querySelector("summary").textContent;
  const part = box.closest(".card, .notice");
  const title = part && part.querySelector("h2");
  return title ? title.textContent : "table";
};

const saveTable = (box, table) =>
  saveText(writeCsv(listFields(table)), `${nameFile(nameTable(box, table.caption))}.csv`);

// The rows of a grid as they are sorted and filtered, in all columns that have a name.
const saveGrid = (id, label) => {
  const api = window.dash_ag_grid.getApi(id);
  const columns = api.getColumns().filter((column) => {
    const { field, headerName } = column.getColDef();
    return field && headerName;
  });
  const nameColumn = ({ headerName, context }) => (context && context.saved) || headerName;
  const rows = [columns.map((column) => nameColumn(column.getColDef()))];
  api.forEachNodeAfterFilterAndSort((rowNode) =>
    rows.push(
      columns.map((colKey) => {
        const value = api.getCellValue({ rowNode, colKey });
        const isPlain = value === null || typeof value !== "object";
        return isPlain ? value : api.getCellValue({ rowNode, colKey, useFormatter: true });
      }),
    ),
  );
  saveText(writeCsv(rows), `${nameFile(label)}.csv`);
};

const findPlot = (chart) =>
  new Promise((found) => {
    const look = () => {
      const plot = chart.querySelector(".js-plotly-plot");
      if (plot && plot._fullLayout) found(plot);
      else requestAnimationFrame(look);
    };
    look();
  });

// As it is shown, on white: plotly knows nothing of the style sheet that themes it on the page.
const saveChart = async (chart, label, format) => {
  const plot = await findPlot(chart);
  const { data, layout } = plot;
  const size = { width: Math.max(NARROWEST, plot.clientWidth), height: plot.clientHeight };
  const font = { ...layout.font, color: INK };
  return window.Plotly.downloadImage(
    { data, layout: { ...layout, ...size, font, paper_bgcolor: PAPER, autosize: false } },
    { ...size, format, scale: format === "png" ? 2 : 1, filename: nameFile(label) },
  );
};

const writeSave = (format, save) =>
  React.createElement(
    "button",
    { key: format, type: "button", "aria-label": `Save as ${format}`, onClick: save },
    format,
  );

const Saves = ({ label, grid }) => {
  const box = React.useRef(null);
  const saves = grid
    ? [writeSave("CSV", () => saveGrid(grid, label))]
    : ["PNG", "SVG"].map((format) =>
        writeSave(format, () => saveChart(box.current.closest(".chart"), label, format.toLowerCase())),
      );
  return React.createElement("div", { ref: box, className: "saves" }, saves);
};

const SaveTable = (table) => {
  const box = React.useRef(null);
  if (!table.rows.length) return null;
  return React.createElement(
    "div",
    { ref: box, className: "saves" },
    writeSave("CSV", () => saveTable(box.current, table)),
  );
};

Object.assign(window.awqscope, { Saves });

// On paper: every chart is drawn and fits the sheet, every row of a table and of a grid is there.

// An A4 sheet between its margins, in pixels: letters keep their size if a chart is drawn for it.
const SHEET = 688;
const onPaper = window.matchMedia("print");
// What draws itself otherwise on paper, told before and after.
const tellers = new Set();

const usePrinted = () => {
  const [isPrinted, setPrinted] = React.useState(onPaper.matches);
  React.useEffect(() => {
    tellers.add(setPrinted);
    return () => tellers.delete(setPrinted);
  }, []);
  return isPrinted;
};

const fitChart = (chart, isPrinted) => {
  if (!chart._fullLayout) return;
  window.Plotly.relayout(chart, isPrinted ? { width: SHEET } : { width: null, autosize: true });
  // A drawing that knows its own size can be scaled to the width of the sheet.
  chart.querySelectorAll(".main-svg").forEach((drawing) => {
    const { width, height } = drawing;
    if (isPrinted)
      drawing.setAttribute("viewBox", `0 0 ${width.baseVal.value} ${height.baseVal.value}`);
    else drawing.removeAttribute("viewBox");
  });
};

const writeLine = (tag, texts) => {
  const line = document.createElement("tr");
  texts.forEach((text) => {
    const cell = document.createElement(tag);
    cell.textContent = text ?? "";
    line.append(cell);
  });
  return line;
};

// A grid draws only the rows that are in sight. On paper a plain table of all of them, sorted and
// filtered as they are, stands for it.
const writeGrid = (grid) => {
  const api = window.dash_ag_grid && window.dash_ag_grid.getApi(grid.id);
  if (!api) return;
  const hasField = (column) => column.getColDef().field;
  let columns = api.getAllDisplayedColumns().filter(hasField);
  // On a narrow screen cards stand for the columns, which a sheet has room for.
  if (!columns.length)
    columns = api.getColumns().filter((column) => hasField(column) && !column.getColDef().hide);
  const table = document.createElement("table");
  const head = table.createTHead();
  head.append(writeLine("th", columns.map((column) => api.getDisplayNameForColumn(column, "header"))));
  const body = table.createTBody();
  api.forEachNodeAfterFilterAndSort((rowNode) =>
    body.append(
      writeLine(
        "td",
        columns.map((colKey) => api.getCellValue({ rowNode, colKey, useFormatter: true })),
      ),
    ),
  );
  table.className = "on-paper";
  grid.after(table);
};

// A browser that is about to print waits for what happens at once, and for nothing else.
const prepare = (isPrinted) => {
  window.ReactDOM.flushSync(() => tellers.forEach((tell) => tell(isPrinted)));
  document.querySelectorAll(".js-plotly-plot").forEach((chart) => fitChart(chart, isPrinted));
  document.querySelectorAll(".on-paper").forEach((table) => table.remove());
  if (isPrinted) document.querySelectorAll(".grid").forEach(writeGrid);
};

window.addEventListener("beforeprint", () => prepare(true));
window.addEventListener("afterprint", () => prepare(false));
onPaper.addEventListener("change", (event) => prepare(event.matches));

// The list of runs: its cells, the cards that take their place on a narrow screen, and what its
// buttons ask for. Nothing here makes markup out of text.

// Narrower than this, its columns would be cut.
const NARROW = 1172;
// As many models as a chart still tells apart: MOST_RANKED in diagnose/compared/ranking.py.
const MOST_COMPARED = 12;

const STATES = {
  done: ["●", "good"],
  running: ["◐", "busy"],
  starting: ["◐", "busy"],
  stopping: ["◐", "busy"],
  stopped: ["◼", "quiet"],
  failed: ["✕", "bad"],
  "did not begin": ["✕", "bad"],
  damaged: ["!", "bad"],
};

const ACTS = {
  cancel: ["Cancel", (name) => `Stop ${name}? What is done so far is kept, and it can go on from there.`],
  dismiss: ["Dismiss", null],
};

let runsAsked = 0;

const writeMark = (state) => {
  const [sign, tone] = STATES[state] || ["", ""];
  return React.createElement("span", { key: "mark", className: `mark ${tone}` }, `${sign} ${state}`);
};

const writeActs = ({ name, acts }) =>
  (acts || []).map((act) => {
    const [text, question] = ACTS[act];
    return React.createElement(
      "button",
      {
        key: act,
        type: "button",
        className: "act",
        "aria-label": `${text} ${name}`,
        onClick: (event) => {
          event.stopPropagation();
          if (question && !window.confirm(question(name))) return;
          runsAsked += 1;
          window.dash_clientside.set_props("runs-asked", { data: { name, act, asked: runsAsked } });
        },
      },
      text,
    );
  });

const writeName = ({ name, href }) =>
  React.createElement(
    "a",
    {
      key: "name",
      href,
      className: "grid-link",
      onClick: (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        navigate(href);
      },
    },
    name,
  );

const writeModel = ({ model, model_end }) =>
  model_end
    ? React.createElement("span", { key: "model", className: "note", title: model }, model_end)
    : null;

const writeNotes = ({ called, tags, archived }) => [
  called && React.createElement("strong", { key: "called" }, called),
  (archived || (tags && tags.length > 0)) &&
    React.createElement(
      "span",
      { key: "tags", className: "tags" },
      (tags || []).map((tag) => React.createElement("span", { key: tag, className: "tag" }, tag)),
      archived && React.createElement("span", { key: "archived", className: "note" }, "archived"),
    ),
];

const writeTitle = (data) =>
  React.createElement("div", { className: "run-name" }, writeName(data), writeNotes(data), writeModel(data));

components.RunName = ({ data }) => writeTitle(data);

// Of a run that is not done: what it is at, and what can be done to it.
const writeShip = (data) =>
  data.answer
    ? [
        React.createElement("span", { key: "answer", className: `mark ${data.tone}` }, data.answer),
        data.why && React.createElement("span", { key: "why", className: "note", title: data.why }, data.why),
      ]
    : [writeMark(data.state), ...writeActs(data)];

components.RunShip = ({ data }) => React.createElement("div", { className: "run-ship" }, writeShip(data));

const writeNumber = (value, digits) => (value == null ? "–" : value.toFixed(digits));

components.RunCard = ({ data }) => {
  const isMeasured = data.kl != null;
  const facts = [
    ["Bits", data.widths],
    [
      "Perplexity, 16-bit → quantized → mixed",
      isMeasured && [data.reference, data.quantized, data.mixed].map((v) => writeNumber(v, 3)).join(" → "),
    ],
    ["KL, quantized → mixed", isMeasured && [data.kl, data.kl_mixed].map((v) => writeNumber(v, 4)).join(" → ")],
    ["MB", data.size != null && writeNumber(data.size / 1e6, 1)],
    ["Begun (UTC)", data.created],
  ].filter(([, value]) => value);
  return React.createElement(
    "div",
    { className: "run-card" },
    React.createElement(
      "div",
      { className: "run-head" },
      writeTitle(data),
    ),
    React.createElement("div", { className: "run-ship" }, writeShip(data)),
    React.createElement("div", { className: "run-verdict" }, data.verdict),
    React.createElement(
      "dl",
      null,
      facts.map(([label, value]) =>
        React.createElement(
          "div",
          { key: label },
          React.createElement("dt", null, label),
          React.createElement("dd", null, value),
        ),
      ),
    ),
  );
};

const fit = (api, width) => {
  const isNarrow = width < NARROW;
  if (api.isDestroyed() || api.getColumn("card").isVisible() === isNarrow) return;
  const all = api.getColumns().map((column) => column.getColId());
  const never = ["model", "model_end", "said", "state", "card"];
  api.setColumnsVisible(all.filter((id) => !never.includes(id) && !id.startsWith("ag-Grid")), !isNarrow);
  api.setColumnsVisible(["card"], isNarrow);
  // One column needs no name.
  api.setGridOption("headerHeight", isNarrow ? 0 : undefined);
};

// Lines are drawn at one height and then moved apart by their texts: they are shown once they stay
// where they are. awqscope.css shows them after a while even so.
const settle = (box) => {
  let before = "";
  const look = () => {
    if (!box.isConnected) return;
    const lines = [...box.querySelectorAll(".ag-row, .ag-header-cell")];
    const now = JSON.stringify(lines.map((one) => one.getBoundingClientRect()));
    if (lines.length && now === before) {
      box.classList.add("settled");
      return;
    }
    before = now;
    requestAnimationFrame(() => requestAnimationFrame(look));
  };
  look();
};

// Words in quotes are found as they stand together, others anywhere in a line.
grids.readFilter = (text) => (text.match(/"[^"]*"?|\S+/g) || []).map((part) => part.replaceAll('"', "")).filter(Boolean);

// Which runs are listed, by what is said of them.
const listed = { tags: [], archived: false };
grids.filtersByNotes = () => true;
grids.passesNotes = ({ data }) =>
  (listed.archived || !data.archived) && listed.tags.every((tag) => (data.tags || []).includes(tag));

// That no run is listed, which an empty grid does not say by itself.
const sayFound = (api) => {
  if (!document.getElementById("runs-found")) return;
  const isEmpty = api.getDisplayedRowCount() === 0;
  let hidden = 0;
  api.forEachNode(({ data }) => {
    hidden += Number(data.archived && !listed.archived);
  });
  const archived = hidden ? `; ${hidden} archived ${hidden === 1 ? "is" : "are"} not looked at` : "";
  window.dash_clientside.set_props("runs-found", { children: isEmpty ? `No run is like that${archived}.` : "" });
};

Object.assign(window.dash_clientside.awqscope, {
  // The grid itself is told, also one that is not there yet.
  async filterRuns(text) {
    const api = await dash_ag_grid.getApiAsync("runs-grid");
    if (!api.isDestroyed()) api.setGridOption("quickFilterText", text || "");
    return window.dash_clientside.no_update;
  },
  async filterNotes(tags, archived) {
    Object.assign(listed, { tags: tags || [], archived: Boolean(archived) });
    const api = await dash_ag_grid.getApiAsync("runs-grid");
    if (!api.isDestroyed()) api.onFilterChanged();
    return window.dash_clientside.no_update;
  },
  comparable(rows) {
    const count = rows ? rows.length : 0;
    const over = count - MOST_COMPARED;
    const said = over > 0 ? `${count} are ticked: untick ${over === 1 ? "one" : over}` : "";
    return [count < 2 || over > 0, count === 1 ? "Tick one more" : said];
  },
  // The grid itself is asked: dash is told of a tick later than it is seen.
  async openCompare(clicks) {
    if (!clicks) return window.dash_clientside.no_update;
    const rows = (await dash_ag_grid.getApiAsync("runs-grid")).getSelectedRows();
    const names = rows.map(({ name }) => name);
    if (names.length < 2 || names.length > MOST_COMPARED) return window.dash_clientside.no_update;
    const [a, b] = names;
    // Two have a page with more room for what differs; no name has the sign between several.
    const chosen = names.length === 2 ? { a, b } : { runs: names.join("/") };
    return `/compare?${new URLSearchParams(chosen)}`;
  },
  async fitRuns() {
    const api = await dash_ag_grid.getApiAsync("runs-grid");
    const box = document.getElementById("runs-grid");
    if (box) {
      fit(api, box.clientWidth);
      settle(box);
      api.addEventListener("filterChanged", () => sayFound(api));
      api.addEventListener("rowDataUpdated", () => sayFound(api));
      sayFound(api);
      api.addEventListener("gridSizeChanged", ({ clientWidth }) => fit(api, clientWidth));
    }
    return window.dash_clientside.no_update;
  },
});

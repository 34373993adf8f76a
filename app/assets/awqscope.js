// What the page does by itself: switches kept in the address, links in grids, marks of state.
// Nothing here makes markup out of text: React escapes what it is given.

const navigate = (href) => {
  window.history.pushState({}, "", href);
  window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
  window.scrollTo(0, 0);
};

window.dash_clientside = Object.assign({}, window.dash_clientside, {
  awqscope: {
    keepOption(values, ids) {
      const address = new URL(window.location);
      ids.forEach((id, at) => address.searchParams.set(id.name, values[at]));
      window.history.replaceState(window.history.state, "", address);
      return window.dash_clientside.no_update;
    },
    // Where the page is, switches included, at each tick.
    whereNow(ticks) {
      return { ticks, path: window.location.pathname, search: window.location.search };
    },
    comparable(rows) {
      return !rows || rows.length !== 2;
    },
    filterRuns(text, options) {
      return { ...options, quickFilterText: text || "" };
    },
    openCompare(clicks, rows) {
      if (!clicks || !rows || rows.length !== 2) return window.dash_clientside.no_update;
      const query = new URLSearchParams({ a: rows[0].name, b: rows[1].name });
      return `/compare?${query}`;
    },
  },
});

const components = (window.dashAgGridComponentFunctions =
  window.dashAgGridComponentFunctions || {});

components.RunLink = (props) =>
  React.createElement(
    "a",
    {
      href: props.data.href,
      className: "grid-link",
      onClick: (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey) return;
        event.preventDefault();
        navigate(props.data.href);
      },
    },
    props.value,
  );

const MARKS = {
  done: ["●", "good"],
  running: ["◐", "busy"],
  stopped: ["◼", "quiet"],
  failed: ["✕", "bad"],
  damaged: ["!", "bad"],
};

components.RunState = (props) => {
  const [sign, tone] = MARKS[props.value] || ["", ""];
  return React.createElement(
    "span",
    { className: `mark ${tone}` },
    `${sign} ${props.value}`,
  );
};

const grids = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});

grids.awqscopeTheme = (agGrid) =>
  agGrid.themeQuartz.withParams({
    fontFamily: "inherit",
    fontSize: 14,
    headerFontWeight: 600,
    backgroundColor: "var(--ground)",
    foregroundColor: "var(--ink)",
    headerBackgroundColor: "var(--ground)",
    headerTextColor: "var(--ink-soft)",
    borderColor: "var(--line)",
    rowHoverColor: "var(--raised)",
    selectedRowBackgroundColor: "var(--chosen)",
    accentColor: "var(--accent)",
    wrapperBorder: false,
    columnBorder: false,
    browserColorScheme: "inherit",
  });

// Enter on a run's row opens it.
document.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !event.target.classList) return;
  if (!event.target.classList.contains("ag-cell")) return;
  const found = event.target.parentElement.querySelector("a.grid-link");
  if (found) navigate(found.getAttribute("href"));
});

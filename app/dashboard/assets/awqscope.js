// What the page does by itself: switches kept in the address, links in grids, marks of state.
// Nothing here makes markup out of text: React escapes what it is given.

// dcc.Location does not see history.replaceState: a link to the address it believes to be at would
// do nothing. The page follows this store, which is told of every link.
let believed = "";
let links = 0;
window.addEventListener("_dashprivate_pushstate", () =>
  setTimeout(() => {
    const { pathname: path, search } = window.location;
    if (path + search !== believed) return;
    window.dash_clientside.set_props("address", { data: { path, search, links: ++links } });
  }),
);

const navigate = (href) => {
  window.history.pushState({}, "", href);
  window.dispatchEvent(new CustomEvent("_dashprivate_pushstate"));
  window.scrollTo(0, 0);
};

// The header's way to the page that is shown says so.
const markPlace = (path) =>
  document.querySelectorAll("header.top nav a").forEach((way) => {
    if (way.getAttribute("href") === path) way.setAttribute("aria-current", "page");
    else way.removeAttribute("aria-current");
  });

window.dash_clientside = Object.assign({}, window.dash_clientside, {
  awqscope: {
    readAddress() {
      const { pathname: path, search } = window.location;
      believed = path + search;
      markPlace(path);
      return { path, search };
    },
    keepOption(values, ids, defaults) {
      const address = new URL(window.location);
      ids.forEach((id, at) => {
        const value = values[at] ?? "";
        if (value === (defaults[id.name] ?? "")) address.searchParams.delete(id.name);
        else address.searchParams.set(id.name, value);
      });
      window.history.replaceState(window.history.state, "", address);
      return window.dash_clientside.no_update;
    },
    // Nothing is said where the page has just been opened: its address is as it should be.
    keepChanges(changes) {
      if (typeof changes !== "string") return window.dash_clientside.no_update;
      const address = new URL(window.location);
      if (changes) address.searchParams.set("bits", changes);
      else address.searchParams.delete("bits");
      window.history.replaceState(window.history.state, "", address);
      return window.dash_clientside.no_update;
    },
    // Where the page is, switches included, at each tick; of the slow ones only where nothing else
    // would tell that a run has begun: on a list that somebody looks at.
    whereNow(ticks, glances) {
      const { pathname: path, search } = window.location;
      const isGlance = window.dash_clientside.callback_context.triggered[0].prop_id.startsWith("glance");
      if (isGlance && (path !== "/" || document.hidden)) return window.dash_clientside.no_update;
      const listed = document.getElementById("runs-grid") !== null;
      return { ticks, glances, path, search, listed };
    },
    openBlock() {
      const { value } = window.dash_clientside.callback_context.triggered[0] || {};
      if (!value) return window.dash_clientside.no_update;
      const { x: block, y: kind } = value.points[0];
      // A cell of the heat map is a unit: its block opens on what flows into it.
      const site = typeof kind === "string" ? `?${new URLSearchParams({ site: kind })}` : "";
      navigate(`${window.location.pathname}/block/${block}${site}`);
      return window.dash_clientside.no_update;
    },
  },
});

const components = (window.dashAgGridComponentFunctions =
  window.dashAgGridComponentFunctions || {});

const grids = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});

grids.awqscopeTheme = (agGrid) =>
  agGrid.themeQuartz.withParams({
    fontFamily: "inherit",
    fontSize: 14,
    cellHorizontalPadding: 10,
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

// The text of the tokens page: a click, or the arrow keys and Enter, choose a token.
const chooseToken = (token) => {
  const view = token.closest("#text-view");
  view.querySelectorAll(".t.here").forEach((other) => other.classList.remove("here"));
  token.classList.add("here");
  token.scrollIntoView({ block: "nearest" });
  const address = new URL(window.location);
  const { position, window: number } = token.dataset;
  address.searchParams.set("position", position);
  address.searchParams.set("window", number);
  window.history.replaceState(window.history.state, "", address);
  window.dash_clientside.set_props("token-chosen", {
    data: { window: Number(number), position: Number(position) },
  });
};

document.addEventListener("click", (event) => {
  const token = event.target.closest && event.target.closest("#text-view .t");
  if (token) chooseToken(token);
});

const STEPS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 };

document.addEventListener("keydown", (event) => {
  const view = event.target.id === "text-view" ? event.target : null;
  if (!view) return;
  const all = [...view.querySelectorAll(".t")];
  const at = all.findIndex((token) => token.classList.contains("at"));
  const here = at >= 0 ? at : all.findIndex((token) => token.classList.contains("here"));
  if (event.key in STEPS) {
    event.preventDefault();
    const next = Math.min(all.length - 1, Math.max(0, here + STEPS[event.key]));
    if (all[here]) all[here].classList.remove("at");
    all[next].classList.add("at");
    view.setAttribute("aria-activedescendant", all[next].id);
    all[next].scrollIntoView({ block: "nearest" });
  } else if (event.key === "Enter" && all[here]) {
    chooseToken(all[here]);
  }
});

// A recipe while it is edited: what is predicted of it follows every change at once, for the page holds all that
// app/words/predict.py computes with. See app/dashboard/sections/recipe/editing.py for what it is given.

const REST_OF_RECIPE_MS = 300;
const MINUS = "−";
const HEATS = 8;
// Of the largest KL of a unit at the low width: what is not shaded any more.
const FAINTEST = 0.01;
const SIZES = [
  ["GB", 1e9, 2],
  ["MB", 1e6, 2],
  ["kB", 1e3, 1],
  ["bytes", 1, 0],
];

const writeFixed = (value, digits) => value.toFixed(digits).replace("-", MINUS);
const writeSize = (count) => {
  const [unit, size, digits] =
    SIZES.find(([, least, places]) => Number((count / least).toFixed(places)) >= 1) || SIZES[3];
  return `${writeFixed(count / size, digits)} ${unit}`;
};
const writeKl = (kl) => {
  if (kl === 0) return "0";
  const text = Math.abs(kl) < 1e-4 ? kl.toExponential(1) : String(Number(kl.toPrecision(2)));
  return text.replaceAll("-", MINUS);
};
// Up, so that what is written is a budget that holds the value.
const writeUp = (value, digits) => (Math.ceil(value * 10 ** digits - 1e-6) / 10 ** digits).toFixed(digits);
const writeBits = (width) => (width.includes("x") ? width : `${width} bit`);

// By place: the width of every unit, from what differs from the run's own recipe.
const readChanges = (data, changes) => {
  const widths = data.units.map(([, own]) => own);
  const places = new Map(data.units.map(([name], at) => [name, at]));
  (changes || "").split(",").forEach((part) => {
    const [name, width] = part.split(":");
    const at = data.widths.indexOf(width);
    if (places.has(name) && at >= 0) widths[places.get(name)] = at;
  });
  return widths;
};

const writeChanges = (data, widths) =>
  data.units
    .flatMap(([name, own], at) => (widths[at] === own ? [] : [`${name}:${data.widths[widths[at]]}`]))
    .join(",");

const predictRecipe = (data, widths) => {
  const top = data.widths.indexOf("16");
  let [saved, extra, stored] = [0, 0, 0];
  data.units.forEach(([, , isKept, at], unit) => {
    const [before, after] = [at[isKept ? top : data.low], at[widths[unit]]];
    stored = after && stored !== null ? stored + after[0] : null;
    if (!before || !after) return;
    saved += before[1] - after[1];
    extra += after[0] - before[0];
  });
  const left = data.total > 0 ? Math.max(0, 1 - saved / data.total) : 1;
  const [bytes, kl, ppl] = data.uniform;
  return {
    bytes: bytes + extra,
    kl: kl * left,
    ppl: data.reference * (ppl / data.reference) ** left,
    recovered: 1 - left,
    bits: data.weights && stored ? (8 * stored) / data.weights : null,
  };
};

// The recipe at a place on the frontier. What the run kept stays as it is.
const takeFrontier = (data, place) => {
  const widths = data.units.map(([, own]) => own);
  data.start.forEach(([unit, width]) => (widths[unit] = width));
  data.steps.slice(0, place).forEach(([unit, width]) => (widths[unit] = width));
  return widths;
};

// Bytes of every recipe on the frontier, the smallest first.
const sizeFrontier = (data) => {
  const widths = takeFrontier(data, 0);
  const sizes = [predictRecipe(data, widths).bytes];
  data.steps.forEach(([unit, width]) => {
    const at = data.units[unit][3];
    sizes.push(sizes[sizes.length - 1] + at[width][0] - at[widths[unit]][0]);
    widths[unit] = width;
  });
  return sizes;
};

const listTiles = (data, widths, found) => {
  const changed = widths.filter((width) => width !== data.low).length;
  const isOwn = data.units.every(([, own], at) => widths[at] === own);
  const [kl, ppl, recovered] = isOwn ? data.notes.own : data.notes.other;
  const growth = (found.bytes / data.uniform[0] - 1) * 100;
  const share = `${growth >= 0 ? "+" : ""}${writeFixed(growth, 1)}%`;
  const bits = found.bits === null ? "–" : writeFixed(found.bits, 3);
  return [
    [["Not at ", `${data.widths[data.low]} bits`], String(changed), `of ${data.units.length} units`],
    [["Bits per weight"], bits, "of the units"],
    [["Size"], writeSize(found.bytes), `${share} on uniform`],
    [["KL", PREDICTED], writeFixed(found.kl, 4), kl],
    [["Perplexity", PREDICTED], writeFixed(found.ppl, 3), ppl],
    [["Recovered", PREDICTED], `${writeFixed(100 * found.recovered, 1)}%`, recovered],
  ];
};

// What there is no room for on a narrow screen.
const PREDICTED = ", predicted";

const writeTile = ([label, value, note], at, all) =>
  React.createElement(
    "div",
    { key: at, className: at === all.length - 1 ? "tile good" : "tile" },
    React.createElement(
      "dt",
      null,
      label.map((part) =>
        part === PREDICTED ? React.createElement("span", { key: part, className: "more" }, part) : part,
      ),
    ),
    React.createElement(
      "dd",
      null,
      React.createElement("span", { className: "value" }, value),
      React.createElement("span", { className: "note" }, note),
    ),
  );

// The mark of this recipe in the chart, where it is drawn: the rest of it follows once one rests.
const moveMark = ({ bytes, kl }) => {
  const plot = document.querySelector("#recipe-figure .js-plotly-plot");
  if (!plot || !plot.data || !window.Plotly) return;
  const at = plot.data.findIndex((trace) => trace.meta === "yours");
  if (at >= 0) window.Plotly.restyle(plot, { x: [[bytes / 1e6]], y: [[kl]] }, [at]);
};

// A slider along the frontier, and fields for a budget that is met exactly, by the server.
const Budget = ({ data, widths, found, take, ask }) => {
  const sizes = React.useMemo(() => sizeFrontier(data), [data]);
  const [unit, setUnit] = React.useState("bits");
  const [typed, setTyped] = React.useState(null);
  const place = Math.max(0, sizes.filter((size) => size <= found.bytes).length - 1);
  const value = unit === "bits" ? found.bits : found.bytes / 1e6;
  const shown = typed ?? (value === null ? "" : writeUp(value, unit === "bits" ? 3 : 2));
  const said = `${found.bits === null ? "" : `${writeFixed(found.bits, 3)} bits per weight, `}${writeSize(found.bytes)}, KL ${writeFixed(found.kl, 4)}`;
  React.useEffect(() => setTyped(null), [widths, unit]);
  return React.createElement(
    "form",
    {
      className: "budget",
      noValidate: true,
      onSubmit: (event) => {
        event.preventDefault();
        ask(unit, shown);
      },
    },
    React.createElement(
      "label",
      { className: "along" },
      React.createElement("span", null, "Along the frontier"),
      React.createElement("input", {
        type: "range",
        min: 0,
        max: sizes.length - 1,
        value: place,
        "aria-label": "Budget along the frontier",
        "aria-valuetext": said,
        onChange: ({ target }) => take(takeFrontier(data, Number(target.value))),
      }),
    ),
    React.createElement(
      "label",
      null,
      React.createElement("span", null, "Budget"),
      React.createElement("input", {
        type: "text",
        inputMode: "decimal",
        value: shown,
        "aria-label": "Budget",
        onChange: ({ target }) => setTyped(target.value),
      }),
    ),
    React.createElement(
      "label",
      null,
      React.createElement("span", null, "in"),
      React.createElement(
        "select",
        { value: unit, "aria-label": "Unit of the budget", onChange: ({ target }) => setUnit(target.value) },
        React.createElement("option", { value: "bits" }, "bits per weight"),
        React.createElement("option", { value: "mb" }, "MB"),
      ),
    ),
    React.createElement("button", { type: "submit", className: "act" }, "Take the best"),
  );
};

const Recipe = ({ data, changes, children, setProps }) => {
  const [chart, actions] = React.Children.toArray(children);
  const widths = React.useMemo(() => readChanges(data, changes), [data, changes]);
  const found = React.useMemo(() => predictRecipe(data, widths), [data, widths]);
  const asked = React.useRef(0);
  const isFirst = React.useRef(true);
  const take = React.useCallback(
    (taken) => {
      // What was said of the recipe before.
      window.dash_clientside.set_props("recipe-said", { children: "" });
      setProps({ changes: writeChanges(data, taken) });
    },
    [data, setProps],
  );
  const ask = (unit, value) => setProps({ asked: { unit, value, asked: ++asked.current } });
  React.useEffect(() => {
    if (isFirst.current) {
      isFirst.current = false;
      return undefined;
    }
    moveMark(found);
    const rest = setTimeout(() => setProps({ rested: changes || "" }), REST_OF_RECIPE_MS);
    return () => clearTimeout(rest);
  }, [changes]);
  const numbers = listTiles(data, widths, found);
  return React.createElement(
    "div",
    { className: "recipe" },
    React.createElement("dl", { id: "recipe-tiles", className: "tiles live" }, numbers.map(writeTile)),
    React.createElement(
      "section",
      { className: "card" },
      React.createElement("div", { className: "card-head" }, React.createElement("h2", null, "Size against damage")),
      React.createElement(
        "p",
        { className: "summary" },
        "Down and to the left is better. The line joins the best recipes there are; none is predicted to lie below it: ",
        "a click on one of its points takes that recipe, as the slider does. Filled marks were measured; hollow ones ",
        "are promotions that the sweep tried in the quantized model; crosses are cheap choices of as many bytes as ",
        "the run's recipe has.",
      ),
      data.steps.length ? React.createElement(Budget, { data, widths, found, take, ask }) : null,
      chart,
    ),
    React.createElement(
      "section",
      { className: "card" },
      React.createElement("div", { className: "card-head" }, React.createElement("h2", null, "Widths by hand")),
      actions,
      React.createElement(RecipeGrid, { data, widths, take }),
    ),
  );
};

Object.assign(window.awqscope, { Recipe });

Object.assign(window.dash_clientside.awqscope, {
  takePoint(clicked, data) {
    const place = clicked && clicked.points[0].customdata;
    // Of all points, those of the frontier alone have one.
    if (typeof place !== "number") return window.dash_clientside.no_update;
    return writeChanges(data, takeFrontier(data, place));
  },
  resetRecipe(clicks) {
    return clicks ? "" : window.dash_clientside.no_update;
  },
});

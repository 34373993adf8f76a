// Blocks by units: every cell says what its unit costs and can be given another width, by itself, with its row or
// column, or with all of a choice. One menu serves them all, so that eighty blocks make a page no heavier than need be.

// As many kinds of units as have room side by side on a phone.
const MOST_COLUMNS = 4;

const clampTo = (value, most) => Math.max(0, Math.min(most, value));

const shadeOf = (kl, most) => {
  if (!(kl > 0) || !(most > 0)) return 0;
  return clampTo(Math.ceil(HEATS * (1 - Math.log(kl / most) / Math.log(FAINTEST))), HEATS);
};

// What a target is called, and the units that a width is chosen for. A row or column of -1 is the headings'.
const findTarget = (data, blocks, row, column, unitsOf) => {
  if (row >= 0 && column >= 0) {
    const name = `${blocks[row]}.${data.kinds[column]}`;
    return { title: name, units: unitsOf([blocks[row]], [data.kinds[column]]) };
  }
  if (row >= 0) return { title: `all of block ${blocks[row]}`, units: unitsOf([blocks[row]], data.kinds) };
  if (column >= 0)
    return { title: `${data.kinds[column]} of the blocks shown`, units: unitsOf(blocks, [data.kinds[column]]) };
  return { title: "all that is shown", units: unitsOf(blocks, data.kinds) };
};

// Bytes where there is little room: 170 kB, 32 MB.
const writeShortSize = (count) => {
  const [number, unit] = writeSize(count).split(" ");
  return `${Number(Number(number).toPrecision(3))} ${unit}`;
};

const describeOption = (data, units, width) => {
  const at = units.map((unit) => data.units[unit][3][width]);
  if (at.some((pair) => !pair)) return "";
  const [bytes, kl] = at.reduce(([size, sum], pair) => [size + pair[0], sum + pair[1]], [0, 0]);
  return `KL ${writeKl(kl)}, ${writeSize(bytes)}`;
};

const WidthMenu = ({ data, target, widths, place, choose, close }) => {
  const box = React.useRef(null);
  const { title, units } = target;
  const now = new Set(units.map((unit) => widths[unit]));
  const options = data.widths.flatMap((_, width) =>
    width < data.allowed || (units.length === 1 && now.has(width)) ? [width] : [],
  );
  React.useEffect(() => {
    const first = box.current.querySelector("[aria-checked=true]") || box.current.querySelector("button");
    first.focus();
    const away = (event) => box.current && !box.current.contains(event.target) && close(false);
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, []);
  const onKeyDown = (event) => {
    event.stopPropagation();
    if (event.key === "Tab") return close(false);
    const items = [...box.current.querySelectorAll("button")];
    const at = items.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (event.key !== "Escape" && to === undefined) return undefined;
    event.preventDefault();
    if (event.key === "Escape") return close(true);
    return items[(to + items.length) % items.length].focus();
  };
  return React.createElement(
    "div",
    { ref: box, className: "width-menu", role: "menu", "aria-label": `Width of ${title}`, style: place, onKeyDown },
    React.createElement("div", { className: "note", "aria-hidden": true }, title),
    options.map((width) =>
      React.createElement(
        "button",
        {
          key: width,
          type: "button",
          role: "menuitemradio",
          tabIndex: -1,
          "aria-checked": now.size === 1 && now.has(width),
          onClick: () => choose(units, width),
        },
        React.createElement("b", null, writeBits(data.widths[width])),
        ` ${describeOption(data, units, width)}`,
      ),
    ),
  );
};

const writeUnit = (data, most, block, kind, column, unit, width, isAt) => {
  const key = `${block}.${kind}`;
  const common = { key, role: "gridcell", "data-column": column, tabIndex: isAt ? 0 : -1 };
  if (unit === undefined) return React.createElement("div", { ...common, className: "cell none" }, "–");
  const pair = data.units[unit][3][width];
  const [size, kl] = pair ? [writeShortSize(pair[0]), writeKl(pair[1])] : ["–", "–"];
  const looks = ["cell", `h${pair ? shadeOf(pair[1], most) : 0}`, width !== data.low && "promoted"];
  return React.createElement(
    "div",
    {
      ...common,
      className: looks.filter(Boolean).join(" "),
      "aria-haspopup": "menu",
      "aria-label": `Bits of ${key}: ${data.widths[width]}, KL ${kl}, ${size}`,
      title: `${key}: KL ${kl}, ${size}`,
    },
    React.createElement("b", null, data.widths[width]),
    React.createElement("span", null, kl),
    React.createElement("span", null, size),
  );
};

// What is shown of the grid, a line a unit.
const listUnits = (data, rows, widths) => [
  ["Block", "Unit", "Bits", "KL", "Bytes"],
  ...rows.flatMap(([, units]) =>
    units
      .filter((unit) => unit !== undefined)
      .map((unit) => {
        const [name, , , at] = data.units[unit];
        const [bytes, kl] = at[widths[unit]] || [null, null];
        return [Number(name.split(".")[0]), name, data.widths[widths[unit]], kl, bytes];
      }),
  ),
];

// Drawn again only when one of its widths changes or the keys come to it: `state` is what it shows.
const GridRow = React.memo(
  ({ data, most, block, row, units, state, at }) => {
    const widths = state.split(",");
    const isFlagged = data.flagged.includes(block);
    return React.createElement(
      "div",
      { role: "row", className: "row", "aria-rowindex": row + 2, "data-row": row },
      React.createElement(
        "div",
        {
          role: "rowheader",
          className: isFlagged ? "cell head flagged" : "cell head",
          "data-column": -1,
          tabIndex: at === -1 ? 0 : -1,
          "aria-haspopup": "menu",
          "aria-label": `Block ${block}${isFlagged ? ", flagged" : ""}`,
        },
        `${block}${isFlagged ? " ▲" : ""}`,
      ),
      data.kinds.map((kind, column) =>
        writeUnit(data, most, block, kind, column, units[column], Number(widths[column]), at === column),
      ),
    );
  },
  (before, after) => ["data", "block", "row", "state", "at"].every((key) => before[key] === after[key]),
);

// Which blocks and units get a width together.
const Bulk = ({ data, blocks, unitsOf, choose }) => {
  const [which, setWhich] = React.useState(data.flagged.length ? "flagged" : "all");
  const [kind, setKind] = React.useState("");
  const [width, setWidth] = React.useState(data.low);
  const [[from, to], setRange] = React.useState([blocks[0], blocks[blocks.length - 1]]);
  const chosen = { all: () => true, flagged: (b) => data.flagged.includes(b), range: (b) => b >= from && b <= to };
  const units = unitsOf(blocks.filter(chosen[which]), kind ? [kind] : data.kinds);
  const select = (label, value, set, options) =>
    React.createElement(
      "label",
      null,
      React.createElement("span", null, label),
      React.createElement(
        "select",
        { value, "aria-label": label, onChange: ({ target }) => set(target.value) },
        options.map(([key, text]) => React.createElement("option", { key, value: key }, text)),
      ),
    );
  const bound = (label, value, set) =>
    React.createElement(
      "label",
      null,
      React.createElement("span", null, label),
      React.createElement("input", {
        type: "number",
        min: blocks[0],
        max: blocks[blocks.length - 1],
        value,
        "aria-label": label,
        onChange: ({ target }) => set(Number(target.value)),
      }),
    );
  const ways = [["all", "all"], ...(data.flagged.length ? [["flagged", "flagged"]] : []), ["range", "a range"]];
  return React.createElement(
    "form",
    {
      className: "bulk",
      noValidate: true,
      onSubmit: (event) => {
        event.preventDefault();
        choose(units, width);
      },
    },
    select("Blocks", which, setWhich, ways),
    which === "range" ? bound("From block", from, (value) => setRange([value, to])) : null,
    which === "range" ? bound("To block", to, (value) => setRange([from, value])) : null,
    select("Units", kind, setKind, [["", "all"], ...data.kinds.map((each) => [each, each])]),
    select(
      "Width",
      width,
      (value) => setWidth(Number(value)),
      data.widths.slice(0, data.allowed).map((each, at) => [at, writeBits(each)]),
    ),
    React.createElement("button", { type: "submit", className: "act", disabled: !units.length }, "Set together"),
    React.createElement("span", { className: "note", role: "status" }, `${units.length} units`),
  );
};

const MOVES = {
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  PageUp: [-10, 0],
  PageDown: [10, 0],
};

const RecipeGrid = ({ data, widths, take }) => {
  const box = React.useRef(null);
  const [isShort, setShort] = React.useState(false);
  const [[row, column], setAt] = React.useState([0, 0]);
  const [menu, setMenu] = React.useState(null);
  const [rows, places, most] = React.useMemo(() => {
    const found = new Map();
    const named = new Map();
    data.units.forEach(([name], unit) => {
      const cut = name.indexOf(".");
      const [block, kind] = [Number(name.slice(0, cut)), name.slice(cut + 1)];
      if (!found.has(block)) found.set(block, new Array(data.kinds.length).fill(undefined));
      found.get(block)[data.kinds.indexOf(kind)] = unit;
      named.set(name, unit);
    });
    const kls = data.units.map(([, , , at]) => (at[data.low] ? at[data.low][1] : 0));
    return [[...found].sort(([a], [b]) => a - b), named, Math.max(...kls)];
  }, [data]);
  const shown = isShort
    ? rows.filter(([, units]) => units.some((unit) => unit !== undefined && widths[unit] !== data.low))
    : rows;
  const blocks = shown.map(([block]) => block);
  const unitsOf = (of, kinds) =>
    of.flatMap((block) => kinds.map((kind) => places.get(`${block}.${kind}`)).filter((unit) => unit !== undefined));
  const choose = (units, width) => {
    const next = [...widths];
    units.forEach((unit) => data.units[unit][3][width] && (next[unit] = width));
    take(next);
    close(true);
  };
  const find = (r, c) => {
    const line = box.current.querySelector(r < 0 ? ".row.heads" : `.row[data-row="${r}"]`);
    return line && line.querySelector(`[data-column="${c}"]`);
  };
  const goTo = (r, c) => {
    setAt([r, c]);
    const cell = find(r, c);
    if (cell) cell.focus();
  };
  const close = (isBack) => {
    if (menu && isBack) goTo(menu.row, menu.column);
    setMenu(null);
  };
  const open = (r, c, cell) => {
    const target = findTarget(data, blocks, r, c, unitsOf);
    if (!target.units.length) return;
    const [frame, there] = [box.current.getBoundingClientRect(), cell.getBoundingClientRect()];
    const { scrollLeft, scrollTop } = box.current;
    const left = clampTo(there.left - frame.left, Math.max(0, frame.width - 250)) + scrollLeft;
    setAt([r, c]);
    setMenu({ row: r, column: c, target, place: { left, top: there.bottom - frame.top + scrollTop + 2 } });
  };
  const locate = (event) => {
    const cell = event.target.closest("[data-column]");
    if (!cell) return null;
    const line = cell.parentElement.dataset.row;
    return [line === undefined ? -1 : Number(line), Number(cell.dataset.column), cell];
  };
  const onKeyDown = (event) => {
    const place = locate(event);
    if (!place) return;
    const [r, c, cell] = place;
    const isAll = event.ctrlKey || event.metaKey;
    const to = { Home: [isAll ? 0 : r, -1], End: [isAll ? shown.length - 1 : r, data.kinds.length - 1] }[event.key];
    if (event.key in MOVES || to) {
      event.preventDefault();
      const [dr, dc] = MOVES[event.key] || [];
      const [nr, nc] = to || [r + dr, c + dc];
      goTo(clampTo(nr + 1, shown.length) - 1, clampTo(nc + 1, data.kinds.length) - 1);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      open(r, c, cell);
    }
  };
  const heading = (name, c, label) =>
    React.createElement(
      "div",
      {
        key: name,
        role: "columnheader",
        className: "cell head",
        "data-column": c,
        tabIndex: row === -1 && column === c ? 0 : -1,
        "aria-haspopup": "menu",
        "aria-label": label,
      },
      name,
    );
  const cursor = Math.min(row, shown.length - 1);
  return React.createElement(
    React.Fragment,
    null,
    React.createElement(Bulk, { data, blocks: rows.map(([block]) => block), unitsOf, choose }),
    React.createElement(
      "label",
      { className: "only" },
      React.createElement("input", {
        type: "checkbox",
        checked: isShort,
        onChange: ({ target }) => {
          setMenu(null);
          setAt([0, 0]);
          setShort(target.checked);
        },
      }),
      `Only blocks with units not at ${data.widths[data.low]} bits`,
    ),
    React.createElement(
      "p",
      { className: "legend note" },
      "In a cell: its width, its KL at it, its bytes. Shade: KL, ",
      React.createElement("i", { className: "h1", "aria-hidden": true }, "a hundredth"),
      " to ",
      React.createElement("i", { className: `h${HEATS}`, "aria-hidden": true }, "all"),
      " of the largest. A bar marks what is not at the low width.",
    ),
    React.createElement(
      "div",
      { className: data.kinds.length > MOST_COLUMNS ? "unit-frame wide" : "unit-frame", ref: box },
      React.createElement(
        "div",
        {
          className: "unit-grid",
          role: "grid",
          "aria-label": "Widths, blocks by units",
          "aria-rowcount": shown.length + 1,
          style: { "--kinds": data.kinds.length },
          onClick: (event) => {
            const place = locate(event);
            if (place) open(...place);
          },
          onKeyDown,
        },
        React.createElement(
          "div",
          { role: "row", className: "row heads", "aria-rowindex": 1 },
          heading("Block", -1, "Block: set all that is shown"),
          data.kinds.map((kind, c) => heading(kind, c, `${kind}: set the column`)),
        ),
        shown.map(([block, units], r) =>
          React.createElement(GridRow, {
            key: block,
            data,
            most,
            block,
            row: r,
            units,
            state: units.map((unit) => widths[unit]).join(","),
            at: r === cursor ? column : null,
          }),
        ),
      ),
      menu ? React.createElement(WidthMenu, { key: `${menu.row}.${menu.column}`, data, widths, choose, close, ...menu }) : null,
    ),
    React.createElement(
      "div",
      { className: "saves" },
      writeSave("CSV", () => saveText(writeCsv(listUnits(data, shown, widths)), `${nameFile("widths")}.csv`)),
    ),
  );
};

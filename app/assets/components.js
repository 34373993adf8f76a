// The dashboard's own components (see app/components.py). Text only ever becomes a text node.

const LOOKS_NUMERIC = /^[0-9+−–[-]/;
// What is out of sight is drawn when the page has come to rest, so that it can be printed.
const REST = 2000;

const Link = ({ href, className, is_here, children }) =>
  React.createElement(
    "a",
    {
      href,
      className: className || undefined,
      "aria-current": is_here ? "page" : undefined,
      onClick: (event) => {
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
        event.preventDefault();
        navigate(href);
      },
    },
    children,
  );

const writePiece = (piece, key) => {
  if (typeof piece === "string") return piece;
  if (piece.href) return React.createElement(Link, { key, href: piece.href }, piece.text);
  if ("look" in piece) return React.createElement("span", { key, className: piece.look }, piece.text);
  return React.createElement("code", { key, className: piece.code }, piece.text);
};

const writeCell = (cell, key) => {
  const isNumber = typeof cell === "string" && LOOKS_NUMERIC.test(cell);
  const content = Array.isArray(cell) ? cell.map(writePiece) : writePiece(cell);
  return React.createElement("td", { key, className: isNumber ? "number" : undefined }, content);
};

const writeTable = ({ columns, rows, marks, caption }) =>
  React.createElement(
    "div",
    { className: "scroll", tabIndex: 0, role: "region", "aria-label": caption || columns.join(", ") },
    React.createElement(
      "table",
      null,
      caption ? React.createElement("caption", null, caption) : null,
      React.createElement(
        "thead",
        null,
        React.createElement(
          "tr",
          null,
          columns.map((name, key) => React.createElement("th", { key, scope: "col" }, name)),
        ),
      ),
      React.createElement(
        "tbody",
        null,
        rows.map((row, key) =>
          React.createElement("tr", { key, className: marks[key] || undefined }, row.map(writeCell)),
        ),
      ),
    ),
  );

const Table = (props) => {
  const [isOpen, setOpen] = React.useState(false);
  if (!props.folded) return writeTable(props);
  return React.createElement(
    "details",
    { onToggle: (event) => setOpen(event.currentTarget.open) },
    React.createElement("summary", null, props.folded),
    isOpen ? writeTable(props) : null,
  );
};

const Text = React.memo(({ window: number, tokens, label }) =>
  React.createElement(
    "div",
    { id: "text-view", className: "text", tabIndex: 0, role: "listbox", "aria-label": label },
    tokens.map(([position, text, look, title]) =>
      React.createElement(
        "span",
        {
          key: position,
          id: `t-${position}`,
          className: look,
          title,
          role: "option",
          "data-position": position,
          "data-window": number,
        },
        text,
      ),
    ),
  ),
);

const Later = ({ height, children }) => {
  const [isDue, setDue] = React.useState(false);
  const box = React.useRef(null);
  React.useEffect(() => {
    if (isDue) return undefined;
    const show = () => setDue(true);
    const watch = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && show(),
      { rootMargin: "200px" },
    );
    watch.observe(box.current);
    const rest = setTimeout(show, REST);
    return () => {
      watch.disconnect();
      clearTimeout(rest);
    };
  }, [isDue]);
  return React.createElement(
    "div",
    { ref: box, style: { minHeight: height } },
    isDue ? children : null,
  );
};

window.awqscope = { Link, Table, Text, Later };

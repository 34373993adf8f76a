// The dashboard's own components (see app/dashboard/components.py). Text only ever becomes a text node.

const LOOKS_NUMERIC = /^[0-9+−–[-]/;
// What is out of sight is drawn as soon as there is nothing else to do, at the latest then: whoever
// scrolls or prints finds it there.
const REST = 2000;
const whenIdle = (act) =>
  window.requestIdleCallback
    ? [window.cancelIdleCallback, window.requestIdleCallback(act, { timeout: REST })]
    : [clearTimeout, setTimeout(act, REST)];

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

// What a term means, beside it: shown while it is pointed at or focused, and once it is tapped. It is
// read as the term's description whether it is shown or not.
const ROOM = 12;
const Hint = ({ meaning, children }) => {
  const [place, setPlace] = React.useState(null);
  const id = React.useId();
  const word = React.useRef(null);
  const box = React.useRef(null);
  const show = () => {
    const at = word.current.getBoundingClientRect();
    const width = box.current.offsetWidth;
    const room = document.documentElement.clientWidth - width - ROOM;
    setPlace({ left: Math.max(ROOM, Math.min(at.left, room)), top: at.bottom + 6 });
  };
  const hide = () => setPlace(null);
  React.useEffect(() => {
    if (!place) return undefined;
    const leave = (event) => {
      if (event.type === "keydown" ? event.key === "Escape" : !word.current.contains(event.target)) hide();
    };
    const when = ["keydown", "pointerdown", "scroll"];
    when.forEach((name) => document.addEventListener(name, leave, true));
    return () => when.forEach((name) => document.removeEventListener(name, leave, true));
  }, [place]);
  return React.createElement(
    React.Fragment,
    null,
    React.createElement(
      "button",
      {
        ref: word,
        type: "button",
        className: "term",
        "aria-describedby": id,
        onClick: show,
        onFocus: show,
        onBlur: hide,
        onMouseEnter: show,
        onMouseLeave: hide,
      },
      children,
    ),
    // Apart from the text that the term stands in, whose words it would be among.
    ReactDOM.createPortal(
      React.createElement(
        "div",
        { ref: box, id, role: "tooltip", className: place ? "meaning" : "meaning unseen", style: place || undefined },
        meaning,
      ),
      document.getElementById("hints"),
    ),
  );
};

const writePiece = (piece, key) => {
  if (typeof piece === "string") return piece;
  if ("meaning" in piece) return React.createElement(Hint, { key, meaning: piece.meaning }, piece.text);
  if (piece.href) return React.createElement(Link, { key, href: piece.href, className: piece.look }, piece.text);
  if ("look" in piece) return React.createElement("span", { key, className: piece.look }, piece.text);
  return React.createElement("code", { key, className: piece.code }, piece.text);
};

const writeCell = (cell, key) => {
  const isNumber = typeof cell === "string" && LOOKS_NUMERIC.test(cell);
  const content = Array.isArray(cell) ? cell.map(writePiece) : writePiece(cell);
  return React.createElement("td", { key, className: isNumber ? "number" : undefined }, content);
};

// A heading without words is no heading to those who hear the page.
const writeHeading = (name, key, headings) => {
  if (!name) return React.createElement("td", { key });
  const pieces = (headings[name] || [name]).map((piece, at) =>
    typeof piece === "string" ? piece : React.createElement(Hint, { key: at, meaning: piece[1] }, piece[0]),
  );
  return React.createElement("th", { key, scope: "col" }, pieces);
};

const writeTable = ({ columns, caption, headings }, rows, marks) =>
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
        React.createElement("tr", null, columns.map((name, key) => writeHeading(name, key, headings || {}))),
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

const writeTurn = (text, isPossible, turn) =>
  React.createElement("button", { type: "button", disabled: !isPossible, onClick: turn }, text);

// Rows a page at a time, so that no table scrolls inside the page that scrolls.
const Pages = (props) => {
  const { rows, marks, per_page: size } = props;
  const first = Math.max(0, marks.indexOf("chosen"));
  const [start, setStart] = React.useState(0);
  const [isWhole, setWhole] = React.useState(false);
  const isPrinted = usePrinted();
  React.useEffect(() => setStart(first - (first % size)), [rows, first, size]);
  const save = React.createElement(SaveTable, props);
  if (rows.length <= size || isPrinted)
    return React.createElement(React.Fragment, null, writeTable(props, rows, marks), save);
  const from = isWhole ? 0 : Math.min(start, rows.length - 1);
  const to = isWhole ? rows.length : Math.min(from + size, rows.length);
  const places = `${(from + 1).toLocaleString("en")} to ${to.toLocaleString("en")}`;
  return React.createElement(
    React.Fragment,
    null,
    writeTable(props, rows.slice(from, to), marks.slice(from, to)),
    React.createElement(
      "div",
      { className: "turns" },
      React.createElement(
        "span",
        { role: "status" },
        isWhole ? `All ${rows.length.toLocaleString("en")}` : `${places} of ${rows.length.toLocaleString("en")}`,
      ),
      writeTurn("Previous", !isWhole && from > 0, () => setStart(Math.max(0, from - size))),
      writeTurn("Next", !isWhole && to < rows.length, () => setStart(from + size)),
      writeTurn(isWhole ? "By pages" : "All", true, () => setWhole(!isWhole)),
      save,
    ),
  );
};

const Table = (props) => {
  const [isOpen, setOpen] = React.useState(false);
  if (!props.folded) return React.createElement(Pages, props);
  return React.createElement(
    "details",
    { onToggle: (event) => setOpen(event.currentTarget.open) },
    React.createElement("summary", null, props.folded),
    isOpen ? React.createElement(Pages, props) : null,
  );
};

const Title = ({ text }) => {
  React.useEffect(() => {
    document.title = text;
  }, [text]);
  return null;
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

// Whether there is a chart in a box yet: its script may still be on the way.
const useDrawn = (box, isDue) => {
  const [isDrawn, setDrawn] = React.useState(false);
  React.useEffect(() => {
    if (!isDue || isDrawn) return undefined;
    const look = () => box.current.querySelector(".main-svg") && setDrawn(true);
    const watch = new MutationObserver(look);
    watch.observe(box.current, { childList: true, subtree: true });
    look();
    return () => watch.disconnect();
  }, [isDue, isDrawn]);
  return isDrawn;
};

const Later = ({ height, children }) => {
  const [isSeen, setSeen] = React.useState(false);
  const isPrinted = usePrinted();
  const box = React.useRef(null);
  // What has been drawn once stays.
  const isDue = isSeen || isPrinted;
  const isDrawn = useDrawn(box, isDue);
  React.useEffect(() => {
    if (isSeen) return undefined;
    const show = () => setSeen(true);
    if (isPrinted) show();
    const watch = new IntersectionObserver(
      (entries) => entries.some((entry) => entry.isIntersecting) && show(),
      { rootMargin: "200px" },
    );
    watch.observe(box.current);
    const [forget, rest] = whenIdle(show);
    return () => {
      watch.disconnect();
      forget(rest);
    };
  }, [isSeen, isPrinted]);
  return React.createElement(
    "div",
    { ref: box, className: isDrawn ? undefined : "waits", style: { minHeight: height } },
    isDue ? children : null,
  );
};

window.awqscope = { Link, Hint, Table, Text, Title, Later };

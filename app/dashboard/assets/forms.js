// Forms that ask for what they show (see app/dashboard/asking.py): fields are read from the page the moment a
// button is pressed, for dash is told of them later than that.

const REST_MS = 300;
let asked = 0;
let resting = 0;

const readForm = (form) => {
  const values = Object.fromEntries(new FormData(form));
  // Line ends as they are, not as a form would send them.
  form.querySelectorAll("textarea[name]").forEach((area) => (values[area.name] = area.value));
  // A switch has no name: its field is in its id.
  form.querySelectorAll("input[type=checkbox][id^='{']").forEach((box) => {
    values[JSON.parse(box.id).field] = box.checked;
  });
  return values;
};

const tell = (store, form) => {
  const { pathname: path, search } = window.location;
  asked += 1;
  window.dash_clientside.set_props(store, { data: { values: readForm(form), path, search, asked } });
};

document.addEventListener("submit", (event) => {
  const store = event.target.dataset.asks;
  if (!store) return;
  event.preventDefault();
  tell(store, event.target);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest && event.target.closest("form[data-asks] button[data-asks]");
  // The second click of a double click asks for nothing more.
  if (!button || button.disabled || event.detail > 1) return;
  if (button.dataset.asks === "form") button.form.requestSubmit();
  else tell(button.dataset.asks, button.form);
});

document.addEventListener(
  "keydown",
  (event) => {
    const form = event.target.form;
    if (event.key !== "Enter" || !form || !form.dataset.asks) return;
    if (event.target.tagName === "TEXTAREA") {
      const asks = "enter" in form.dataset && !event.shiftKey && !event.isComposing;
      if (!asks && !event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      if (!event.repeat) form.requestSubmit();
    } else if (event.repeat) {
      event.preventDefault();
    }
  },
  true,
);

// What is typed is told once nothing has been typed for a moment.
document.addEventListener("input", ({ target: { form } }) => {
  if (!form || !form.dataset.types) return;
  clearTimeout(resting);
  resting = setTimeout(() => form.isConnected && tell(form.dataset.types, form), REST_MS);
});

// A field's error goes once the field changes; what the form will start is asked for once no field
// has changed for a moment.
Object.assign(window.dash_clientside.awqscope, {
  followFields() {
    const form = document.querySelector("form[data-shows]");
    const { triggered } = window.dash_clientside.callback_context;
    triggered.forEach(({ prop_id: changed }) => {
      if (!changed.startsWith("{")) return;
      const id = JSON.parse(changed.slice(0, changed.lastIndexOf(".")));
      if (id.type === "new") window.dash_clientside.set_props(id, { error: "" });
    });
    if (triggered.length) window.dash_clientside.set_props("new-said", { children: "" });
    clearTimeout(resting);
    if (form) {
      resting = setTimeout(() => form.isConnected && tell(form.dataset.shows, form), REST_MS);
    }
    return window.dash_clientside.no_update;
  },
});

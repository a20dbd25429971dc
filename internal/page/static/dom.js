// What the page is built of. Text is only ever set as text, never as markup.

export const $ = (id) => document.getElementById(id);

// el makes an element: properties by name, classes and data by "class" and "data-…", children last.
export function el(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) e.addEventListener(key.slice(2), value);
    else if (value === true) e.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) e.setAttribute(key, value);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}

export function svg(name, attributes = {}, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) e.setAttribute(key, value);
  e.append(...children);
  return e;
}

// setText and set change only what differs, so that a reader's place, a selection and the focus stay.
export function setText(e, text) {
  if (e.textContent !== text) e.textContent = text;
}

export function set(e, attribute, value) {
  if (value === null || value === false) {
    if (e.hasAttribute(attribute)) e.removeAttribute(attribute);
  } else if (e.getAttribute(attribute) !== String(value)) e.setAttribute(attribute, value);
}

// keyed makes the children of a list those of items, in their order: old ones are kept by their key, and update is called for each. The focus stays where it is.
export function keyed(parent, items, keyOf, make, update) {
  const focused = document.activeElement;
  const old = new Map([...parent.children].map((c) => [c.dataset.key, c]));
  const keys = items.map((item) => String(keyOf(item)));
  const wanted = new Set(keys);
  for (const [key, e] of old) {
    if (!wanted.has(key)) e.remove();
  }
  let place = parent.firstElementChild;
  items.forEach((item, i) => {
    let e = old.get(keys[i]);
    if (!e) {
      e = make(item);
      e.dataset.key = keys[i];
    }
    if (e === place) place = place.nextElementSibling;
    else parent.insertBefore(e, place);
    update(e, item);
  });
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
}

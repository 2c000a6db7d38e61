//! Arrow keys in lists.
//!
//! In: a list, a selector of what takes the focus in it. Out: ArrowUp, ArrowDown, Home and End move the focus.

const STEPS = { ArrowDown: (at) => at + 1, ArrowUp: (at) => at - 1, Home: () => 0, End: () => Infinity };

/// One stop of the Tab key for the whole list, unless `stops` asks for one at each entry.
export function arrowKeys(list, selector, { stops = false } = {}) {
  const entries = () => [...list.querySelectorAll(selector)];
  const hold = (entry) => stops || entries().forEach((other) => (other.tabIndex = other === entry ? 0 : -1));
  hold(entries()[0]);
  list.addEventListener("focusin", (event) => entries().includes(event.target) && hold(event.target));
  list.addEventListener("keydown", (event) => {
    const all = entries();
    const at = all.indexOf(event.target);
    if (at === -1 || STEPS[event.key] === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    all[Math.min(Math.max(STEPS[event.key](at), 0), all.length - 1)].focus();
  });
}

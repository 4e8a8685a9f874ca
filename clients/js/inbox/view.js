/** The bell, its panel and the list in it: what is on the screen and where the focus is. Asks the gateway nothing. */
import { Item, icon, make } from "./item.js";
import { styles } from "./style.js";

const SAID_TOGETHER = 500;
const MINUTE = 60000;

export class View {
  #root;
  #does;
  #words;
  #links;
  #language;
  #items = new Map();
  #current = null;
  #titles = [];
  #minutes;
  /** The focus waits in the panel for what is to be loaded. */
  #awaited = false;
  #notice = {};

  /** `does`: `toggle(open)`, `select(entry, event)`, `read(entry)`, `hide(entry)`, `readAll()`, `older()`, `again()`. */
  constructor(root, does) {
    this.#root = root;
    this.#does = does;
    root.adoptedStyleSheets = [styles()];
  }

  /** Everything anew, in these words. `links`: the rule for links; `language`: of the times. */
  build(words, links, language) {
    this.#words = words;
    this.#links = links;
    this.#language = language;
    this.#items.clear();
    this.#current = null;
    const does = this.#does;
    const slot = make("slot", { name: "icon" }, icon("bell"));
    this.badge = make("span", { className: "badge", hidden: true, ariaHidden: "true" });
    this.bell = make("button", { type: "button", className: "bell", onclick: () => does.toggle() }, slot, this.badge);
    this.all = make("button", { type: "button", className: "all", textContent: words.readAll, onclick: () => this.#all() });
    this.said = make("span");
    this.again = make("button", { type: "button", className: "again", textContent: words.again, hidden: true });
    this.again.onclick = () => does.again();
    this.notice = make("div", { className: "notice", hidden: true }, this.said, this.again);
    this.empty = make("p", { className: "empty" });
    this.list = make("ul", { hidden: true });
    this.older = make("button", { type: "button", className: "older", textContent: words.older, hidden: true });
    this.older.onclick = () => does.older();
    this.scroll = make("div", { className: "scroll" }, this.list, this.empty, this.older);
    const head = make("div", { className: "head" }, make("h2", { id: "heading", textContent: words.heading }), this.all);
    this.panel = make("section", { id: "panel", className: "panel", tabIndex: -1, hidden: true }, head, this.scroll, this.notice);
    this.live = make("div", { className: "hidden" });
    for (const [element, attributes] of [
      [this.bell, { part: "bell", "aria-haspopup": "dialog", "aria-expanded": "false", "aria-controls": "panel" }],
      [this.badge, { part: "badge" }],
      [this.panel, { part: "panel", role: "dialog", "aria-labelledby": "heading" }],
      [this.list, { role: "list" }], // Safari takes it away from a list without bullets
      [this.live, { role: "status" }],
    ]) {
      for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    }
    this.list.addEventListener("focusin", ({ target }) => this.#reach(this.#of(target)));
    this.panel.onkeydown = (event) => this.#key(event);
    this.bell.onkeydown = (event) => {
      if (event.key !== "ArrowDown") return;
      event.preventDefault();
      does.toggle(true);
    };
    this.#root.replaceChildren(this.bell, this.panel, this.live);
    this.unread(null);
  }

  get open() {
    return !this.panel.hidden;
  }

  /** With `focus` it goes where the user goes on: to the first notification, or back to the bell. */
  toggle(open, focus) {
    clearInterval(this.#minutes);
    this.#awaited = false;
    this.panel.hidden = !open;
    this.bell.setAttribute("aria-expanded", String(open));
    if (open) this.#minutes = setInterval(() => this.#items.forEach((item) => item.update(this.#language)), MINUTE);
    if (!focus) return;
    if (!open) this.bell.focus();
    else (this.#current?.title ?? this.panel).focus();
    this.#awaited = open && !this.#current;
  }

  unread(count) {
    this.badge.hidden = !count;
    this.badge.textContent = count > 99 ? "99+" : String(count || "");
    this.bell.setAttribute("aria-label", this.#words.bell(count ?? 0));
    this.all.setAttribute("aria-disabled", String(!count));
  }

  /** What stands below the list, so that nothing moves, of whichever `kind` there is something to say; `again`: with a button to try again. */
  notices(kind, says, again = false) {
    this.#notice[kind] = says && { text: says, again };
    const { ended, failed, offline } = this.#notice;
    const said = ended || failed || offline;
    this.notice.hidden = !said;
    const text = said ? said.text : "";
    if (text && text !== this.said.textContent && (this.open || ended)) this.live.textContent = text;
    this.said.textContent = text;
    const focused = this.#root.activeElement === this.again;
    this.again.hidden = !said?.again;
    if (focused && this.again.hidden) this.panel.focus();
  }

  /** To screen readers, and together what comes together. */
  announce(title) {
    if (this.#titles.push(title) > 1) return;
    this.live.textContent = ""; // else the same title again would be no change
    setTimeout(() => {
      this.live.textContent = this.#words.came(this.#titles.splice(0));
    }, SAID_TOGETHER);
  }

  /** `entries` in their order; `more`: there are older ones; `text`: in the place of a list that is empty. */
  render(entries, more, text) {
    const active = this.#root.activeElement;
    const held = this.#of(active);
    const at = held ? [...this.list.children].indexOf(held.element) : -1;
    const shown = new Set(entries.map(({ id }) => id));
    for (const [id, item] of this.#items) {
      if (shown.has(id)) continue;
      item.element.remove();
      this.#items.delete(id);
    }
    entries.forEach((entry, index) => {
      let item = this.#items.get(entry.id);
      if (!item) {
        item = new Item(entry, { words: this.#words, links: this.#links, does: this.#does });
        this.#items.set(entry.id, item);
      }
      item.update(this.#language, entry);
      // Only what is out of its place is moved: what is moved loses the focus.
      const there = this.list.children[index];
      if (there !== item.element) this.list.insertBefore(item.element, there ?? null);
    });
    this.list.hidden = !entries.length;
    this.empty.hidden = !!entries.length;
    this.empty.textContent = text;
    if (active === this.older && !more) this.panel.focus();
    this.older.hidden = !more;
    const gone = this.#current && !this.#current.element.isConnected;
    if (gone || !this.#current) this.#reach(this.#at(Math.min(Math.max(at, 0), entries.length - 1)));
    // What had the focus has left: it goes on to the one that took its place.
    if (held && !held.element.isConnected) (this.#current?.title ?? this.panel).focus();
    if (!this.#awaited || !this.#current) return;
    this.#awaited = false;
    if (active === this.panel) this.#current.title.focus();
  }

  /** The first one after those that were there: `count` of them. */
  focusAt(count) {
    this.#at(count)?.title.focus();
  }

  end() {
    clearInterval(this.#minutes);
  }

  #all() {
    if (this.all.getAttribute("aria-disabled") === "false") this.#does.readAll();
  }

  #at(index) {
    return this.#of(this.list.children[index]);
  }

  #of(element) {
    const li = element?.closest?.("li");
    return (li && [...this.#items.values()].find((item) => item.element === li)) || null;
  }

  #reach(item) {
    this.#current?.reach(false);
    this.#current = item;
    item?.reach(true);
  }

  #key(event) {
    const { key } = event;
    if (key === "Escape") {
      event.stopPropagation();
      return this.#does.toggle(false);
    }
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const item = this.#of(this.#root.activeElement);
    const index = item ? [...this.list.children].indexOf(item.element) : -1;
    const to = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: this.list.children.length - 1 }[key];
    if (to !== undefined && (item || key === "ArrowDown")) this.#at(to)?.title.focus();
    else if (item && (key === "ArrowRight" || key === "ArrowLeft")) item.whole();
    else if (item && key === "Delete") this.#does.hide(item.entry);
    else return;
    event.preventDefault();
  }
}

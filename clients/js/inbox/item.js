/** One notification on the screen. Whatever it holds becomes text; the only attribute made of it is a checked link. */
import { linkOf } from "./entries.js";
import { ago } from "./words.js";

const PATHS = {
  bell: "M18 8a6 6 0 0 0-12 0c0 7-3 9-3 9h18s-3-2-3-9M13.7 21a2 2 0 0 1-3.4 0",
  read: "M5 12.5l4.5 4.5L19 7.5",
  hide: "M6.5 6.5l11 11M17.5 6.5l-11 11",
};

/** An element with these properties and children. */
export const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

export const icon = (name) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
};

export class Item {
  #words;
  #mark;
  #read;
  #time;

  /** `does`: `select(entry, event)`, `read(entry)`, `hide(entry)`. */
  constructor(entry, { words, links, does }) {
    this.entry = entry;
    this.#words = words;
    const { title, body, category, created_at } = entry;
    const url = linkOf(entry, document.baseURI, links);
    // Its own direction, or that of the title would be the one of this word.
    this.#mark = make("span", { className: "hidden", dir: "auto", textContent: `${words.unread}: ` });
    this.title = make(url ? "a" : "button", { className: "title", dir: "auto" }, this.#mark, title);
    if (url) Object.assign(this.title, { href: url.href, rel: "noopener noreferrer" });
    else this.title.type = "button";
    this.title.onclick = (event) => {
      if (!url) this.whole();
      does.select(this.entry, event);
    };
    this.body = make("p", { className: "body", dir: "auto", textContent: body ?? "" });
    this.body.onclick = () => String(getSelection()) || this.whole(); // not if it was marked to be copied
    this.#time = make("time", { dateTime: created_at, title: new Date(created_at).toLocaleString() });
    const about = make("p", { className: "about" }, this.#time);
    if (category) about.append(make("span", { textContent: category, dir: "auto" }));
    // Where it leads to, if that is another site: a title can say anything.
    if (url && url.origin !== location.origin) about.append(make("span", { textContent: url.host, dir: "ltr" }));
    this.#read = this.#button("read", () => does.read(this.entry));
    const text = make("div", { className: "text" }, this.title, this.body, about);
    const buttons = make("div", { className: "buttons" }, this.#read, this.#button("hide", () => does.hide(this.entry)));
    this.element = make("li", {}, text, buttons);
    this.element.setAttribute("part", "item");
    this.reach(false);
  }

  /** As it is now; `language` of the time. */
  update(language, entry = this.entry) {
    this.entry = entry;
    const { unread, created_at } = entry;
    if (!unread && this.element.getRootNode().activeElement === this.#read) this.title.focus();
    this.element.classList.toggle("unread", unread);
    this.#mark.hidden = !unread;
    this.#time.textContent = ago(created_at, language);
  }

  /** Whether the Tab key comes here: to one item of the list, from which arrow keys lead to the others. */
  reach(tabbable) {
    for (const one of this.element.querySelectorAll("a, button")) one.tabIndex = tabbable ? 0 : -1;
  }

  /** A long body is cut off after some lines until it is asked for. */
  whole(whole = !this.element.classList.contains("whole")) {
    this.element.classList.toggle("whole", whole);
  }

  #button(name, onclick) {
    const button = make("button", { type: "button", className: name, title: this.#words[name], onclick }, icon(name));
    button.setAttribute("aria-label", `${this.#words[name]}: ${this.entry.title}`);
    return button;
  }
}

/**
 * `<notification-inbox>`: a bell with the number of unread notifications, and a panel with the list, live. INBOX.md
 * beside this directory says what a page can set, style and hear. It keeps nothing: no token, no notification.
 */
import { connect } from "../gateway.min.js";
import { Entries } from "./entries.js";
import { View } from "./view.js";
import { WORDS } from "./words.js";

const PAGE = 30;
/** More than this is not kept of a list that nobody looks at: it is loaded again when somebody does. */
const KEPT = 200;
const LARGEST_PAGE = 200;
/** A connection that is away for so short a time is nobody's concern. */
const PATIENCE = 3000;
const SETTABLE = ["client", "getToken", "words"];

const HTMLElement = globalThis.HTMLElement ?? Object; // where a page is only rendered, there is none

export class NotificationInbox extends HTMLElement {
  static observedAttributes = ["open", "url", "token-url", "links"];
  #view;
  #entries = new Entries();
  #given = {};
  #client = null;
  #own = false;
  #rev = 0;
  #off = [];
  #starting = false;
  #drawing;
  #patience;
  #loading = null;
  #ended = null;
  #focus = false;

  constructor() {
    super();
    this.#view = new View(this.attachShadow({ mode: "open" }), {
      toggle: (open = !this.open) => this.#toggle(open, true),
      select: (entry, event) => this.#select(entry, event),
      read: (entry) => this.#read({ ids: [entry.id] }, () => this.#client.markRead(entry.id)),
      hide: (entry) => this.#hide(entry),
      readAll: () => this.#readAll(),
      older: () => this.#older(),
      again: () => this.#again(),
    });
  }

  /** A client of the page's own (`connect`), used and not closed here; else the one that this element has made. */
  get client() {
    return this.#given.client ?? this.#client;
  }

  set client(client) {
    this.#give("client", client);
  }

  /** As that of `connect`. */
  get getToken() {
    return this.#given.getToken;
  }

  set getToken(getToken) {
    this.#give("getToken", getToken);
  }

  /** In the place of those of words.js, all or some. */
  get words() {
    return { ...WORDS, ...this.#given.words };
  }

  set words(words) {
    this.#give("words", words);
  }

  get open() {
    return this.hasAttribute("open");
  }

  set open(open) {
    this.toggleAttribute("open", !!open);
  }

  /** How many are unread; null until the gateway has said. */
  get unread() {
    return this.#client?.unread ?? null;
  }

  connectedCallback() {
    for (const name of SETTABLE) {
      if (!Object.hasOwn(this, name)) continue;
      // Set before this class was known: the property hides the accessor.
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
    document.addEventListener("pointerdown", this.#outside);
    this.addEventListener("focusout", this.#left);
    if (!this.#client) this.#restart(); // else it was only moved
  }

  disconnectedCallback() {
    document.removeEventListener("pointerdown", this.#outside);
    // Perhaps it is only moved to another place.
    queueMicrotask(() => this.isConnected || this.#stop());
  }

  attributeChangedCallback(name, before, now) {
    if (!this.isConnected || before === now || this.#starting) return;
    if (name !== "open") this.#restart();
    else if (this.#view.panel) this.#opened(now !== null);
  }

  // -- the client --

  #give(name, value) {
    this.#given[name] = value;
    if (this.isConnected) this.#restart();
  }

  /** In a moment: what a page sets one after the other is taken together. */
  #restart() {
    if (this.#starting) return;
    this.#starting = true;
    queueMicrotask(() => {
      this.#starting = false;
      if (this.isConnected) this.#start();
    });
  }

  #start() {
    this.#stop();
    const view = this.#view;
    const language = this.closest("[lang]")?.lang || navigator.language;
    view.build(this.words, this.getAttribute("links"), language);
    const client = this.#given.client ?? this.#connect();
    if (client) this.#listen(client);
    if (this.open) this.#opened(true);
  }

  #connect() {
    const url = new URL(this.getAttribute("url") || "/", document.baseURI).href.replace(/\/$/, "");
    const tokens = this.getAttribute("token-url");
    let { getToken } = this.#given;
    // With nothing else to go by, whoever has signed in by cookie on the gateway's own origin.
    const from = tokens ? new URL(tokens, document.baseURI) : `${url}/auth/refresh`;
    if (!getToken && (tokens || new URL(url).origin === location.origin)) {
      getToken = async () => (await fetch(from, { method: "POST" })).json();
    }
    if (!getToken) return null; // it will be set
    this.#own = true;
    // What is marked as read by following a link has to outlive the page.
    const lasting = (address, how) => fetch(address, { ...how, keepalive: how.method === "POST" });
    return connect({ url, getToken, fetch: lasting });
  }

  #listen(client) {
    this.#client = client;
    const heard = {
      notification: (notification) => this.#came(notification),
      read: (frame) => this.#changed(frame.rev, () => this.#entries.read(frame)),
      withdrawn: (frame) => this.#changed(frame.rev, () => this.#entries.remove(frame.id)),
      changed: ({ rev }) => this.#changed(rev, () => this.#reload()),
      unread: (count) => this.#count(count),
      state: (event) => this.#state(event),
      close: (end) => this.#close(end),
    };
    this.#off = Object.entries(heard).map(([type, handler]) => client.on(type, handler));
    if (client.state === "closed") this.#close({ reason: "closed" });
    else this.#state({ state: client.state });
    if (client.unread !== null) this.#count(client.unread);
  }

  #stop() {
    for (const off of this.#off) off();
    this.#off = [];
    if (this.#own) this.#client.close();
    this.#own = false;
    this.#client = this.#loading = this.#ended = null;
    this.#entries.forget();
    this.#rev = 0;
    clearTimeout(this.#patience);
    clearTimeout(this.#drawing);
    this.#drawing = undefined;
    this.#view.end();
  }

  // -- what is heard --

  #came(notification) {
    if (!this.#entries.add(notification)) return;
    if (!this.open && this.#entries.size > KEPT) this.#entries.forget();
    this.#view.announce(notification.title);
    this.#say("notification", notification);
    this.#draw();
  }

  #changed(rev, apply) {
    this.#rev = rev;
    apply();
    this.#draw();
  }

  #count(unread) {
    this.#view.unread(unread);
    this.#say("unread", unread);
  }

  #state(event) {
    clearTimeout(this.#patience);
    this.#patience = undefined;
    if (event.state === "open" || event.state === "closed") this.#view.notices("offline", null);
    else this.#patience = setTimeout(() => this.#view.notices("offline", this.words.offline), PATIENCE);
    if (event.state === "open") {
      this.#view.notices("failed", null);
      if (this.open && this.#entries.next === undefined) this.#reload();
    }
    this.#say("state", event);
  }

  /** For good. Whose session is over may not go on reading what was shown. */
  #close(end) {
    this.#ended = end.reason;
    this.#loading = null;
    this.#entries.forget();
    this.#view.unread(0);
    this.#view.notices("ended", this.words.ended(end.reason));
    this.#draw();
    this.#say("close", end);
  }

  #say(name, detail, cancelable = false) {
    return this.dispatchEvent(new CustomEvent(`inbox-${name}`, { detail, cancelable, bubbles: true, composed: true }));
  }

  // -- what is shown --

  #toggle(open, focus = false) {
    this.#focus = focus;
    this.open = open; // which is heard as a change of the attribute
    this.#focus = false;
  }

  #opened(open) {
    if (open) {
      const expired = this.#entries.list().some(({ expires_at }) => Date.parse(expires_at) < Date.now());
      if (expired || this.#entries.next === undefined) this.#reload();
      this.#drawNow();
    }
    this.#view.toggle(open, this.#focus);
    this.#say("toggle", open);
  }

  #outside = (event) => {
    if (this.open && !event.composedPath().includes(this)) this.#toggle(false);
  };

  /** The Tab key leads out of it: nothing may lie over where it leads to. */
  #left = ({ relatedTarget }) => {
    if (this.open && relatedTarget && !this.contains(relatedTarget)) this.#toggle(false);
  };

  /** Soon, and what has changed together once. */
  #draw() {
    this.#drawing ??= setTimeout(() => this.#drawNow(), 20);
  }

  #drawNow() {
    clearTimeout(this.#drawing);
    this.#drawing = undefined;
    const { words } = this;
    const text = this.#ended ? "" : this.#loading || !this.#client ? words.loading : words.empty;
    this.#view.render(this.#entries.list(), !this.#ended && this.#entries.next != null, text);
  }

  // -- what is asked of the gateway --

  /** As much as is on the screen, from the newest on. */
  #reload() {
    if (!this.open) return this.#entries.forget();
    const limit = Math.min(Math.max(this.#entries.size, PAGE), LARGEST_PAGE);
    return this.#load({ limit }, (page) => this.#entries.replace(page));
  }

  async #older() {
    const { size, next } = this.#entries;
    await this.#load({ limit: PAGE, before: next }, (page) => this.#entries.append(page));
    if (this.#entries.size > size) this.#view.focusAt(size);
  }

  async #load(query, take) {
    const client = this.#client;
    if (!client || this.#ended) return;
    const turn = (this.#loading = {});
    try {
      let page;
      // One from before a change that has been heard of would undo it.
      do page = await client.inbox(query);
      while (turn === this.#loading && page.rev < this.#rev);
      if (turn !== this.#loading) return;
      this.#loading = null;
      take(page);
      this.#view.notices("failed", null);
    } catch {
      if (turn !== this.#loading) return;
      this.#loading = null;
      if (!this.#ended) this.#view.notices("failed", this.words.notLoaded, true);
    }
    this.#drawNow();
  }

  #again() {
    this.#view.notices("failed", null);
    this.#reload();
    this.#draw();
  }

  #select(entry, event) {
    if (!this.#say("select", entry, true)) event.preventDefault();
    if (entry.unread) this.#read({ ids: [entry.id] }, () => this.#client.markRead(entry.id));
  }

  #readAll() {
    const newest = this.#entries.list().find(({ seq }) => seq !== null)?.seq ?? 0;
    return this.#read({ up_to: newest }, () => this.#client.readAll());
  }

  #read(what, ask) {
    return this.#try(ask, () => this.#entries.read(what));
  }

  #hide(entry) {
    const { id, seq } = entry;
    return this.#try(async () => seq === null || this.#client.hide(id), () => this.#entries.remove(id));
  }

  async #try(ask, done) {
    try {
      await ask();
      done();
      this.#view.notices("failed", null);
    } catch {
      if (!this.#ended) this.#view.notices("failed", this.words.failed);
    }
    this.#drawNow();
  }
}

if (globalThis.customElements && !customElements.get("notification-inbox")) {
  customElements.define("notification-inbox", NotificationInbox);
}

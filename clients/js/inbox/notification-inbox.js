/**
 * `<notification-inbox>`: a bell with the number of unread notifications, and a panel with the list, live. INBOX.md
 * beside this directory says what a page can set, style and hear. It keeps nothing: no token, no notification.
 */
import { connect } from "../gateway.min.js";
import { Listing } from "./listing.js";
import { View } from "./view.js";
import { WORDS } from "./words.js";

/** A connection that is away for so short a time is nobody's concern. */
const PATIENCE = 3000;
const SETTABLE = ["client", "getToken", "words"];

const HTMLElement = globalThis.HTMLElement ?? Object; // where a page is only rendered, there is none

export class NotificationInbox extends HTMLElement {
  static observedAttributes = ["open", "url", "token-url", "links"];
  #view;
  #listing;
  #given = {};
  #client = null;
  #own = false;
  #off = [];
  #starting = false;
  #patience;
  #focus = false;

  constructor() {
    super();
    this.#view = new View(this.attachShadow({ mode: "open" }), {
      toggle: (open = !this.open) => this.#toggle(open, true),
      select: (entry, event) => this.#select(entry, event),
      read: (entry) => this.#listing.markRead(entry),
      hide: (entry) => this.#listing.hide(entry),
      readAll: () => this.#listing.readAll(),
      older: () => this.#listing.older(),
      again: () => this.#listing.again(),
    });
    this.#listing = new Listing(this.#view, () => this.open);
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
    const { words } = this;
    const language = this.closest("[lang]")?.lang || navigator.language;
    this.#view.build(words, this.getAttribute("links"), language);
    const client = this.#given.client ?? this.#connect();
    this.#listing.begin(client, words);
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
      read: (frame) => this.#listing.read(frame),
      withdrawn: (frame) => this.#listing.withdrawn(frame),
      changed: (frame) => this.#listing.changed(frame),
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
    this.#client = null;
    this.#listing.end();
    clearTimeout(this.#patience);
    this.#view.end();
  }

  // -- what is heard --

  #came(notification) {
    if (!this.#listing.came(notification)) return;
    this.#view.announce(notification.title);
    this.#say("notification", notification);
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
    if (event.state === "open") this.#listing.connected();
    this.#say("state", event);
  }

  #close(end) {
    this.#listing.close();
    this.#view.unread(0);
    this.#view.notices("ended", this.words.ended(end.reason));
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
    if (open) this.#listing.opened();
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

  #select(entry, event) {
    if (!this.#say("select", entry, true)) event.preventDefault();
    if (entry.unread) this.#listing.markRead(entry);
  }
}

if (globalThis.customElements && !customElements.get("notification-inbox")) {
  customElements.define("notification-inbox", NotificationInbox);
}

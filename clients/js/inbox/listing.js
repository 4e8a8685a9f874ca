/** The list of the inbox: what is asked of the gateway for it, and what becomes of what is heard. No DOM, no connection. */
import { Entries } from "./entries.js";

const PAGE = 30;
/** More than this is not kept of a list that nobody looks at: it is loaded again when somebody does. */
const KEPT = 200;
const LARGEST_PAGE = 200;
/** What has changed together is drawn once. */
const TOGETHER = 20;

export class Listing {
  #view;
  #isOpen;
  #entries = new Entries();
  #client = null;
  #words;
  #rev = 0;
  #ended = false;
  #loading = null;
  #drawing;

  /** `isOpen()`: whether somebody looks at it. */
  constructor(view, isOpen) {
    this.#view = view;
    this.#isOpen = isOpen;
  }

  /** Anew, in these words. `client`: null until there is one. */
  begin(client, words) {
    this.#client = client;
    this.#words = words;
  }

  end() {
    clearTimeout(this.#drawing);
    this.#client = this.#loading = null;
    this.#drawing = undefined;
    this.#ended = false;
    this.#rev = 0;
    this.#entries.forget();
  }

  // -- what is heard --

  /** Whether it is news. */
  came(notification) {
    if (!this.#entries.add(notification)) return false;
    if (!this.#isOpen() && this.#entries.size > KEPT) this.#entries.forget();
    this.#draw();
    return true;
  }

  read(frame) {
    this.#changed(frame, () => this.#entries.read(frame));
  }

  withdrawn(frame) {
    this.#changed(frame, () => this.#entries.remove(frame.id));
  }

  changed(frame) {
    this.#changed(frame, () => this.#reload());
  }

  connected() {
    this.#view.notices("failed", null);
    if (this.#isOpen() && this.#entries.next === undefined) this.#reload();
  }

  opened() {
    const expired = this.#entries.list().some(({ expires_at }) => Date.parse(expires_at) < Date.now());
    if (expired || this.#entries.next === undefined) this.#reload();
    this.#drawNow();
  }

  /** For good. Whose session is over may not go on reading what was shown. */
  close() {
    this.#ended = true;
    this.#loading = null;
    this.#entries.forget();
    this.#draw();
  }

  // -- what the user does --

  markRead({ id }) {
    return this.#read({ ids: [id] }, () => this.#client.markRead(id));
  }

  readAll() {
    const newest = this.#entries.list().find(({ seq }) => seq !== null)?.seq ?? 0;
    return this.#read({ up_to: newest }, () => this.#client.readAll());
  }

  hide({ id, seq }) {
    return this.#try(async () => seq === null || this.#client.hide(id), () => this.#entries.remove(id));
  }

  async older() {
    const { size, next } = this.#entries;
    await this.#load({ limit: PAGE, before: next }, (page) => this.#entries.append(page));
    if (this.#entries.size > size) this.#view.focusAt(size);
  }

  again() {
    this.#view.notices("failed", null);
    this.#reload();
    this.#draw();
  }

  // -- how --

  #changed({ rev }, apply) {
    this.#rev = rev;
    apply();
    this.#draw();
  }

  #read(what, ask) {
    return this.#try(ask, () => this.#entries.read(what));
  }

  async #try(ask, done) {
    try {
      await ask();
      done();
      this.#view.notices("failed", null);
    } catch {
      if (!this.#ended) this.#view.notices("failed", this.#words.failed);
    }
    this.#drawNow();
  }

  /** As much as is on the screen, from the newest on. */
  #reload() {
    if (!this.#isOpen()) return this.#entries.forget();
    const limit = Math.min(Math.max(this.#entries.size, PAGE), LARGEST_PAGE);
    return this.#load({ limit }, (page) => this.#entries.replace(page));
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
      if (!this.#ended) this.#view.notices("failed", this.#words.notLoaded, true);
    }
    this.#drawNow();
  }

  #draw() {
    this.#drawing ??= setTimeout(() => this.#drawNow(), TOGETHER);
  }

  #drawNow() {
    clearTimeout(this.#drawing);
    this.#drawing = undefined;
    const words = this.#words;
    const text = this.#ended ? "" : this.#loading || !this.#client ? words.loading : words.empty;
    this.#view.render(this.#entries.list(), !this.#ended && this.#entries.next != null, text);
  }
}

/** What was heard of the inbox, on a connection or from the tab that has one: each thing once, and how much is unread. */
import { Position } from "./progress.js";

/** So many ids are remembered, so that after a reset of the numbers nothing is shown twice. */
const SHOWN = 10000;
const STATE = ["read", "withdrawn", "changed"];

export class Log {
  position;
  user = null;
  unread = null;
  /** The highest number that `unread` counts in. */
  counted = null;
  #rev = null;
  #shown = new Map();
  #events;
  #moved;
  #handle;

  /** `moved` is called when more was handled; `handle(handler, notification)` answers whether the handler succeeded. */
  constructor(events, moved, handle) {
    this.#events = events;
    this.#moved = moved;
    this.#handle = handle;
  }

  take(frame) {
    const { type, rev } = frame;
    if (type === "hello") this.#greeted(frame);
    else if (type === "notification") this.#notified(frame);
    else if (type === "gap") {
      this.position.skip(frame.from, frame.to);
      this.#events.emit(type, frame);
      this.#moved();
    } else if (STATE.includes(type) && rev > this.#rev) {
      const missed = rev > this.#rev + 1;
      this.#rev = rev;
      if (type === "withdrawn" && !this.#shown.has(frame.id)) this.#remember(frame.id, []);
      this.#count(frame.unread);
      this.#events.emit(type, frame);
      if (missed && type !== "changed") this.#events.emit("changed", frame);
    }
  }

  /** A page of `GET /inbox`: a change between it and the first hello is one that was missed. */
  listed({ rev, head, unread }) {
    this.#rev ??= rev;
    if (rev >= this.#rev && head >= this.counted) this.#count(unread, head);
  }

  /** What a `hello` would say now to a tab that comes later. */
  now() {
    const { position, unread, counted } = this;
    return { after: position.handled.at, told: position.received.at, head: counted, rev: this.#rev, unread, reset: false };
  }

  #greeted(frame) {
    const { user, epoch, after, rev } = frame;
    const known = this.position;
    if (known?.user && known.user !== user) return void (this.position = null);
    this.user = user;
    const reset = frame.reset || (known && known.epoch !== epoch);
    // `told`: by a tab that went on while this one was out of sight.
    const missed = reset || (this.#rev !== null && this.#rev !== rev) || frame.told > known?.received.at;
    if (reset || !known) this.position = new Position(epoch, after, user);
    this.#rev = rev;
    this.#count(frame.unread, frame.head);
    if (reset) this.#events.emit("reset", frame);
    if (missed) this.#events.emit("changed", frame);
  }

  async #notified(frame) {
    const { position } = this;
    const { seq, id } = frame;
    if (seq !== null) {
      if (position.received.has(seq)) return;
      position.received.add(seq);
    }
    let handled = this.#shown.get(id);
    if (!handled) {
      if (seq > this.counted) this.#count(this.unread + !frame.read_at, seq);
      handled = Promise.all(this.#events.of("notification").map((handler) => this.#handle(handler, frame)));
      this.#remember(id, handled);
    }
    if (seq === null || (await handled).includes(false)) return;
    position.handled.add(seq);
    if (position === this.position) this.#moved();
  }

  /** `handled`: what its handlers will have answered. */
  #remember(id, handled) {
    this.#shown.set(id, handled);
    if (this.#shown.size > SHOWN) this.#shown.delete(this.#shown.keys().next().value);
  }

  #count(unread, upTo = this.counted) {
    this.counted = upTo;
    if (this.unread === unread) return;
    this.unread = unread;
    this.#events.emit("unread", unread);
  }
}

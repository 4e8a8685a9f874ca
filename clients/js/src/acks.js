/** Says how far the handlers got: to the gateway, to the storage of the page, to the other tabs. */
import { Position } from "./progress.js";

const EVERY = 1000;
const AGAIN = 5000;

export class Acks {
  #log;
  #storage;
  #events;
  #send;
  #tell;
  #timer;
  #last = 0;

  /** `send({seq, epoch})` says it to the gateway, and gives undefined if there is no connection; `tell` to the tabs. */
  constructor(log, storage, events, send, tell) {
    this.#log = log;
    this.#storage = storage;
    this.#events = events;
    this.#send = send;
    this.#tell = tell;
  }

  /** At most once a second, also by a clock that is set back. */
  soon(wait = EVERY) {
    this.#timer ??= setTimeout(() => this.flush(), Math.min(wait, this.#last + wait - Date.now()));
  }

  flush() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#last = Date.now();
    const { position } = this.#log;
    if (!position) return;
    const { epoch, user, acked, saved } = position;
    const seq = position.handled.at;
    if (seq > saved) {
      position.saved = seq;
      this.#try(() => this.#storage?.save({ seq, epoch, user }));
      this.#tell({ done: seq, epoch });
    }
    if (seq <= acked) return;
    const sent = this.#send({ seq, epoch });
    if (!sent) return;
    position.acked = seq;
    sent.catch(() => {
      position.acked = acked;
      this.soon(AGAIN);
    });
  }

  /** For good: no timer is set any more. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  /** Where the page was when it was closed, if that was kept. */
  async load() {
    const kept = await this.#try(() => this.#storage?.load());
    if (Number.isInteger(kept?.seq)) this.#log.position ??= new Position(kept.epoch, kept.seq, kept.user);
  }

  async #try(work) {
    try {
      return await work();
    } catch (error) {
      this.#events.fail(error);
    }
  }
}

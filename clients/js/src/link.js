/**
 * One connection, a socket or an event stream, from its opening to its end: frames, answers to what was asked, the
 * heartbeat. Knows nothing of tokens or positions, and does not come back by itself.
 */
import { GatewayError } from "./rules.js";

const HELLO_WITHIN = 15000;
const ANSWER_WITHIN = 10000;
const EVENTS = ["hello", "notification", "gap", "read", "withdrawn", "changed", "reconnect", "heartbeat", "close"];

export class Link {
  greeted = false;
  #waiting = new Map();
  #refs = 0;
  #heard;
  #wire;
  #watch;
  #silence = 0;
  #pinged = false;
  #leave;
  #due;
  #end;

  /** `heard` gets each frame that is no answer. `ended` becomes `{code, reason, wait}`; `wait` (ms) if one was asked for. */
  constructor(events, Wire, url, heard) {
    this.events = events;
    this.#heard = heard;
    this.ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    this.#within(HELLO_WITHIN);
    const wire = (this.#wire = events ? new Wire(url) : new Wire(url, ["notify.v1"]));
    const read = ({ data }) => {
      try {
        if (this.#wire) this.#take(JSON.parse(data));
      } catch {
        // Whoever says what is no frame, or says anything before hello, is no gateway.
        this.end(1002, "invalid_frame");
      }
    };
    if (events) {
      for (const type of EVENTS) wire.addEventListener(type, read);
    } else {
      wire.onmessage = read;
      wire.onclose = ({ code, reason }) => this.end(code, reason);
    }
    // A failed connection is 1006 (of a source that would try again by itself, with a ticket that is used up); some
    // WebSocket clients fire no `close` after an `error` before `open`.
    wire.onerror = () => this.end(1006);
  }

  get over() {
    return !this.#wire;
  }

  /** Send a frame; its `ok`. Rejects with what the gateway refused, or when the connection ends first. */
  ask(frame) {
    return new Promise((resolve, reject) => {
      const ref = ++this.#refs;
      this.#waiting.set(ref, { resolve, reject });
      this.#send({ ...frame, ref });
    });
  }

  /** Is anybody there? Asked at once, because something may have happened to the network. */
  check() {
    if (this.events || !this.greeted || this.#pinged) return;
    this.#pinged = true;
    this.#send({ type: "ping" });
    this.#within(ANSWER_WITHIN);
  }

  end(code, reason = "", wait = this.#due && Math.max(0, this.#due - performance.now())) {
    if (!this.#wire) return;
    const wire = this.#wire;
    this.#wire = wire.onmessage = wire.onclose = wire.onerror = null;
    clearTimeout(this.#watch);
    clearTimeout(this.#leave);
    wire.close();
    for (const { reject } of this.#waiting.values()) reject(new GatewayError("disconnected"));
    this.#end({ code, reason, wait });
  }

  #send(frame) {
    // While it is closing nothing can be sent; that it ended is heard in a moment.
    if (this.#wire?.readyState === 1) this.#wire.send(JSON.stringify(frame));
  }

  #within(ms) {
    clearTimeout(this.#watch);
    this.#watch = setTimeout(() => {
      if (!this.greeted || this.#pinged || this.events) this.end(1006, "silent");
      else this.check();
    }, ms);
  }

  #take(frame) {
    const { type, ref } = frame;
    if (type === "close") return this.end(frame.code, frame.reason);
    if (type === "hello") {
      this.greeted = true;
      this.#silence = frame.heartbeat * 1000;
      // Nobody can be asked on a stream; it has a sign of life that often by itself.
      if (this.events) this.#silence += ANSWER_WITHIN;
    } else if (type === "heartbeat" && !this.greeted) return;
    else if (!this.greeted) throw type;
    else if (type === "reconnect") {
      this.#due = performance.now() + frame.after_ms;
      this.#leave = setTimeout(() => this.end(1012, frame.reason), frame.after_ms);
    }
    this.#pinged = false;
    this.#within(this.#silence);
    const asked = this.#waiting.get(ref);
    this.#waiting.delete(ref);
    if (!asked) this.#heard(frame);
    else if (type === "error") asked.reject(new GatewayError(frame.code, frame.detail));
    else asked.resolve(frame);
  }
}

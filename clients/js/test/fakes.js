/** A gateway, a browser and a clock for tests that hold no connection: everything is said by the test. */
import { mock } from "node:test";
import { connect } from "../src/index.js";

export const settle = async () => {
  for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
};

let passed = 0;

/** Time stands still; `pass(ms)` lets it go on, in steps, and all that follows from it happen. */
export const stillTime = (context) => {
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: Date.parse("2026-01-01T00:00:00Z") });
  context.mock.method(performance, "now", () => passed);
  context.after(() => mock.timers.reset());
};
export const pass = async (ms) => {
  await settle();
  for (let left = ms; left > 0; left -= 250) {
    passed += Math.min(250, left);
    mock.timers.tick(Math.min(250, left));
    await settle();
  }
};

export const jwt = (said = {}) => `h.${Buffer.from(JSON.stringify({ sub: "u", sid: "s", ...said })).toString("base64url")}.s`;

export const note = (seq, more = {}) => ({ type: "notification", seq, id: `n${seq}`, title: `${seq}`, ...more });

/** What the clients of one test meet. `wires`: every connection they opened, the newest last. */
export class World {
  wires = [];
  requests = [];
  answers = {};
  asked = [];
  opening = () => "open";
  #channels = [];
  #locks = new Map();

  constructor() {
    const world = this;
    const Wire = (kind) =>
      class {
        listeners = {};
        sent = [];
        readyState = 0;
        constructor(url) {
          Object.assign(this, { kind, url: new URL(url) });
          world.wires.push(this);
          queueMicrotask(() => {
            if (world.opening(this) === "open") this.readyState = 1;
            else this.onerror?.({});
          });
        }
        addEventListener(type, listener) {
          this.listeners[type] = listener;
        }
        send(text) {
          this.sent.push(JSON.parse(text));
        }
        close() {
          this.readyState = 3;
        }
        say({ type, ...fields }) {
          const data = JSON.stringify({ type, ...fields });
          if (kind === "events") this.listeners[type]({ data });
          else this.onmessage?.({ data });
        }
        drop(code, reason = "") {
          if (kind === "events") this.say({ type: "close", code, reason });
          else this.onclose?.({ code, reason });
        }
        of(type) {
          return this.sent.filter((frame) => frame.type === type);
        }
      };
    this.WebSocket = Wire("socket");
    this.EventSource = Wire("events");
    this.BroadcastChannel = class {
      constructor(name) {
        this.name = name;
        world.#channels.push(this);
      }
      postMessage(data) {
        const text = JSON.stringify(data);
        const others = world.#channels.filter((one) => one !== this && one.name === this.name);
        for (const one of others) queueMicrotask(() => one.onmessage?.({ data: JSON.parse(text) }));
      }
      close() {
        this.onmessage = null;
        world.#channels.splice(world.#channels.indexOf(this), 1);
      }
    };
    this.locks = {
      request: (name, { signal }, work) => {
        const before = this.#locks.get(name) ?? Promise.resolve();
        const mine = before.then(() => signal.aborted || work());
        this.#locks.set(name, mine);
        return mine;
      },
    };
  }

  get wire() {
    return this.wires.at(-1);
  }

  fetch = async (url, { method, headers, body }) => {
    const path = new URL(url).pathname;
    this.requests.push({ method, path, token: headers.Authorization?.slice(7), body: body && JSON.parse(body) });
    const { status = 200, json, retry } = this.answers[path]?.() ?? { json: path.endsWith("/auth/ticket") ? { ticket: "t~1" } : {} };
    if (!status) throw new TypeError("fetch failed");
    return { status, ok: status < 300, json: async () => json, headers: { get: () => retry } };
  };

  /** A client, and what it has heard by type. */
  client(options = {}) {
    const client = connect({
      url: "https://gateway.example/push/",
      getToken: (reason) => (this.asked.push(reason), jwt()),
      fetch: this.fetch,
      WebSocket: this.WebSocket,
      EventSource: this.EventSource,
      ...options,
    });
    client.heard = {};
    for (const type of ["notification", "gap", "read", "withdrawn", "changed", "reset", "unread", "state", "close", "error"]) {
      client.heard[type] = [];
      client.on(type, (event) => void client.heard[type].push(event));
    }
    client.shown = () => client.heard.notification.map(({ seq }) => seq);
    return client;
  }

  hello(more = {}) {
    this.wire.say({
      ...{ type: "hello", user: "u", session: "s", epoch: "e1", head: 0, rev: 0, cursor: 0, after: 0, reset: false },
      ...{ unread: 0, heartbeat: 25, token_expires_at: "2026-01-01T12:00:00Z" },
      ...more,
    });
    return settle();
  }
}

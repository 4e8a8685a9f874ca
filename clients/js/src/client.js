/**
 * The client: one connection after the other, what is heard on them, and how far everybody got with it.
 *
 *   connecting ──hello──▶ open ──end──▶ waiting ──▶ connecting …
 *        └───────────────────┴── what no new connection would mend, or close() ──▶ closed
 *
 * Of several tabs one (the leader) does this; the others hear the same frames from it and wait to take over.
 */
import { Acks } from "./acks.js";
import { Api } from "./api.js";
import { Events } from "./events.js";
import { Link } from "./link.js";
import { Log } from "./log.js";
import { Page } from "./page.js";
import { Renewal } from "./renewal.js";
import { Backoff, GatewayError, afterEnd, claims } from "./rules.js";
import { Tabs } from "./tabs.js";

/** A connection that lived so long was a success: the next wait is a short one. */
const SETTLED = 10000;
/** So many failed upgrades in a row, while HTTP works, and sockets count as blocked; so much later they are tried again. */
const BLOCKED = 3;
const SOCKETS_AGAIN = 600000;
const IDS = 100;

export class Client {
  state = "connecting";
  /** Whether this tab has the connection. */
  leader = false;
  #options;
  #events = new Events();
  #log;
  #acks;
  #api;
  #backoff;
  #tabs;
  #link;
  #hello;
  #over = false;
  /** Of whoever leads: another number, and it does so no more. */
  #turn = 0;
  #failedUpgrades = 0;
  #expired = 0;
  #page;
  #renewal;

  constructor(options) {
    this.#options = options;
    this.#api = new Api(options.url, options.getToken, options.fetch);
    this.#backoff = new Backoff(options.backoff);
    const events = this.#events;
    this.#log = new Log(events, () => this.#ackSoon(), (handler, frame) => this.#until(handler, frame));
    const tell = (message) => this.#tabs?.tell(message);
    this.#acks = new Acks(this.#log, options.storage, events, (done) => this.#ack(done), tell);
    this.#renewal = new Renewal(this.#api, this.#backoff, events);
    // A page that is kept and stopped may not keep the connection that others need.
    const left = () => {
      if (this.leader) this.#acks.flush();
      this.#leave("left");
    };
    this.#page = new Page(left, () => this.#start(), () => this.#link?.check());
    this.#start();
  }

  /** Returns what takes the handler off again. */
  on(type, handler) {
    return this.#events.on(type, handler);
  }

  /** How many are stored and not read; null until the gateway has said. */
  get unread() {
    return this.#log.unread;
  }

  /** The id of the user whose inbox this is; null until the gateway has said. */
  get user() {
    return this.#log.user;
  }

  close() {
    if (this.leader) this.#acks.flush();
    this.#stop(1000, "closed");
  }

  // -- the inbox over HTTP --

  async inbox(query = {}) {
    const given = Object.entries(query).filter(([, value]) => value != null);
    const page = await this.#api.call("GET", `/inbox?${new URLSearchParams(given)}`);
    this.#log.listed(page);
    return page;
  }

  async markRead(what) {
    if (typeof what === "number") return this.#api.call("POST", "/inbox/read", { up_to: what });
    const ids = [what].flat();
    let answer;
    for (let at = 0; at < ids.length; at += IDS) {
      answer = await this.#api.call("POST", "/inbox/read", { ids: ids.slice(at, at + IDS) });
    }
    return answer;
  }

  async readAll() {
    return this.markRead(this.#log.counted ?? (await this.inbox({ limit: 1 })).head);
  }

  async hide(id) {
    await this.#api.call("DELETE", `/inbox/${encodeURIComponent(id)}`);
  }

  // -- one connection after the other --

  #start() {
    const { share, locks, BroadcastChannel } = this.#options;
    if (!share || !locks || !BroadcastChannel) this.#lead();
    else if (share === true) this.#lead(true);
    else if (!this.#join(share)) this.#lead();
  }

  /** Whether the tabs of this name have one connection together. */
  #join(name) {
    try {
      this.#tabs = new Tabs(`gateway ${this.#options.url} ${name}`, this.#options, () => this.#lead(), (said) => this.#fromTab(said));
      this.#tabs.tell({ hi: true });
      return true;
    } catch {
      // A page that may keep nothing may have no channel either.
    }
  }

  /** `nameless`: of which session, and so which tabs share with this one, its token will say. */
  async #lead(nameless) {
    const turn = this.#turn;
    this.leader = !nameless;
    if (!nameless) await this.#acks.load();
    while (turn === this.#turn) {
      this.#to("connecting");
      const began = Date.now();
      let end, next;
      try {
        if (nameless) {
          const told = claims(await this.#api.token());
          if (turn !== this.#turn || (told && this.#join(`${told.sub} ${told.sid}`))) return;
          // Whose token cannot be read is alone.
          return this.#lead();
        }
        end = await this.#connection(turn);
        next = end && afterEnd(end.code, end.reason);
      } catch (error) {
        // Whatever `getToken` has thrown: it may be nothing, and its `code` that of something else.
        next = error?.next;
        end = next ? { code: 1008, reason: error.code, wait: error.retryAfter } : { code: 1006, reason: "token_failed" };
        if (!next) this.#events.fail(error);
        next ??= "backoff";
      }
      if (turn !== this.#turn) return;
      const { code, reason, wait } = end;
      if (Date.now() - began >= SETTLED) this.#backoff.reset();
      if (next === "stop") return this.#stop(code, reason, reason !== "token_missing");
      let delay;
      if (next === "refresh") {
        this.#api.drop(reason);
        delay = this.#expired++ ? this.#backoff.next() : 0;
      } else if (next === "after" && wait !== undefined) delay = wait;
      else delay = Math.max(next === "long" ? this.#backoff.long() : this.#backoff.next(), wait ?? 0);
      // Begun before it is told: who hears of it may close the client.
      const over = this.#page.sleep(delay, next === "backoff");
      this.#to("waiting", { code, reason, delay });
      await over;
    }
  }

  /** One connection, from the ticket to its end. */
  async #connection(turn) {
    const { WebSocket, EventSource, url } = this.#options;
    const token = await this.#api.ticket();
    if (turn !== this.#turn) return;
    const events = !WebSocket || !!(EventSource && this.#failedUpgrades >= BLOCKED);
    const query = new URLSearchParams({ token });
    const { position } = this.#log;
    if (position) {
      query.set("after", position.received.at);
      query.set("epoch", position.epoch);
    }
    const address = events ? `${url}/events?${query}` : `${url.replace(/^http/, "ws")}/ws?${query}`;
    const link = new Link(events, events ? EventSource : WebSocket, address, (frame) => this.#heard(frame, link));
    this.#link = link;
    const again = events && WebSocket && setTimeout(() => link.end(1012, "sockets_again", 0), SOCKETS_AGAIN);
    const end = await link.ended;
    this.#link = null;
    clearTimeout(again);
    this.#renewal.stop();
    if ((!link.greeted && end.code === 1006) || end.reason === "sockets_again") {
      // After an event stream a socket has one try. If a stream fails too, it is not sockets that are blocked.
      this.#failedUpgrades = events ? BLOCKED - 1 : this.#failedUpgrades + 1;
    }
    return end;
  }

  #heard(frame, link) {
    const { type } = frame;
    if (type === "hello") {
      this.#hello = frame;
      this.#expired = 0;
      if (!link.events) this.#failedUpgrades = 0;
      this.#renewal.before(frame.token_expires_at, link);
    }
    if (["reconnect", "pong", "heartbeat"].includes(type)) return;
    if (type === "error") return this.#events.fail(new GatewayError(frame.code, frame.detail));
    const log = this.#log;
    if (type === "hello" && log.user && log.user !== frame.user) return this.#stop(1008, "user_changed", true);
    log.take(frame);
    // The position that was stored here is of another user: begin again without it.
    if (!log.position) return link.end(1012, "other_user", 0);
    this.#tabs?.tell({ frame });
    if (type === "hello") {
      log.position.acked = frame.cursor;
      this.#ackSoon();
      this.#to("open", { transport: link.events ? "events" : "socket" });
    }
  }

  #stop(code, reason, everybody) {
    if (this.#over) return;
    if (everybody) this.#tabs?.tell({ closed: { code, reason } });
    this.#over = true;
    this.#leave(reason);
    this.#acks.stop();
    this.#page.stop();
    this.#to("closed", { code, reason });
    this.#events.emit("close", { code, reason });
  }

  #leave(reason) {
    this.#turn++;
    this.leader = false;
    this.#link?.end(1000, reason);
    this.#tabs?.leave();
    this.#tabs = null;
    this.#page.wake();
  }

  #to(state, more) {
    // A handler of what came before may have closed it.
    if (this.state === "closed") return;
    this.state = state;
    this.#events.emit("state", { state, leader: this.leader, ...more });
    if (this.leader) this.#tabs?.tell({ state, more });
  }

  /** Call a handler until it succeeds or is taken off. Whether it did; not if the client was closed before. */
  async #until(handler, frame) {
    const backoff = new Backoff(this.#options.backoff);
    while (!this.#over && this.#events.has("notification", handler)) {
      try {
        await handler(frame);
        return true;
      } catch (error) {
        this.#events.fail(error, frame);
        await this.#page.sleep(backoff.next());
      }
    }
    return !this.#over;
  }

  #ackSoon() {
    if (this.leader && !this.#over) this.#acks.soon();
  }

  /** Undefined if nobody can be told now: the next `hello` says what the gateway knows. */
  #ack(done) {
    const link = this.#link;
    if (link?.greeted) return link.events ? this.#api.call("POST", "/inbox/ack", done) : link.ask({ type: "ack", seq: done.seq });
  }

  #fromTab({ hi, frame, state, more, done, epoch, closed }) {
    const log = this.#log;
    if (this.leader) {
      if (hi && log.position && this.#hello) {
        this.#tabs.tell({ frame: { ...this.#hello, ...log.now() }, state: this.state });
      }
      return;
    }
    if (closed) return this.#stop(closed.code, closed.reason);
    if (frame && (log.position || frame.type === "hello")) log.take(frame);
    if (state && state !== this.state) this.#to(state, more);
    // What the leader has handled need not be sent again should this tab take over.
    if (done && log.position?.epoch === epoch) log.position.skip(log.position.handled.at + 1, done);
  }
}

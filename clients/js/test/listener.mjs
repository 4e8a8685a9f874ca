/**
 * A program that listens, for tests that run a real gateway. The first line of its standard input says to whom
 * ({"url", "refresh_token", "held", "events", "backoff"}), every later one is a call; it writes what it hears, a JSON
 * array a line: ["notification", {…}].
 *
 * held: handlers wait for ["release", seq]. events: sockets are blocked.
 */
import { createInterface } from "node:readline";
import { connect } from "../src/index.js";
import { EventSource } from "./eventsource.mjs";

const say = (...what) => process.stdout.write(`${JSON.stringify(what)}\n`);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const { url, held, events, stale, ...given } = JSON.parse((await lines.next()).value);
let { refresh_token } = given;

const refresh = async () => {
  const body = JSON.stringify({ refresh_token });
  const headers = { "Content-Type": "application/json" };
  const answer = await (await fetch(`${url}/auth/refresh`, { method: "POST", headers, body })).json();
  refresh_token = answer.refresh_token ?? refresh_token;
  return answer;
};

class Blocked {
  constructor() {
    queueMicrotask(() => this.onerror?.());
  }
  close() {}
}

const client = connect({
  url,
  EventSource,
  ...(events ? { WebSocket: Blocked } : {}),
  backoff: { first: 50, most: 300 },
  async getToken(reason) {
    say("token", reason);
    if (reason === "renew" && stale) throw new Error("not now");
    return refresh();
  },
});
const waiting = new Map();
for (const type of ["gap", "read", "withdrawn", "changed", "reset", "unread", "state", "close"]) {
  client.on(type, (event) => say(type, event));
}
client.on("error", ({ error }) => say("error", `${error}`));
client.on("notification", (event) => {
  say("notification", event);
  return held && new Promise((resolve) => waiting.set(event.seq, resolve));
});
client.on("close", () => process.stdin.destroy());

const calls = async () => {
  for await (const line of lines) {
    const [method, ...more] = JSON.parse(line);
    if (method === "close") client.close();
    else if (method === "release") waiting.get(...more)();
    else say("answer", (await client[method](...more).catch((error) => ({ error: error.code }))) ?? null);
  }
};
calls();

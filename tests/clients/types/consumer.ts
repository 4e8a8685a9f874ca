/** What somebody writes in TypeScript: it compiles in strict mode, and each mistake is one. Never run. */
import { connect, GatewayError } from "notification-gateway-client";
import type { Client, Notification, Options, Page, Position, State } from "notification-gateway-client";
import { NotificationInbox } from "notification-gateway-client/inbox";
import type { Words } from "notification-gateway-client/inbox";
import { connect as small } from "notification-gateway-client/gateway.min.js";

// -- right ------------------------------------------------------------------------------------------------------

const storage = {
  load: (): Position | null => JSON.parse(localStorage.getItem("position") ?? "null"),
  save: (position: Position) => localStorage.setItem("position", JSON.stringify(position)),
};
const options: Options = {
  url: "https://push.example.com",
  getToken: async (reason) => (reason === "renew" ? null : (await fetch("/token", { method: "POST" })).json()),
  storage,
  share: "one",
  backoff: { first: 100 },
};
const client: Client = connect(options);
const given = { WebSocket, EventSource, fetch, locks: navigator.locks, BroadcastChannel };
small({ getToken: () => "token", share: false, ...given }).close();
connect({ getToken: () => ({ access_token: "token" }) });
connect({ getToken: async () => ({ ticket: "t~1" }) });
// The answers of a gateway have more in them than the one field that is needed, problems among them.
connect({ getToken: async () => ({ access_token: "token", token_type: "Bearer", expires_in: 900 }) });
connect({ getToken: async () => ({ code: "store_unavailable", status: 503 }) });
connect({ getToken: () => null, WebSocket: null });

const off: () => void = client.on("notification", async (one) => {
  const { seq, title, data, priority, read_at }: Notification = one;
  const shown: [number | null, string, unknown, "low" | "normal" | "high", string | undefined] = [seq, title, data.url, priority, read_at];
  await Promise.resolve(shown);
});
off();
client.on("gap", ({ from, to }) => to - from);
client.on("read", ({ ids, up_to, unread }) => ids?.length ?? up_to ?? unread);
client.on("withdrawn", ({ id, seq }) => `${id} ${seq}`);
client.on("changed", ({ rev, unread }) => rev + unread);
client.on("reset", ({ epoch, after }) => `${epoch}:${after}`);
client.on("unread", (count) => count.toFixed());
client.on("state", ({ state, leader, transport, delay }) => [state === "open", leader, transport === "events", delay ?? 0]);
client.on("error", ({ error, notification }) => (error instanceof GatewayError ? error.code : notification?.id));
client.on("close", ({ code, reason }) => `${code} ${reason}`);
const state: State = client.state;
const counted: number | null = client.unread;
const page: Page = await client.inbox({ limit: 20, unread: true, category: "orders" });
await client.inbox({ before: page.next ?? undefined });
const { unread, rev } = await client.markRead(page.items.map(({ id }) => id));
await client.markRead(7);
await client.readAll();
await client.hide("n-1").catch((error: GatewayError) => [error.code, error.status, error.retryAfter]);

const element: NotificationInbox = document.createElement("notification-inbox");
const found = document.querySelector("notification-inbox");
if (found) found.words = { heading: "Neuigkeiten", bell: (count) => `Neues: ${count}` };
element.client = client;
element.getToken = () => "token";
element.open = true;
element.addEventListener("inbox-notification", ({ detail }) => detail.title);
element.addEventListener("inbox-unread", function ({ detail }) {
  this.title = detail.toFixed();
});
element.addEventListener("inbox-select", (event) => event.detail.seq && event.preventDefault());
element.addEventListener("inbox-toggle", ({ detail }) => detail === true);
element.addEventListener("inbox-state", ({ detail }) => detail.state === "open");
element.addEventListener("inbox-close", ({ detail }) => detail.reason);
element.addEventListener("click", (event) => event.preventDefault());
const words: Words = element.words;
export const used = [state, counted, unread, rev, words.ended("token_revoked"), element.unread];

// -- wrong ------------------------------------------------------------------------------------------------------

// @ts-expect-error without a token there is no client
connect({ url: "https://push.example.com" });
// @ts-expect-error no such option
connect({ getToken: () => "token", retries: 3 });
// @ts-expect-error a number is no token
connect({ getToken: () => 7 });
// @ts-expect-error a storage keeps a position, not its number
connect({ getToken: () => "token", storage: { load: () => 7, save() {} } });
// @ts-expect-error a position is of an epoch and a user
connect({ getToken: () => "token", storage: { load: () => ({ seq: 7 }), save() {} } });
// @ts-expect-error milliseconds are numbers
connect({ getToken: () => "token", backoff: { first: "1s" } });
connect({
  // @ts-expect-error no such reason
  getToken: (reason) => (reason === "expired" ? null : "token"),
});
// @ts-expect-error no such event
client.on("message", () => 0);
// @ts-expect-error the number is the event
client.on("unread", ({ count }) => count);
// @ts-expect-error one that was pushed with `ttl: 0` has no number
client.on("notification", ({ seq }) => seq.toFixed());
// @ts-expect-error no such state
client.on("state", (event) => event.state === "disconnected");
// @ts-expect-error until the gateway has said, it is not known
client.unread.toFixed();
// @ts-expect-error it is the client that says
client.state = "closed";
// @ts-expect-error no such query
client.inbox({ page: 2 });
// @ts-expect-error ids are texts
client.markRead([7]);
// @ts-expect-error one at a time
client.hide(["n-1"]);
// @ts-expect-error it is a count, not a switch
element.addEventListener("inbox-unread", ({ detail }) => detail.title);
// @ts-expect-error the element counts
element.unread = 7;
// @ts-expect-error no such word
element.words = { title: "Neuigkeiten" };

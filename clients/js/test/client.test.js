/** The state machine against a gateway that says what the test wants. Time is virtual. */
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { connect } from "../src/index.js";
import { World, jwt, note, pass, settle, stillTime } from "./fakes.js";

let world;
beforeEach((context) => {
  stillTime(context);
  world = new World();
});
/** `ms` on a connection that is alive. */
const alive = async (ms) => {
  for (let left = ms; left > 0; left -= 20000) {
    await pass(Math.min(20000, left));
    if (world.wire.readyState === 1) world.wire.say({ type: world.wire.kind === "events" ? "heartbeat" : "pong" });
  }
};
const acks = (wire = world.wire) => wire.of("ack").map(({ seq }) => seq);

test("a ticket stands in the URL, and a name for the protocol", async () => {
  const client = world.client();
  await settle();
  assert.deepEqual(world.asked, ["connect"]);
  assert.equal(world.requests[0].token, jwt());
  assert.equal(world.wire.url.href, "wss://gateway.example/push/ws?token=t%7E1");
  await world.hello({ unread: 3 });
  assert.deepEqual([client.state, client.unread, client.user, client.leader], ["open", 3, "u", true]);
  client.close();
});

test("acknowledged once all handlers have succeeded, the highest without a hole, once a second", async () => {
  const client = world.client();
  const pending = {};
  client.on("notification", ({ seq }) => new Promise((resolve) => (pending[seq] = resolve)));
  await settle();
  await world.hello();
  for (const seq of [1, 2, 3, 4]) world.wire.say(note(seq));
  await pass(5000);
  assert.deepEqual(acks(), []);
  world.wire.drop(1006);
  await pass(1000);
  assert.equal(world.wire.url.searchParams.get("after"), "4", "what is being handled is not asked for again");
  await world.hello({ head: 4, after: 4 });
  for (const seq of [2, 1]) pending[seq]();
  await pass(1000);
  assert.deepEqual(acks(), [2]);
  pending[4]();
  await pass(2000);
  assert.deepEqual(acks(), [2]);
  pending[3]();
  world.wire.say({ type: "gap", from: 5, to: 9 });
  await pass(1000);
  assert.deepEqual(acks(), [2, 9]);
  assert.deepEqual(client.heard.gap.map(({ from, to }) => [from, to]), [[5, 9]]);
  for (const seq of [10, 11, 12]) world.wire.say(note(seq));
  await pass(250);
  for (const seq of [10, 11, 12]) pending[seq]();
  await settle();
  client.close();
  assert.deepEqual(acks(), [2, 9, 12], "close says what is done");
});

test("a handler that fails is called again, and nothing above is acknowledged before", async () => {
  const client = world.client({ backoff: { first: 1000, most: 1000 } });
  let calls = 0;
  client.on("notification", ({ seq }) => {
    if (seq === 2 && ++calls < 3) throw new Error("not yet");
  });
  await settle();
  await world.hello();
  for (const seq of [1, 2, 3]) world.wire.say(note(seq));
  await settle();
  assert.equal(client.heard.error[0].notification.seq, 2);
  await pass(6000);
  assert.equal(calls, 3);
  assert.deepEqual(client.shown(), [1, 2, 3], "the other handler had succeeded");
  assert.equal(acks()[0], 1);
  assert.equal(acks().at(-1), 3);
  client.close();
});

test("an acknowledgement that is refused is sent again", async () => {
  const client = world.client();
  await settle();
  await world.hello();
  world.wire.say(note(1));
  await pass(250);
  world.wire.say({ type: "error", code: "store_unavailable", detail: "", ref: world.wire.of("ack")[0].ref });
  await pass(4500);
  assert.deepEqual(acks(), [1]);
  await pass(1000);
  assert.deepEqual(acks(), [1, 1]);
  world.wire.say({ type: "ok", ref: world.wire.of("ack")[1].ref });
  await pass(20000);
  assert.deepEqual(acks(), [1, 1]);
  client.close();
});

test("comes back where it was, shows nothing twice, and acknowledges what the gateway has missed", async () => {
  const client = world.client();
  await settle();
  await world.hello();
  for (const seq of [1, 2]) world.wire.say(note(seq));
  world.wire.drop(1006);
  await pass(1000);
  assert.equal(world.wires.length, 2);
  assert.deepEqual([world.wire.url.searchParams.get("after"), world.wire.url.searchParams.get("epoch")], ["2", "e1"]);
  await world.hello({ head: 3, after: 2 });
  for (const seq of [2, 3]) world.wire.say(note(seq, { id: `again ${seq}` }));
  await pass(1000);
  assert.deepEqual(client.shown(), [1, 2, 3]);
  assert.equal(acks().at(-1), 3);
  client.close();
});

test("another history: the numbers are forgotten, the ids are not", async () => {
  const client = world.client();
  await settle();
  await world.hello({ head: 7, after: 6, cursor: 6, rev: 4 });
  world.wire.say(note(7));
  world.wire.drop(1006);
  await pass(1000);
  await world.hello({ epoch: "e2", head: 3, cursor: 1, after: 1, rev: 1, reset: true });
  assert.equal(client.heard.reset.length, 1);
  assert.equal(client.heard.changed.length, 1);
  world.wire.say(note(2, { id: "n7" }));
  world.wire.say(note(3));
  await pass(1000);
  assert.deepEqual(client.shown(), [7, 3]);
  assert.equal(acks().at(-1), 3);
  world.wire.drop(1006);
  await pass(2000);
  assert.equal(world.wire.url.searchParams.get("epoch"), "e2");
  client.close();
});

test("an expired token is refreshed at once; if that does not help, with a wait", async () => {
  const client = world.client();
  await settle();
  world.wire.drop(1008, "token_expired");
  await pass(1);
  assert.deepEqual(world.asked, ["connect", "token_expired"]);
  assert.equal(world.wires.length, 2);
  world.wire.drop(1008, "token_expired");
  await settle();
  assert.equal(world.wires.length, 2);
  assert.ok(client.heard.state.at(-1).delay > 0);
  await pass(1000);
  assert.equal(world.wires.length, 3);
  client.close();
});

test("a kept token that has expired is noticed at the ticket", async () => {
  const expired = { status: 401, json: { code: "token_expired" } };
  world.answers["/push/auth/ticket"] = () => (world.requests.length === 1 ? expired : { json: { ticket: "t~2" } });
  const client = world.client();
  await settle();
  assert.deepEqual(world.asked, ["connect", "token_expired"]);
  assert.equal(world.wire.url.searchParams.get("token"), "t~2");
  client.close();
});

test("renews on the open socket before the token expires, and the socket stays", async () => {
  const client = world.client();
  await settle();
  await world.hello({ token_expires_at: "2026-01-01T00:15:00Z" });
  await alive(14 * 60000);
  assert.deepEqual(world.asked, ["connect", "renew"]);
  const [frame] = world.wire.of("token");
  assert.equal(frame.token, jwt());
  world.wire.say({ type: "error", code: "token_invalid", detail: "", ref: frame.ref });
  await pass(2000);
  assert.equal(client.heard.error[0].error.code, "token_invalid");
  assert.equal(world.wire.of("token").length, 2, "tried again");
  assert.equal(world.wires.length, 1);
  client.close();
});

for (const reason of ["token_revoked", "user_disabled", "insufficient_scope", "invalid_request", "of_tomorrow"]) {
  test(`${reason} is the end`, async () => {
    const client = world.client();
    await settle();
    await world.hello();
    world.wire.drop(1008, reason);
    await pass(120000);
    assert.deepEqual(client.heard.close, [{ code: 1008, reason }]);
    assert.equal(client.state, "closed");
    assert.equal(world.wires.length, 1);
  });
}

test("a session that is over ends at the ticket; a page that is signed out at its token", async () => {
  world.answers["/push/auth/ticket"] = () => ({ status: 401, json: { code: "token_revoked" } });
  const client = world.client();
  const out = world.client({ getToken: async () => null });
  const over = world.client({ getToken: async () => ({ code: "bad_credentials", status: 401 }) });
  await pass(1000);
  assert.equal(client.heard.close[0].reason, "token_revoked");
  assert.equal(out.heard.close[0].reason, "token_missing");
  assert.equal(over.heard.close[0].reason, "bad_credentials");
  assert.equal(world.wires.length, 0);
});

test("without a gateway, or without a token for now, it is tried again", async () => {
  let fail = true;
  world.answers["/push/auth/ticket"] = () => (fail ? { status: 0 } : { json: { ticket: "t~1" } });
  const refusing = () => (fail ? Promise.reject(new Error("offline")) : jwt());
  const problem = () => (fail ? { status: 503, code: "store_unavailable" } : jwt());
  const clients = [world.client(), world.client({ getToken: refusing }), world.client({ getToken: problem })];
  await pass(20000);
  assert.equal(world.wires.length, 0);
  for (const client of clients) assert.notEqual(client.state, "closed");
  assert.equal(clients[0].heard.error.length, 0);
  assert.equal(clients[1].heard.error[0].error.message, "offline");
  fail = false;
  await pass(61000);
  assert.ok(world.wires.some(({ kind }) => kind === "socket"));
  for (const client of clients) client.close();
});

test("a gateway that goes away says when to come back", async () => {
  const client = world.client();
  await settle();
  await world.hello();
  world.wire.say({ type: "reconnect", after_ms: 5000, reason: "draining" });
  await pass(1000);
  world.wire.drop(1012, "draining");
  await pass(3750);
  assert.equal(world.wires.length, 1);
  await pass(500);
  assert.equal(world.wires.length, 2);
  await world.hello();
  world.wire.say({ type: "reconnect", after_ms: 2000, reason: "draining" });
  await pass(2250);
  assert.equal(world.wires.length, 3, "also if the old connection does not end");
  client.close();
});

test("no room: a long wait, and as long as the gateway says", async () => {
  const client = world.client();
  await settle();
  world.wire.drop(1008, "connection_limit");
  await pass(29000);
  assert.equal(world.wires.length, 1);
  while (world.wires.length === 1) await pass(250);
  assert.ok(client.heard.state.find(({ state }) => state === "waiting").delay <= 60000);
  world.answers["/push/auth/ticket"] = () => ({ status: 429, json: { code: "rate_limited" }, retry: "90" });
  world.wire.drop(1013, "overloaded");
  await pass(61000);
  const { reason, delay } = client.heard.state.at(-1);
  assert.equal(reason, "rate_limited");
  assert.equal(delay, 90000);
  client.close();
});

test("silence is asked about, and taken for the end if nobody answers", async () => {
  const client = world.client();
  await settle();
  await world.hello({ heartbeat: 25 });
  await pass(24000);
  assert.equal(world.wire.of("ping").length, 0);
  await pass(2000);
  assert.equal(world.wire.of("ping").length, 1);
  world.wire.say({ type: "pong" });
  await pass(24000);
  assert.equal(world.wires.length, 1);
  await pass(13000);
  assert.equal(world.wires[0].of("ping").length, 2);
  assert.equal(world.wires.length, 2, "and another connection was made");
  await pass(15000);
  assert.ok(world.wires.length > 2, "so was it of one that says no hello");
  client.close();
});

test("sockets that are blocked: an event stream in their place, and sockets again later", async () => {
  let blocked = true;
  world.opening = ({ kind }) => (kind === "socket" && blocked ? "fails" : "open");
  const client = world.client({ backoff: { first: 100, most: 1000 } });
  await pass(8000);
  assert.deepEqual(world.wires.map(({ kind }) => kind), ["socket", "socket", "socket", "events"]);
  assert.equal(world.wire.url.pathname, "/push/events");
  await world.hello();
  assert.equal(client.heard.state.at(-1).transport, "events");
  world.wire.say(note(1));
  await pass(1000);
  assert.deepEqual(client.shown(), [1]);
  const { path, body } = world.requests.at(-1);
  assert.deepEqual([path, body], ["/push/inbox/ack", { seq: 1, epoch: "e1" }]);
  world.wire.drop(1012, "draining");
  await pass(2000);
  assert.equal(world.wire.kind, "events", "still");
  assert.equal(world.wire.url.searchParams.get("after"), "1");
  await world.hello({ head: 1, after: 1, cursor: 1 });
  const streams = world.wires.length;
  await alive(602000);
  assert.equal(world.wires.length, streams + 2);
  assert.deepEqual(world.wires.slice(-2).map(({ kind }) => kind), ["socket", "events"], "one try");
  await world.hello({ head: 1, after: 1, cursor: 1 });
  blocked = false;
  await alive(600000);
  assert.equal(world.wire.kind, "socket");
  await world.hello({ head: 1, after: 1, cursor: 1 });
  world.wire.drop(1006);
  await pass(2000);
  assert.equal(world.wire.kind, "socket");
  client.close();
});

test("a stream is renewed by another one", async () => {
  const client = world.client({ WebSocket: undefined });
  await settle();
  await world.hello({ token_expires_at: "2026-01-01T00:04:00Z" });
  await alive(179000);
  assert.equal(world.wires.length, 1, "its signs of life keep it");
  await alive(2000);
  assert.deepEqual(world.asked, ["connect", "renew"]);
  assert.equal(world.wires.length, 2);
  assert.equal(world.wires[0].readyState, 3);
  client.close();
});

test("a stream without a sign of life is dead: another one goes on where it was", async () => {
  const client = world.client({ WebSocket: undefined });
  await settle();
  world.wire.say({ type: "heartbeat" });
  assert.equal(client.state, "connecting", "a sign of life is no hello");
  await pass(14000);
  await world.hello({ heartbeat: 25 });
  world.wire.say(note(1));
  await pass(34000);
  assert.equal(world.wires.length, 1);
  await pass(2000);
  assert.equal(world.wires[0].readyState, 3);
  assert.equal(client.heard.state.at(-2).reason, "silent");
  assert.equal(world.wires.length, 2);
  assert.equal(world.wire.url.searchParams.get("after"), "1");
  world.wire.say({ type: "heartbeat" });
  await pass(15000);
  assert.equal(world.wires[1].readyState, 3, "one that only says that it lives says no hello either");
  client.close();
});

test("what changed: old news are ignored, missed ones are told", async () => {
  const client = world.client();
  await settle();
  await world.hello({ rev: 5, unread: 4, head: 4, after: 4, cursor: 4 });
  world.wire.say({ type: "read", ids: ["n1"], unread: 9, rev: 5 });
  assert.equal(client.heard.read.length, 0);
  world.wire.say({ type: "read", ids: ["n1"], unread: 3, rev: 6 });
  world.wire.say({ type: "withdrawn", id: "n5", seq: 5, unread: 3, rev: 7 });
  assert.deepEqual([client.heard.read.length, client.heard.withdrawn.length, client.heard.changed.length], [1, 1, 0]);
  world.wire.say(note(5));
  world.wire.say(note(6));
  await settle();
  assert.deepEqual(client.shown(), [6], "what was taken back before it came is not shown");
  assert.equal(client.unread, 4);
  world.wire.say({ type: "read", up_to: 6, unread: 0, rev: 9 });
  assert.deepEqual([client.heard.changed.length, client.unread], [1, 0]);
  world.wire.say({ type: "changed", unread: 2, rev: 12 });
  assert.deepEqual([client.heard.changed.length, client.unread], [2, 2]);
  world.wire.say({ type: "of_tomorrow", rev: 13 });
  world.wire.drop(1006);
  await pass(1000);
  await world.hello({ rev: 15, unread: 1, head: 7, after: 6, cursor: 6 });
  assert.equal(client.heard.changed.length, 3);
  world.wire.say(note(7, { read_at: "x" }));
  world.wire.say(note(8));
  world.wire.say(note(null, { id: "passing" }));
  assert.equal(client.unread, 2, "7 was counted by hello, what passes is not stored");
  assert.deepEqual(client.heard.unread, [4, 3, 4, 0, 2, 1, 2]);
  client.close();
});

test("a change between the page of the inbox and hello is one that was missed", async () => {
  world.answers["/push/inbox"] = () => ({ json: { items: [], head: 4, rev: 2, epoch: "e1", unread: 4, next: null } });
  const client = world.client();
  await client.inbox({ limit: 20, category: undefined });
  await settle();
  assert.equal(client.unread, 4);
  await world.hello({ rev: 3, head: 4, unread: 3 });
  assert.equal(client.heard.changed.length, 1);
  await client.inbox();
  assert.equal(client.unread, 3, "the page was older");
  client.close();
});

test("a position is kept with its epoch and its user, and dropped with them", async () => {
  let kept = { seq: 5, epoch: "e1", user: "u" };
  const storage = { load: async () => kept, save: async (position) => void (kept = position) };
  const client = world.client({ storage });
  await settle();
  assert.equal(world.wire.url.searchParams.get("after"), "5");
  await world.hello({ head: 6, after: 5, cursor: 3 });
  await pass(250);
  assert.deepEqual(acks(), [5]);
  world.wire.say(note(6));
  await pass(1000);
  assert.deepEqual(kept, { seq: 6, epoch: "e1", user: "u" });
  client.close();

  const other = world.client({ storage });
  await settle();
  await world.hello({ user: "v", head: 9, after: 6, cursor: 6 });
  await pass(1);
  assert.equal(world.wire.url.searchParams.get("after"), null, "begins again without it");
  await world.hello({ user: "v", head: 9, after: 8, cursor: 8 });
  await pass(1000);
  assert.deepEqual(kept, { seq: 8, epoch: "e1", user: "v" });
  assert.deepEqual(other.heard.close, []);
  world.wire.drop(1006);
  await pass(2000);
  await world.hello({ user: "w" });
  assert.equal(other.heard.close[0].reason, "user_changed", "what is on the screen is not theirs");
});

test("tickets of the page's own are used once; what is asked over HTTP needs a token", async () => {
  let made = 0;
  const asked = [];
  const client = world.client({
    getToken: (reason) => (asked.push(reason), reason === "http" ? { access_token: jwt() } : { ticket: `t~${++made}` }),
  });
  await settle();
  await world.hello();
  world.wire.drop(1006);
  await pass(1000);
  assert.deepEqual(world.wires.map(({ url }) => url.searchParams.get("token")), ["t~1", "t~2"]);
  world.answers["/push/inbox/read"] = () => ({ json: { unread: 0, rev: 1 } });
  assert.deepEqual(await client.markRead(Array.from({ length: 150 }, (_, index) => `n${index}`)), { unread: 0, rev: 1 });
  assert.ok(asked.includes("http"));
  assert.deepEqual(world.requests.map(({ body }) => body.ids.length), [100, 50]);
  assert.equal(world.requests[0].token, jwt());
  client.close();
});

test("what is refused over HTTP rejects", async () => {
  const client = world.client();
  world.answers["/push/inbox/n%2F1"] = () => ({ status: 404, json: { code: "unknown_notification", detail: "There is none." } });
  await assert.rejects(client.hide("n/1"), { code: "unknown_notification", status: 404, message: "There is none." });
  world.answers["/push/inbox"] = () => ({ status: 502 });
  await assert.rejects(client.inbox(), { code: "http", status: 502 });
  client.close();
});

test("it needs something to connect with", () => {
  assert.throws(() => connect({ url: "http://gateway", WebSocket: null, EventSource: null, getToken() {} }), TypeError);
});

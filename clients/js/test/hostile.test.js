/** What no gateway says, no clock shows and no browser grants: the client neither throws nor hammers. Time is virtual. */
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { World, jwt, note, pass, settle, stillTime } from "./fakes.js";

let world;
beforeEach((context) => {
  stillTime(context);
  world = new World();
});
const tabs = () => ({ share: true, locks: world.locks, BroadcastChannel: world.BroadcastChannel });

for (const text of ["no JSON", "null", "[]", '"hello"', '{"type":"notification","seq":1,"id":"n1"}', '{"type":"gap","from":1,"to":2}']) {
  test(`whoever begins with ${text} is no gateway, and is left for good`, async () => {
    const client = world.client();
    await settle();
    world.wire.onmessage({ data: text });
    await pass(5000);
    assert.deepEqual([client.heard.close, world.wires.length], [[{ code: 1002, reason: "invalid_frame" }], 1]);
  });
}

test("so is one that goes on with what is none, on a stream too", async () => {
  for (const more of [{}, { WebSocket: undefined }]) {
    const client = world.client(more);
    await settle();
    await world.hello();
    if (world.wire.kind === "events") world.wire.listeners.notification({ data: "{" });
    else world.wire.onmessage({ data: new Blob(["{}"]) });
    await settle();
    assert.deepEqual([client.state, client.heard.close[0].code], ["closed", 1002]);
  }
});

test("a wait that no timer can keep is an hour", async () => {
  for (const retry of ["99999999999", "Infinity"]) {
    world.answers["/push/auth/ticket"] = () => ({ status: 503, json: { code: "unavailable" }, retry });
    const client = world.client();
    await settle();
    assert.equal(client.heard.state.at(-1).delay, 3600000);
    client.close();
  }
});

test("a clock that is set back holds up no acknowledgement", async (context) => {
  const client = world.client();
  await settle();
  await world.hello();
  world.wire.say(note(1));
  await pass(1000);
  const { now } = Date;
  context.mock.method(Date, "now", () => now() - 3600000);
  world.wire.say(note(2));
  await pass(2000);
  assert.deepEqual(world.wire.of("ack").map(({ seq }) => seq), [1, 2]);
  client.close();
});

test("what storage kept is only gone on from if it is a position", async () => {
  for (const kept of [{}, "7", { seq: "7", epoch: "e1", user: "u" }, { seq: null }]) {
    const client = world.client({ storage: { load: () => kept, save() {} } });
    await settle();
    assert.equal(world.wire.url.searchParams.has("after"), false);
    client.close();
  }
});

test("closed before its locks are refused, it stays closed", async () => {
  let refuse;
  const locks = { request: () => new Promise((_, reject) => (refuse = reject)) };
  const client = world.client({ ...tabs(), locks });
  await settle();
  client.close();
  refuse(new DOMException("no", "SecurityError"));
  await pass(1000);
  assert.deepEqual([client.leader, world.wires.length, world.requests.length], [false, 0, 0]);
});

test("alone where a page may have no channel", async () => {
  const BroadcastChannel = class {
    constructor() {
      throw new DOMException("The operation is insecure.", "SecurityError");
    }
  };
  const client = world.client({ ...tabs(), BroadcastChannel });
  await settle();
  await world.hello();
  assert.equal(client.state, "open");
  client.close();
});

test("nothing is heard after the close, though a renewal was on its way", async () => {
  const client = world.client();
  await settle();
  await world.hello({ heartbeat: 300, token_expires_at: "2026-01-01T00:04:00Z" });
  await pass(181000);
  assert.equal(world.wire.of("token").length, 1);
  client.close();
  await pass(5000);
  assert.deepEqual(client.heard.error, []);
});

test("a date to come back at, as a proxy may give one, is waited for within reason", async () => {
  const wait = async (retry) => {
    world.answers["/push/auth/ticket"] = () => ({ status: 503, json: { code: "unavailable" }, retry });
    const client = world.client({ backoff: { first: 1000, most: 1000 } });
    await settle();
    client.close();
    return client.heard.state.find(({ state }) => state === "waiting").delay;
  };
  assert.equal(await wait("Thu, 01 Jan 2026 00:01:30 GMT"), 90000);
  assert.equal(await wait("Fri, 01 Jan 2027 00:00:00 GMT"), 3600000);
  for (const none of ["Wed, 31 Dec 2025 23:59:59 GMT", "-5", "soon", "", null]) assert.ok((await wait(none)) <= 1000, none);
});

test("a clock that is set back does not make the wait longer that the gateway asked for", async (context) => {
  const client = world.client();
  await settle();
  await world.hello();
  world.wire.say({ type: "reconnect", after_ms: 5000, reason: "draining" });
  await pass(1000);
  const { now } = Date;
  context.mock.method(Date, "now", () => now() - 3600000);
  world.wire.drop(1012, "draining");
  await settle();
  assert.equal(client.heard.state.at(-1).delay, 4000);
  client.close();
});

test("a getToken that never answers is asked again after a minute, and late answers count for nothing", async () => {
  const asked = [];
  const client = world.client({ getToken: (reason) => new Promise((resolve) => asked.push({ reason, resolve })) });
  await pass(59000);
  assert.equal(asked.length, 1);
  await pass(2500);
  assert.equal(asked.length, 2);
  assert.equal(client.heard.state.find(({ state }) => state === "waiting").reason, "token_failed");
  asked[1].resolve(jwt({ jti: "second" }));
  asked[0].resolve(jwt({ jti: "first" }));
  await settle();
  assert.equal(world.requests[0].token, jwt({ jti: "second" }));
  await world.hello({ heartbeat: 300, token_expires_at: "2026-01-01T00:05:00Z" });
  await pass(180000);
  assert.equal(asked[2].reason, "renew");
  await pass(63000);
  assert.equal(asked.length, 4, "so it is for a renewal, while the old token is good");
  asked[3].resolve(jwt());
  await settle();
  assert.deepEqual([world.wire.of("token").length, world.wires.length], [1, 1]);
  client.close();
});

test("whatever getToken throws is no end", async () => {
  for (const thrown of [undefined, null, "no", new DOMException("late", "TimeoutError")]) {
    const tokens = [() => Promise.reject(thrown), () => { throw thrown; }, jwt];
    const client = world.client({ getToken: () => tokens.shift()() });
    await settle();
    const { state, reason } = client.heard.state.at(-1);
    assert.deepEqual([state, reason, client.heard.error[0].error], ["waiting", "token_failed", thrown]);
    await pass(3000);
    assert.equal(client.heard.error.length, 2);
    await world.hello();
    assert.equal(client.state, "open");
    client.close();
  }
});

test("handlers that throw, reject or hang do not touch the connection, whatever they are for", async (context) => {
  const written = context.mock.method(console, "error", () => {});
  const client = world.client();
  for (const type of ["unread", "state", "changed", "gap", "read", "error"]) {
    client.on(type, () => { throw new Error(type); });
    client.on(type, async () => Promise.reject(new Error(`${type} later`)));
    client.on(type, () => new Promise(() => {}));
  }
  await settle();
  await world.hello({ unread: 1 });
  world.wire.say({ type: "gap", from: 1, to: 2 });
  world.wire.say({ type: "read", up_to: 1, unread: 0, rev: 2 });
  await pass(1000);
  assert.deepEqual([client.state, world.wires.length, client.heard.changed.length], ["open", 1, 1]);
  const said = new Set(client.heard.error.map(({ error }) => error.message));
  for (const type of ["unread", "state", "changed", "gap", "read"]) assert.ok(said.has(type) && said.has(`${type} later`), type);
  assert.ok(written.mock.calls.some(({ arguments: [error] }) => error.message === "error"), "that of `error` itself is written");
  client.close();
});

test("a handler may close the client: it stays closed, and no timer keeps the program", async (context) => {
  const running = new Set();
  const { setTimeout, clearTimeout } = globalThis;
  context.mock.method(globalThis, "setTimeout", (work, ...more) => {
    const timer = setTimeout((...given) => (running.delete(timer), work(...given)), ...more);
    running.add(timer);
    return timer;
  });
  context.mock.method(globalThis, "clearTimeout", (timer) => (running.delete(timer), clearTimeout(timer)));
  for (const [type, when] of [["unread", () => true], ["state", ({ state }) => state === "waiting"], ["state", ({ state }) => state === "connecting"]]) {
    const client = world.client(type === "unread" ? tabs() : {});
    client.on(type, (event) => when(event) && client.close());
    await settle();
    if (type === "unread") await world.hello({ unread: 1 });
    else if (client.state !== "closed") world.wire.drop(1006);
    await settle();
    assert.deepEqual([client.state, client.heard.state.at(-1).state, client.heard.close.length], ["closed", "closed", 1], type);
    assert.equal(running.size, 0, type);
  }
});

test("without a token at first, the tabs find each other once there is one", async () => {
  let fail = true;
  const getToken = async () => (fail ? Promise.reject(new Error("offline")) : jwt());
  const [first, second] = [world.client({ ...tabs(), getToken }), world.client({ ...tabs(), getToken })];
  await pass(3000);
  assert.deepEqual([first.leader, second.leader, world.wires.length], [false, false, 0]);
  fail = false;
  while (!world.wires.length) await pass(250);
  await world.hello();
  await pass(20000);
  assert.equal(world.wires.length, 1);
  assert.deepEqual([first.state, second.state], ["open", "open"]);
  assert.equal([first, second].filter(({ leader }) => leader).length, 1);
  for (const client of [first, second]) client.close();
});

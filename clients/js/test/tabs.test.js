/** Tabs that share one connection: who leads, what the others hear, and who takes over. */
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { World, jwt, note, pass, settle, stillTime } from "./fakes.js";

let world, tab;
beforeEach((context) => {
  stillTime(context);
  world = new World();
  const { locks, BroadcastChannel } = world;
  tab = async (options) => {
    const client = world.client({ share: true, locks, BroadcastChannel, ...options });
    await settle();
    return client;
  };
});

/** From here on there is a page. What tells the first client in it of an event. */
const pageOf = (context) => {
  const listeners = {};
  const page = { addEventListener: (type, heard) => (listeners[type] ??= []).push(heard), removeEventListener() {} };
  Object.assign(globalThis, page, { document: { ...page, hidden: false } });
  context.after(() => ["addEventListener", "removeEventListener", "document"].forEach((name) => delete globalThis[name]));
  return (event) => listeners[event.type]?.[0](event);
};

test("one leads, all hear, another takes over without a gap or a double", async () => {
  const first = await tab();
  await world.hello({ unread: 0 });
  const second = await tab();
  assert.equal(world.wires.length, 1);
  assert.deepEqual([first.leader, second.leader, second.state, second.user], [true, false, "open", "u"]);
  for (const seq of [1, 2]) world.wire.say(note(seq));
  await settle();
  assert.deepEqual(second.shown(), [1, 2]);
  world.wire.say({ type: "read", ids: ["n1"], unread: 1, rev: 1 });
  await settle();
  assert.deepEqual([second.unread, second.heard.read[0].ids], [1, ["n1"]]);
  await pass(1000);
  assert.equal(world.wire.of("ack").at(-1).seq, 2);

  first.close();
  await settle();
  assert.equal(second.leader, true);
  assert.equal(world.wires.length, 2);
  assert.equal(world.wire.url.searchParams.get("after"), "2");
  await world.hello({ head: 3, after: 2, cursor: 2, rev: 1, unread: 2 });
  world.wire.say(note(3));
  await pass(1000);
  assert.deepEqual(second.shown(), [1, 2, 3]);
  assert.deepEqual(second.heard.changed, []);
  assert.equal(world.wire.of("ack").at(-1).seq, 3);
  second.close();
});

test("a tab that comes late goes on from what was handled, not from what was only received", async () => {
  const first = await tab();
  let finish;
  first.on("notification", ({ seq }) => seq === 2 && new Promise((resolve) => (finish = resolve)));
  await world.hello({ rev: 3, unread: 0 });
  for (const seq of [1, 2, 3]) world.wire.say(note(seq));
  await pass(1000);
  const second = await tab();
  assert.equal(second.unread, 3);
  assert.deepEqual(second.heard.changed, []);
  world.wire.say(note(4));
  await settle();
  assert.deepEqual(second.shown(), [4]);
  first.close();
  await settle();
  assert.equal(world.wire.url.searchParams.get("after"), "1", "2 and 3 were handled by nobody that is left");
  await world.hello({ rev: 3, head: 4, after: 1, cursor: 1, unread: 4 });
  for (const seq of [2, 3, 4]) world.wire.say(note(seq));
  await pass(1000);
  assert.deepEqual(second.shown(), [4, 2, 3]);
  assert.equal(world.wire.of("ack").at(-1).seq, 4);
  finish();
  second.close();
});

test("what the leader has handled is not sent again to one that came late", async () => {
  const first = await tab();
  let finish;
  first.on("notification", () => new Promise((resolve) => (finish = resolve)));
  await world.hello();
  world.wire.say(note(1));
  const second = await tab();
  finish();
  await pass(1000);
  first.close();
  await settle();
  assert.equal(world.wire.url.searchParams.get("after"), "1");
  second.close();
});

test("what ends the session ends all tabs; another session has a connection of its own", async () => {
  const first = await tab();
  const [firstWire] = world.wires;
  await world.hello();
  const second = await tab();
  const other = await tab({ getToken: () => jwt({ sid: "other" }) });
  assert.deepEqual([world.wires.length, other.leader], [2, true]);
  await world.hello({ session: "other" });
  firstWire.drop(1008, "token_revoked");
  await settle();
  for (const client of [first, second]) assert.deepEqual(client.heard.close, [{ code: 1008, reason: "token_revoked" }]);
  assert.equal(other.state, "open");
  assert.equal(world.wires.length, 2);
  other.close();
});

test("the others hear how the connection is, and of another history", async () => {
  const first = await tab();
  await world.hello({ head: 5, after: 5, cursor: 5, rev: 2 });
  const second = await tab();
  world.wire.drop(1006);
  await settle();
  assert.deepEqual([first.state, second.state], ["waiting", "waiting"]);
  await pass(1000);
  assert.equal(second.state, "connecting");
  await world.hello({ epoch: "e2", head: 2, after: 1, cursor: 1, rev: 0, reset: true });
  assert.deepEqual([second.state, second.heard.reset.length, second.heard.changed.length], ["open", 1, 1]);
  first.close();
  await settle();
  assert.equal(world.wire.url.searchParams.get("epoch"), "e2");
  second.close();
});

test("a tab that closes while it waits never leads", async () => {
  const first = await tab();
  await world.hello();
  const second = await tab();
  const third = await tab();
  second.close();
  first.close();
  await settle();
  assert.deepEqual([second.leader, third.leader], [false, true]);
  third.close();
});

test("alone without locks, with a token that says nothing, or where locks are refused", async () => {
  const clients = [await tab({ locks: undefined }), await tab({ getToken: () => "t~1" })];
  const refused = { request: async () => Promise.reject(new DOMException("no", "SecurityError")) };
  clients.push(await tab({ locks: refused }));
  assert.equal(world.wires.length, 3);
  for (const client of clients) client.close();
});

for (const how of [
  { name: "keeps to go back to", left: ["pagehide"], back: ["pageshow"] },
  { name: "keeps and stops", left: ["pagehide", "freeze"], back: ["resume", "pageshow"] },
  { name: "stops because nobody looks at it", left: ["freeze"], back: ["resume"] },
]) {
  test(`a page that the browser ${how.name} gives the connection away, and catches up when it comes back`, async (context) => {
    const mine = pageOf(context);
    const first = await tab();
    mine({ type: "pageshow" });
    await world.hello();
    assert.equal(world.wires.length, 1, "a page that is only shown starts nothing");
    world.wire.say(note(1));
    const second = await tab();
    for (const type of how.left) mine({ type });
    await settle();
    assert.deepEqual([first.leader, second.leader, world.wires.length], [false, true, 2]);
    assert.equal(world.wires[0].of("ack").at(-1).seq, 1);
    await world.hello({ head: 1, after: 1, cursor: 1, unread: 1 });
    world.wire.say(note(2));
    for (const type of how.back) mine({ type });
    await settle();
    assert.deepEqual([first.state, first.heard.changed.length, first.unread], ["open", 1, 2], "2 is in the inbox");
    world.wire.say(note(3));
    await settle();
    assert.deepEqual([first.shown(), second.shown()], [[1, 3], [2, 3]]);
    second.close();
    await settle();
    assert.equal(first.leader, true);
    first.close();
  });
}

test("a network that is back, or a look at the page, ends an ordinary wait, but not one for want of room", async (context) => {
  const mine = pageOf(context);
  const client = await tab({ backoff: { first: 60000, most: 60000 } });
  world.wire.drop(1006);
  await settle();
  globalThis.document.hidden = true;
  mine({ type: "visibilitychange" });
  await settle();
  assert.equal(world.wires.length, 1, "who looks away ends nothing");
  mine({ type: "online" });
  await settle();
  assert.equal(world.wires.length, 2);
  world.wire.drop(1013, "overloaded");
  await settle();
  globalThis.document.hidden = false;
  for (const type of ["online", "visibilitychange"]) mine({ type });
  await settle();
  assert.equal(world.wires.length, 2);
  client.close();
});

test("who looks at the page again sees one that is alive, or a new connection ten seconds later", async (context) => {
  const mine = pageOf(context);
  const client = await tab();
  await world.hello({ heartbeat: 300 });
  mine({ type: "visibilitychange" });
  assert.equal(world.wire.of("ping").length, 1);
  world.wire.say({ type: "pong" });
  await pass(20000);
  assert.equal(world.wires.length, 1);
  mine({ type: "online" });
  await pass(9000);
  assert.equal(world.wires.length, 1);
  await pass(3000);
  assert.deepEqual([client.heard.state.find(({ state }) => state === "waiting").reason, world.wires.length], ["silent", 2]);
  client.close();
});

test("what a tab that goes has told twice, late, or before it was asked, is shown once and nothing is skipped", async () => {
  const first = await tab();
  await world.hello();
  const second = await tab();
  world.wire.say(note(1));
  await settle();
  const goes = new world.BroadcastChannel("gateway https://gateway.example/push u s");
  for (const frame of [note(1), note(3), note(3)]) goes.postMessage({ frame });
  await settle();
  first.close();
  await settle();
  assert.equal(world.wire.url.searchParams.get("after"), "1", "2 never came here");
  await world.hello({ head: 3, after: 1, cursor: 1 });
  for (const frame of [note(2), note(3)]) world.wire.say(frame);
  goes.postMessage({ frame: note(2) });
  goes.postMessage({ state: "waiting", closed: undefined });
  await pass(1000);
  assert.deepEqual([second.shown(), second.state, world.wire.of("ack").at(-1).seq], [[1, 3, 2], "open", 3]);
  second.close();
});

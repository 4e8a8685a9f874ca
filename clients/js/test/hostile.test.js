/** What no gateway says, no clock shows and no browser grants: the client neither throws nor hammers. Time is virtual. */
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { World, note, pass, settle, stillTime } from "./fakes.js";

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

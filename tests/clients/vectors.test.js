/** The vectors of docs/protocol/vectors, run by the JavaScript client. Time is virtual, the gateway a script. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { mock, test } from "node:test";
import { World, pass, settle, stillTime } from "../../clients/js/test/fakes.js";

const vectors = (name) => JSON.parse(readFileSync(new URL(`../../docs/protocol/vectors/${name}.json`, import.meta.url)));
const started = async (context, options) => {
  stillTime(context);
  mock.method(Math, "random", () => 0.5);
  context.after(() => mock.restoreAll());
  const world = new World();
  const client = world.client(options);
  context.after(() => client.close());
  await settle();
  return { world, client };
};
const acked = (wire) => wire.of("ack").map(({ seq }) => seq);
const asked = (wire) => {
  const { after, epoch } = Object.fromEntries(wire.url.searchParams);
  return after === undefined ? {} : { after: Number(after), epoch };
};

for (const name of ["frames", "resume"]) {
  for (const vector of vectors(name).scenarios) {
    test(`${name}: ${vector.name}`, async (context) => {
      let kept = vector.kept;
      const storage = { load: () => kept, save: (position) => void (kept = position) };
      const { world, client } = await started(context, { storage });
      for (const { asks, frames, acks, end } of vector.connections) {
        const { wire } = world;
        assert.deepEqual(asked(wire), asks);
        for (const frame of frames) wire.say(frame);
        await pass(2000);
        assert.equal(client.state, "open", "nothing of this ends the connection");
        assert.equal(acked(wire).at(-1) ?? null, acks);
        for (const { ref } of wire.of("ack")) wire.say({ type: "ok", ref });
        await settle();
        if (!end) continue;
        wire.drop(end.code, end.reason);
        await pass(1000);
        assert.notEqual(world.wire, wire, "it came back");
      }
      const { heard } = client;
      assert.deepEqual(heard.notification.map(({ id }) => id), vector.shows);
      assert.deepEqual(heard.withdrawn.map(({ id }) => id), vector.removes);
      assert.equal(heard.changed.length > 0, vector.rereads);
      assert.equal(client.unread, vector.unread);
      world.wire.drop(1006);
      await pass(1000);
      assert.deepEqual(asked(world.wire), { after: vector.keeps.seq, epoch: vector.keeps.epoch });
      if (kept && vector.connections.some(({ acks }) => acks !== null)) {
        assert.deepEqual(kept, { ...vector.keeps, user: "42" }, "as it is stored");
      }
    });
  }
}

for (const vector of vectors("acks").cases) {
  test(`acks: ${vector.name}`, async (context) => {
    const { world, client } = await started(context);
    client.on("notification", ({ id }) => (vector.unhandled.includes(id) ? new Promise(() => {}) : undefined));
    for (const frame of vector.frames) world.wire.say(frame);
    await pass(3000);
    const acks = acked(world.wire);
    assert.equal(acks.at(-1) ?? null, vector.acks);
    assert.ok(acks.length <= (vector.at_most ?? 3), `${acks}`);
  });
}

const within = (delay, [least, most], what) => assert.ok(least <= delay && delay <= most, `${what}: ${delay} ms`);

for (const vector of vectors("closes").cases) {
  test(`closes: ${vector.name}`, async (context) => {
    const { world, client } = await started(context);
    await world.hello();
    if (vector.reconnect_after_ms) world.wire.say({ type: "reconnect", after_ms: vector.reconnect_after_ms, reason: "draining" });
    world.wire.drop(vector.code, vector.reason);
    await settle();
    if (vector.delay_ms === null) {
      assert.equal(client.state, "closed");
      assert.deepEqual(client.heard.close, [{ code: vector.code, reason: vector.reason }]);
      assert.ok(["stop", "bug"].includes(vector.client));
      return;
    }
    const { state, delay } = client.heard.state.find(({ state }) => state === "waiting");
    assert.equal(state, "waiting");
    within(delay, vector.delay_ms, vector.name);
    await pass(delay + 250);
    assert.equal(world.wires.length, 2);
    assert.equal(world.asked.includes("token_expired"), vector.client === "refresh");
  });
}

for (const vector of vectors("closes").rows) {
  test(`closes: ${vector.name}`, async (context) => {
    for (const draw of [0, 0.999]) {
      const { world, client } = await started(context);
      Math.random.mock.mockImplementation(() => draw);
      for (const [at, { code, reason }] of vector.ends.entries()) {
        world.wire.drop(code, reason);
        await settle();
        const waits = client.heard.state.filter(({ state }) => state === "waiting");
        assert.equal(waits.length, at + 1);
        within(waits[at].delay, vector.delays_ms[at], `${vector.name}, the ${at + 1}.`);
        await pass(waits[at].delay + 250);
      }
      client.close();
      mock.restoreAll();
      mock.timers.reset();
    }
  });
}

/** The list of the inbox between a client that the test plays and a view that only notes what it is given. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { Listing } from "../inbox/listing.js";
import { WORDS } from "../inbox/words.js";
import { settle } from "./fakes.js";

const one = (seq, more) => ({ seq, id: `n${seq}`, title: `t${seq}`, expires_at: "2999-01-01T00:00:00Z", ...more });
const page = (rev, ...seqs) => ({ items: seqs.map((seq) => one(seq)), head: Math.max(...seqs), rev, next: null });

/** `open`: somebody looks at it. `asked`: every request, to be answered by the test; `seen`: what was drawn last; `said`: the notice, if there is one. */
const begun = () => {
  const world = { open: true, asked: [], seen: null, said: null };
  const ask = (what) => (given) => new Promise((resolve, reject) => world.asked.push({ what, given, resolve, reject }));
  const view = {
    render: (entries, more, text) => (world.seen = [entries.map(({ seq, unread }) => (unread ? seq : -seq)), more, text]),
    notices: (kind, text, again) => (world.said = text && [text, !!again]),
    focusAt() {},
  };
  const listing = (world.listing = new Listing(view, () => world.open));
  listing.begin({ inbox: ask("inbox"), markRead: ask("markRead"), readAll: ask("readAll"), hide: ask("hide") }, WORDS);
  return world;
};

test("a page from before a change that was heard of is asked for again", async () => {
  const world = begun();
  const { listing, asked } = world;
  listing.opened();
  listing.came(one(3));
  listing.read({ rev: 7, ids: ["n2"] });
  asked[0].resolve(page(6, 2, 1));
  await settle();
  assert.equal(asked.length, 2, "it would have shown 2 as unread");
  asked[1].resolve({ ...page(7, 2, 1), items: [one(2, { read_at: "x" }), one(1)] });
  await settle();
  assert.deepEqual(world.seen[0], [3, -2, 1], "and 3, which no page had, stays");
  listing.opened();
  assert.equal(asked.length, 2, "what is there is not asked for again");
  listing.end();
});

test("the answer that comes last counts, and none that comes after the end", async () => {
  const world = begun();
  const { listing, asked } = world;
  listing.opened();
  listing.changed({ rev: 1 });
  assert.equal(asked.length, 2);
  asked[1].resolve(page(1, 2, 1));
  await settle();
  assert.deepEqual(world.seen, [[2, 1], false, WORDS.empty]);
  asked[0].resolve(page(1, 9));
  await settle();
  assert.deepEqual(world.seen[0], [2, 1]);
  listing.changed({ rev: 2 });
  listing.close();
  asked[2].resolve(page(2, 2, 1));
  listing.opened();
  await settle();
  assert.deepEqual(world.seen, [[], false, ""], "whose session is over reads nothing any more");
  assert.equal(asked.length, 3);
  listing.end();
});

test("what fails says so, and changes nothing", async () => {
  const world = begun();
  const { listing, asked } = world;
  listing.opened();
  asked[0].reject(new Error("503"));
  await settle();
  assert.deepEqual(world.said, [WORDS.notLoaded, true]);
  listing.again();
  asked[1].resolve(page(0, 2, 1));
  await settle();
  assert.equal(world.said, null);
  listing.markRead(one(2));
  listing.hide(one(1));
  for (const { reject } of asked.slice(2)) reject(new Error("503"));
  await settle();
  assert.deepEqual([world.said, world.seen[0]], [[WORDS.failed, false], [2, 1]]);
  listing.readAll();
  listing.hide(one(1));
  for (const { resolve } of asked.slice(4)) resolve();
  await settle();
  assert.deepEqual([world.said, world.seen[0]], [null, [-2]]);
  listing.end();
});

test("a list that nobody looks at is not kept for ever, and loaded when somebody does", async () => {
  const world = begun();
  const { listing, asked } = world;
  world.open = false;
  for (let seq = 1; seq <= 201; seq++) listing.came(one(seq));
  assert.equal(asked.length, 0);
  world.open = true;
  listing.opened();
  assert.deepEqual([world.seen, asked.length], [[[], false, WORDS.loading], 1]);
  asked[0].resolve({ ...page(0, 201, 200), next: 200 });
  await settle();
  assert.deepEqual(world.seen, [[201, 200], true, WORDS.empty]);
  listing.end();
});

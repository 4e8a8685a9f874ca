import assert from "node:assert/strict";
import { test } from "node:test";
import { Entries, linkOf } from "../inbox/entries.js";
import { WORDS, ago } from "../inbox/words.js";
import "../inbox/notification-inbox.js"; // where there is no page it defines nothing, and does not fail

const one = (seq, more) => ({ seq, id: `n${seq}`, title: `t${seq}`, ...more });
const ids = (entries) => entries.list().map(({ id }) => id);

test("newest first, each once, in whatever order and from wherever they come", () => {
  const entries = new Entries();
  assert.equal(entries.add(one(3)), true);
  assert.equal(entries.add(one(null, { id: "fleeting" })), true);
  assert.equal(entries.add(one(4)), true);
  assert.equal(entries.add(one(3)), false);
  entries.append({ items: [one(2), one(1)], next: null });
  assert.deepEqual(ids(entries), ["n4", "fleeting", "n3", "n2", "n1"]);
  assert.equal(entries.next, null);
});

test("a page takes the place of what is known, but not of what came after it was read", () => {
  const entries = new Entries();
  for (const seq of [1, 2, 3, 5]) entries.add(one(seq));
  entries.add(one(null, { id: "fleeting" }));
  entries.replace({ items: [one(4), one(3, { read_at: "2026-01-01T00:00:00Z" })], head: 4, next: 3 });
  assert.deepEqual(ids(entries), ["fleeting", "n5", "n4", "n3"]);
  assert.deepEqual(entries.list().map(({ unread }) => unread), [false, true, true, false]);
  assert.equal(entries.next, 3);
  entries.forget();
  assert.deepEqual([entries.size, entries.next], [0, undefined]);
});

test("what is read, by id and up to a number; what is taken away", () => {
  const entries = new Entries();
  for (const seq of [1, 2, 3, 4]) entries.add(one(seq));
  entries.read({ ids: ["n4", "unknown"] });
  entries.read({ up_to: 2 });
  assert.deepEqual(entries.list().filter(({ unread }) => unread).map(({ id }) => id), ["n3"]);
  entries.remove("n3");
  entries.remove("unknown");
  assert.deepEqual(ids(entries), ["n4", "n2", "n1"]);
});

test("a link is http or https, and nothing else is one", () => {
  const base = "https://app.example/in/box";
  const href = (url, rule) => linkOf({ data: { url } }, base, rule)?.href;
  assert.equal(href("orders/7"), "https://app.example/in/orders/7");
  assert.equal(href("//other.example/x"), "https://other.example/x");
  assert.equal(href("//other.example/x", "same-origin"), undefined);
  assert.equal(href("/x", "same-origin"), "https://app.example/x");
  assert.equal(href("/x", "none"), undefined);
  for (const url of ["javascript:alert(1)", " JaVa\tscript:alert(1)", "data:text/html,x", "blob:https://app.example/1", "file:///etc", "https://", "\u0001javascript:x"]) {
    assert.equal(href(url), undefined, url);
  }
  for (const data of [undefined, null, {}, { url: 1 }, { url: ["/x"] }]) assert.equal(linkOf({ data }, base), null);
});

test("times in words, and a count in the name of the bell", () => {
  const now = Date.parse("2026-11-21T12:00:00Z");
  const said = (time) => ago(time, "en", now);
  assert.equal(said("2026-11-21T11:59:30Z"), "now");
  assert.equal(said("2026-11-21T12:05:00Z"), "now");
  assert.equal(said("2026-11-21T11:55:00Z"), "5 min. ago");
  assert.equal(said("2026-11-20T11:00:00Z"), "yesterday");
  assert.equal(WORDS.bell(0), "Notifications");
  assert.equal(WORDS.bell(3), "Notifications, 3 unread");
  assert.match(WORDS.ended("token_revoked"), /signed out/);
});

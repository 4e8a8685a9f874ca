import assert from "node:assert/strict";
import { test } from "node:test";
import { Contiguous, Position } from "../src/progress.js";
import { Backoff, GatewayError, afterEnd, claims } from "../src/rules.js";

test("what an end means", () => {
  const cases = {
    stop: [[1008, "token_revoked"], [1008, "token_invalid"], [1008, "a_slug_of_tomorrow"], [1002, ""], [1009, "x"]],
    refresh: [[1008, "token_expired"]],
    long: [[1008, "connection_limit"], [1008, "rate_limited"], [1013, "overloaded"]],
    after: [[1012, "draining"]],
    backoff: [[1000, ""], [1001, ""], [1006, ""], [1011, "internal_error"], [4000, "token_expired"], [undefined, ""]],
  };
  for (const [next, ends] of Object.entries(cases)) {
    for (const [code, reason] of ends) assert.equal(afterEnd(code, reason), next, `${code} ${reason}`);
  }
});

test("what a refusal over HTTP means: a proxy in between stops nobody", () => {
  const next = (code, status) => new GatewayError(code, "", status).next;
  assert.equal(next("token_expired", 401), "refresh");
  for (const [code, status] of [["token_revoked", 401], ["origin_refused", 403]]) assert.equal(next(code, status), "stop");
  for (const [code, status] of [["http", 401], ["http", 404], ["rate_limited", 429]]) assert.equal(next(code, status), "long");
  for (const [code, status] of [["no_answer", 0], ["http", 502], ["revocations_stale", 503]]) {
    assert.equal(next(code, status), "backoff");
  }
});

test("full jitter: anything from nothing to a ceiling that doubles up to a minute", () => {
  let drawn = 1;
  const backoff = new Backoff({}, () => drawn);
  const ceilings = Array.from({ length: 9 }, () => backoff.next() / 1000);
  assert.deepEqual(ceilings, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
  drawn = 0;
  assert.equal(backoff.next(), 0);
  assert.equal(backoff.long(), 30000);
  backoff.reset();
  drawn = 0.5;
  assert.equal(backoff.next(), 500);
});

test("the highest number up to which all have come", () => {
  const numbers = new Contiguous(10);
  const at = (from, to) => (numbers.add(from, to), numbers.at);
  assert.equal(at(12), 10);
  assert.equal(at(14, 20), 10);
  assert.equal(at(11), 12);
  assert.equal(at(5, 9), 12);
  assert.ok(numbers.has(14) && numbers.has(1) && !numbers.has(13));
  assert.equal(at(13, 16), 20, "ranges may overlap");
  const position = new Position("e", 3, "u");
  position.skip(4, 6);
  position.received.add(8);
  assert.deepEqual([position.received.at, position.handled.at], [6, 6]);
});

test("any order comes to the same", () => {
  for (let round = 0; round < 200; round++) {
    const numbers = new Contiguous(0);
    const order = Array.from({ length: 30 }, (_, index) => index + 1).sort(() => Math.random() - 0.5);
    const seen = new Set();
    for (const number of order) {
      numbers.add(number);
      seen.add(number);
      let at = 0;
      while (seen.has(at + 1)) at++;
      assert.equal(numbers.at, at);
      for (const one of seen) assert.ok(numbers.has(one));
    }
  }
});

test("the claims of a token, and of what is none", () => {
  const token = `e30.${Buffer.from('{"sub":"ü?>","sid":"s"}', "latin1").toString("base64url")}.x`;
  assert.equal(claims(token).sid, "s");
  for (const text of ["", "t~abc.def", "abc"]) assert.equal(claims(text), null);
});

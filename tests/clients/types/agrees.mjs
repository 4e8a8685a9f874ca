/** Whether the types say what the code does: names of exports, members, options, words, and what events hold. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import ts from "../../support/npm/node_modules/typescript/lib/typescript.js";
import * as code from "../../../clients/js/src/index.js";
import * as inbox from "../../../clients/js/inbox/notification-inbox.js";
import { WORDS } from "../../../clients/js/inbox/words.js";
import { World, note, settle } from "../../../clients/js/test/fakes.js";

const at = (path) => fileURLToPath(new URL(`../../../clients/js/${path}`, import.meta.url));
const FILES = { client: at("src/index.d.ts"), inbox: at("inbox/notification-inbox.d.ts") };
const program = ts.createProgram(Object.values(FILES), { strict: true, target: ts.ScriptTarget.ES2022, types: [] });
const checker = program.getTypeChecker();
const sorted = (names) => [...names].sort();

/** What a file exports, by name. */
const exported = (file) =>
  new Map(checker.getExportsOfModule(checker.getSymbolAtLocation(program.getSourceFile(file))).map((one) => [one.name, one]));
const values = (file) => sorted([...exported(file)].filter(([, { flags }]) => flags & ts.SymbolFlags.Value).map(([name]) => name));
const membersOf = (type) => new Map(checker.getPropertiesOfType(type).map((one) => [one.name, one]));
const members = (file, name) => membersOf(checker.getDeclaredTypeOfSymbol(exported(file).get(name)));
const typeOf = (symbol) => checker.getTypeOfSymbol(symbol);
const isOptional = ({ flags }) => !!(flags & ts.SymbolFlags.Optional);

/** What a value offers beside what every object does. */
const offered = (value, until) => {
  const names = new Set(Object.keys(value));
  for (let proto = Object.getPrototypeOf(value); proto && proto !== until; proto = Object.getPrototypeOf(proto)) {
    for (const name of Object.getOwnPropertyNames(proto)) if (name !== "constructor") names.add(name);
  }
  return sorted(names);
};

// Exports.
assert.deepEqual(values(FILES.client), sorted(Object.keys(code)));
assert.deepEqual(values(FILES.inbox), sorted(Object.keys(inbox)));

// The client, its error, and every event with all that it can hold.
const world = new World();
const client = world.client();
const { heard } = client;
const ofTheFakes = ["heard", "shown"];
const has = offered(client, Object.prototype).filter((name) => !ofTheFakes.includes(name));
assert.deepEqual(has, sorted(members(FILES.client, "Client").keys()));
const error = new code.GatewayError("http", "HTTP 502", 502, 1000);
const inherited = ["name", "message", "stack", "cause", "next"]; // of every Error; `next` is the client's own
const said = [...members(FILES.client, "GatewayError").keys()].filter((name) => !inherited.includes(name));
assert.deepEqual(sorted(said), sorted(Object.keys(error).filter((name) => !inherited.includes(name))));

const events = members(FILES.client, "Events");
await settle();
const fields = { connection: "c", heartbeat: 25, token_expires_at: "2030-01-01T00:00:00.000Z", node: "n" };
await world.hello({ ...fields, reset: true });
const full = { body: "", data: {}, category: null, priority: "high", created_at: "t", expires_at: "t" };
client.on("notification", ({ seq }) => {
  if (seq === 2) throw new Error("fails");
});
for (const one of [note(1, { ...full, topic: "t", read_at: "t" }), note(2, full)]) world.wire.say(one);
world.wire.say({ type: "gap", from: 3, to: 4 });
world.wire.say({ type: "read", ids: ["n1"], unread: 1, rev: 1 });
world.wire.say({ type: "read", up_to: 2, unread: 0, rev: 2 });
world.wire.say({ type: "withdrawn", id: "n1", seq: 1, unread: 0, rev: 3 });
world.wire.say({ type: "changed", unread: 0, rev: 4 });
await settle();
world.wire.drop(1012, "draining");
await settle();
client.close();
assert.deepEqual(sorted(Object.keys(heard)), sorted(events.keys()), "the events");
for (const [type, symbol] of events) {
  const described = typeOf(symbol);
  assert.ok(heard[type].length, `${type} was heard`);
  if (type === "unread") continue;
  const known = membersOf(described);
  const held = new Set(heard[type].flatMap((one) => Object.keys(one)));
  held.delete("type");
  known.delete("type");
  // Whatever it was that told of a change, its `rev` and `unread` are all that is promised.
  if (type !== "changed") assert.deepEqual(sorted(held), sorted(known.keys()), `the fields of ${type}`);
  const always = [...known].filter(([, one]) => !isOptional(one)).map(([name]) => name);
  for (const one of heard[type]) for (const name of always) assert.ok(name in one, `${type} always has ${name}`);
}
const states = typeOf(members(FILES.client, "StateEvent").get("state")).types.map(({ value }) => value);
assert.deepEqual(sorted(new Set(heard.state.map(({ state }) => state).concat("connecting"))), sorted(states));

// Options: what the code takes out of them, and what its paper lists.
const options = sorted(members(FILES.client, "Options").keys());
const read = (path) => readFileSync(at(path), "utf8");
const taken = new Set();
for (const file of ["connect", "client", "api", "tabs"]) {
  for (const [, names] of read(`src/${file}.js`).matchAll(/const \{([^}]*)\} = this\.#options;|, \{([^}]*)\}, lead/g)) {
    for (const name of (names ?? "").split(",")) if (name.trim()) taken.add(name.trim());
  }
  for (const [, name] of read(`src/${file}.js`).matchAll(/options\.(\w+)/g)) taken.add(name);
}
assert.deepEqual(sorted(taken), options, "the options");
const paper = read("README.md");
const table = (heading, rows) => [...paper.split(heading)[1].split("\n## ")[0].matchAll(rows)].flatMap(([, names]) => names.split(", "));
const listed = table("## `connect(options)`", /^\| (`\w+.*?`(?:, `\w+`)*) \|/gm).map((name) => name.match(/\w+/)[0]);
assert.deepEqual(sorted(listed.filter((name) => name !== "option")), options, "the options of README.md");
const told = table("## What it tells", /^\| (`\w+`) \|/gm).map((name) => name.match(/\w+/)[0]);
assert.deepEqual(sorted(told), sorted(events.keys()), "the events of README.md");

// The element.
const own = sorted(members(FILES.inbox, "NotificationInbox").keys()).filter((name) => !membersOf(html()).has(name));
const lifecycle = ["connectedCallback", "disconnectedCallback", "attributeChangedCallback"];
const offers = Object.getOwnPropertyNames(inbox.NotificationInbox.prototype).filter((name) => ![...lifecycle, "constructor"].includes(name));
assert.deepEqual(own, sorted(offers), "the element");
assert.deepEqual(sorted(members(FILES.inbox, "Words").keys()), sorted(Object.keys(WORDS)), "its words");
const says = [...read("inbox/notification-inbox.js").matchAll(/#say\("(\w+)"/g)].map(([, name]) => `inbox-${name}`);
assert.deepEqual(sorted(members(FILES.inbox, "InboxEvents").keys()), sorted(says), "its events");
for (const name of [...says, ...offers]) assert.ok(read("INBOX.md").includes(`\`${name}\``), `${name} stands in INBOX.md`);
console.log("agrees");

function html() {
  return checker.getDeclaredTypeOfSymbol(checker.resolveName("HTMLElement", undefined, ts.SymbolFlags.Type, false));
}

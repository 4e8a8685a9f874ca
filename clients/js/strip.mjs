/**
 * Makes gateway.min.js: the modules of src/ as one, without comments, indentation and the imports between them. It
 * does not parse: the sources keep to this, that a comment has lines of its own, an import is one line, and a template
 * holds no `#` and no template.
 *
 *   node strip.mjs           writes the file
 *   node strip.mjs --check   fails if it is not what the sources make
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const MODULES = ["rules", "progress", "events", "log", "link", "api", "tabs", "acks", "client", "connect"];
const at = (path) => fileURLToPath(new URL(path, import.meta.url));

const stripped = (source) =>
  source
    .replace(/^\s*\/\*\*.*?\*\/$/gms, "")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line && !line.startsWith("//") && !line.startsWith("import "))
    .map((line) => line.replace(/^export (?=class|const)/, ""))
    .join("\n");

/** Names that only a class itself can use may be short: #position is #a everywhere. */
const shortened = (source) => {
  const short = new Map();
  return source.replace(/#[a-zA-Z]+\b/g, (name) => {
    if (!short.has(name)) short.set(name, `#${letter(Math.floor(short.size / 26) - 1)}${letter(short.size % 26)}`);
    return short.get(name);
  });
};

const letter = (number) => (number < 0 ? "" : String.fromCharCode(97 + number));

/** Without the blanks around signs that need none, but in strings, templates and regular expressions. */
const tightened = (source) =>
  source
    .split(/("(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`|\/(?![ *])(?:[^/\\\n]|\\.)+\/[gms]*)/)
    .map((part, index) => (index % 2 ? part : part.replace(/ ?([{}()[\],:;=?&|<>!*]) ?/g, "$1").replace(/ \+ (?!\+)/g, "+")))
    .join("");

const made =
  `/*! notification-gateway client ${JSON.parse(readFileSync(at("package.json"), "utf8")).version}, MIT licence */\n` +
  tightened(shortened(MODULES.map((name) => stripped(readFileSync(at(`src/${name}.js`), "utf8"))).join("\n"))) +
  "\nexport { connect, GatewayError };\n";

if (!process.argv.includes("--check")) {
  writeFileSync(at("gateway.min.js"), made);
} else if (readFileSync(at("gateway.min.js"), "utf8") !== made) {
  console.error("gateway.min.js is not what src/ makes: run node strip.mjs");
  process.exitCode = 1;
}

/**
 * Makes gateway.min.js: the modules of src/ as one, without comments, indentation and the imports between them. It
 * does not parse: the sources keep to this, that a comment has lines of its own, an import is one line, a template holds
 * no `#` and no template, and a constant has the same name in two modules only if it has the same value.
 *
 *   node strip.mjs           writes the file
 *   node strip.mjs --check   fails if it is not what the sources make
 */
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** In the order of which gzip makes the least. None needs another before it is called. */
const MODULES = ["page", "log", "link", "acks", "progress", "events", "renewal", "client", "tabs", "rules", "api", "connect"];
const NUMBER = /^const ([A-Z_]+) = (\d+);$/gm;
const at = (path) => fileURLToPath(new URL(path, import.meta.url));

const stripped = (source) =>
  source
    .replace(/^\s*\/\*\*.*?\*\/$/gms, "")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line && !line.startsWith("//") && !line.startsWith("import "))
    .map((line) => line.replace(/^export (?=class|const)/, ""))
    .join("\n");

/** Names that only a class itself can use may be short, and the same in all modules: the most used one is #a. */
const shortened = (source) => {
  const used = new Map();
  for (const [name] of source.matchAll(/#[a-zA-Z]+\b/g)) used.set(name, (used.get(name) ?? 0) + 1);
  const names = [...used.keys()].sort((one, other) => used.get(other) - used.get(one));
  return source.replace(/#[a-zA-Z]+\b/g, (name) => `#${letter(names.indexOf(name))}`);
};

/** a, b, … z, aa, … */
const letter = (number) => (number < 26 ? "" : letter(Math.floor(number / 26) - 1)) + String.fromCharCode(97 + (number % 26));

/**
 * Without the blanks and line breaks around signs that need none, with `let` for `const`, and with short names for the
 * constants of modules, or the numbers that they are. Strings, templates and regular expressions stay as they are.
 */
const tightened = (source) => {
  const constants = [...source.matchAll(/^const ([A-Z_]+) =/gm)].map(([, name]) => name);
  const numbers = new Map([...source.matchAll(NUMBER)].map(([, name, digits]) => [name, digits.replace(/000+$/, ({ length }) => `e${length}`)]));
  const short = (name) => numbers.get(name) ?? (constants.includes(name) ? `$${letter(constants.indexOf(name))}` : name);
  const tight = (part, index) => {
    if (index % 2) return part;
    return part
      .replace(/\bconst /g, "let ")
      .replace(/\b[A-Z_]+\b/g, short)
      .replace(/(?<![\w"`)\]])\n|\n(?![\w#])/g, "")
      .replace(/ ?([{}()[\],:;=?&|<>!*/]) ?/g, "$1")
      .replace(/ ?([-+]) (?!\1)| (?=[-+]=)/g, "$1")
      .replace(/(?<=[(,=:])\((\w+)\)(?==>)/g, "$1")
      .replace(/;(?=})| $/g, "");
  };
  return source.replace(NUMBER, "").split(/("(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`|\/(?![ *])(?:[^/\\\n]|\\.)+\/[gms]*)/).map(tight).join("");
};

const made =
  `/*! notification-gateway client ${JSON.parse(readFileSync(at("package.json"), "utf8")).version}, MIT licence */\n` +
  tightened(MODULES.map((name) => shortened(stripped(readFileSync(at(`src/${name}.js`), "utf8")))).join("\n")) +
  "\nexport { connect, GatewayError };\n";

if (!process.argv.includes("--check")) {
  writeFileSync(at("gateway.min.js"), made);
} else if (readFileSync(at("gateway.min.js"), "utf8") !== made) {
  console.error("gateway.min.js is not what src/ makes: run node strip.mjs");
  process.exitCode = 1;
}

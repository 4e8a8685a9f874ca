/**
 * Signs in by cookie and shows the inbox. The access token lies in this module's memory; nothing is kept by the page,
 * so that a reload asks again with the cookie, which no script can read.
 */
import "./inbox/notification-inbox.js";

const WITHIN = 15000;
/** A token is not used in its last seconds. */
const SPARE = 30000;

const $ = (id) => document.getElementById(id);
const VIEWS = ["unreachable", "sign-in", "home"];
const ENDED = {
  user_disabled: "This account is disabled.",
  token_missing: "",
  token_revoked: "Your session was ended elsewhere.",
};
let held = null;
let inbox = null;
let me = null;

class Refusal extends Error {}

/** The answer of the gateway; a Refusal has its `code`, `status` and `seconds` to wait, `no_answer` if there is none. */
async function ask(method, path, body, token) {
  const headers = { ...(body && { "Content-Type": "application/json" }), ...(token && { Authorization: `Bearer ${token}` }) };
  let response, answer;
  try {
    const signal = AbortSignal.timeout(WITHIN);
    // Beside this page, whatever a proxy has put in front of both.
    response = await fetch(new URL(path, document.baseURI), { method, headers, signal, body: body && JSON.stringify(body) });
    answer = response.status === 204 ? null : await response.json();
  } catch {
    throw Object.assign(new Refusal("The gateway does not answer."), { code: "no_answer", status: 0 });
  }
  if (response.ok) return answer;
  const { code, detail, status } = answer;
  throw Object.assign(new Refusal(detail), { code, status, seconds: Number(response.headers.get("Retry-After")) });
}

async function token(fresh) {
  if (fresh || !held || performance.now() > held.until) {
    const { access_token, expires_in } = await ask("POST", "auth/refresh");
    held = { access_token, until: performance.now() + expires_in * 1000 - SPARE };
  }
  return held.access_token;
}

function show(view) {
  for (const one of VIEWS) $(one).hidden = one !== view;
  $("out").classList.toggle("away", view !== "home");
}

function said(refusal) {
  if (refusal.code === "bad_credentials") return "Wrong username or password.";
  if (refusal.status === 429) return `Too many tries. Try again in ${refusal.seconds || 60} seconds.`;
  if (refusal.status >= 500) return "The gateway is not ready. Try again in a moment.";
  return refusal.message;
}

/** As the cookie says, if there is one. */
async function enter() {
  try {
    me = await ask("GET", "auth/me", null, await token(true));
  } catch (refusal) {
    if (refusal.status === 401) return leave(refusal.code);
    return show("unreachable");
  }
  inbox?.remove();
  inbox = document.createElement("notification-inbox");
  inbox.setAttribute("url", ".");
  inbox.getToken = (reason) => token(reason !== "connect").catch(({ code, status }) => ({ code, status }));
  inbox.addEventListener("inbox-state", ({ detail }) => state(detail.state));
  inbox.addEventListener("inbox-unread", ({ detail }) => {
    document.title = detail ? `(${detail}) Inbox demo` : "Inbox demo";
  });
  inbox.addEventListener("inbox-close", ({ detail }) => (detail.reason === "user_changed" ? enter() : leave(detail.reason)));
  themed();
  $("who").textContent = me.username;
  const sends = me.scope.split(" ").includes("notifications:write");
  $("send").hidden = !sends;
  $("how").hidden = sends;
  $("command").textContent = `gateway send ${me.id} "Order shipped"`;
  $("sent").textContent = "";
  state("connecting");
  show("home");
  $("bell").replaceChildren(inbox);
}

/** Back to the form, and why. Nothing of who was signed in stays on the page. */
function leave(reason) {
  inbox?.remove();
  inbox = me = held = null;
  document.title = "Inbox demo";
  $("who").textContent = $("command").textContent = $("password").value = "";
  wrong("");
  $("why").textContent = ENDED[reason] ?? "Sign in again.";
  $("why").hidden = !$("why").textContent;
  show("sign-in");
  $("username").focus();
}

function state(name, failed = "") {
  const words = { open: "Connected", connecting: "Connecting …", waiting: "Not connected. Trying again …", closed: "" };
  $("state").className = failed ? "failed" : name;
  $("state").textContent = failed || words[name];
}

function wrong(text, password = false) {
  $("refused").textContent = text;
  $("password").setAttribute("aria-invalid", String(password));
}

/** A button that is at work takes no second click, and keeps the focus. */
async function busy(button, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  await work();
  button.setAttribute("aria-disabled", "false");
}

$("sign-in").onsubmit = (event) => {
  event.preventDefault();
  busy(event.submitter, async () => {
    const [username, password] = [$("username").value, $("password").value];
    wrong("");
    try {
      await ask("POST", "auth/login?cookie=true", { username, password, device: "demo page" });
      await enter();
      if (me) $("password").value = "";
      else if (!$("sign-in").hidden) wrong("This browser has not kept the cookie: it wants TLS.");
    } catch (refusal) {
      wrong(said(refusal), refusal.code === "bad_credentials");
      $("password").select();
    }
  });
};

$("out").onclick = ({ target }) =>
  busy(target, async () => {
    try {
      await ask("POST", "auth/logout");
      leave("token_missing");
    } catch (refusal) {
      state("", `You are still signed in. ${said(refusal)}`);
    }
  });

$("send").onsubmit = (event) => {
  event.preventDefault();
  busy(event.submitter, async () => {
    try {
      const { id } = me;
      await ask("POST", "notifications", { user_id: id, title: $("title").value, body: $("text").value }, await token());
      $("sent").textContent = "Sent.";
    } catch (refusal) {
      $("sent").textContent = said(refusal);
    }
  });
};

$("again").onclick = ({ target }) => busy(target, enter);

const prefers = matchMedia("(prefers-color-scheme: dark)");
let theme = null;

function themed() {
  const dark = theme ? theme === "dark" : prefers.matches;
  $("theme").setAttribute("aria-pressed", String(dark));
  if (!theme) return;
  document.documentElement.dataset.theme = theme;
  inbox?.setAttribute("theme", theme);
}

$("theme").onclick = () => {
  theme = $("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark";
  themed();
};
prefers.addEventListener("change", themed);
themed();
enter();

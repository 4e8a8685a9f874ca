/** What goes over HTTP, and the token it goes with. A token is asked for when there is none, and kept while it is good. */
import { GatewayError, claims } from "./rules.js";

const WITHIN = 15000;
/** What `getToken` has not given by then was lost on the way: it is asked again. */
const TOKEN_WITHIN = 60000;
const LONGEST = 3600000;

export class Api {
  #kept;
  #why = "connect";

  /** `url` without a slash at its end. `getToken` gets the reason it is asked for. */
  constructor(url, getToken, fetch) {
    Object.assign(this, { url, getToken, fetch });
  }

  /** Whatever `getToken` gives: an access token is kept, a ticket is good once. Raises `token_missing` if it gives none. */
  async token() {
    const kept = (this.#kept ??= this.#ask(this.#why));
    try {
      const token = await kept;
      if (!claims(token)) this.drop("connect", kept);
      return token;
    } catch (error) {
      this.drop(this.#why, kept);
      throw error;
    }
  }

  /** The kept token is of no more use, and why. `only`: if it is still this one. */
  drop(why, only = this.#kept) {
    if (only !== this.#kept) return;
    this.#kept = undefined;
    this.#why = why;
  }

  /** What stands in the URL of a connection: a ticket, so that no token is written down on the way. */
  async ticket() {
    const token = await this.token();
    return claims(token) ? (await this.call("POST", "/auth/ticket")).ticket : token;
  }

  async call(method, path, body, again = true) {
    const { fetch, url } = this;
    let token = await this.token();
    if (!claims(token)) token = await this.#ask("http");
    const kept = this.#kept;
    const headers = { Authorization: `Bearer ${token}` };
    if (body) headers["Content-Type"] = "application/json";
    const signal = AbortSignal.timeout(WITHIN);
    let response, answer;
    try {
      response = await fetch(url + path, { method, headers, signal, body: body && JSON.stringify(body) });
      answer = response.status === 204 ? null : await response.json();
    } catch (error) {
      throw response ? new GatewayError("http", `HTTP ${response.status}`, response.status) : new GatewayError("no_answer", `${error}`);
    }
    if (response.ok) return answer;
    const { code = "http", detail } = answer ?? {};
    if (code === "token_expired") {
      this.drop(code, kept);
      if (again) return this.call(method, path, body, false);
    }
    // Seconds, or the date of a proxy (RFC 9110, section 10.2.3).
    const after = response.headers.get("Retry-After");
    const wait = after * 1000 || Date.parse(after) - Date.now() || 0;
    throw new GatewayError(code, detail, response.status, Math.min(Math.max(wait, 0), LONGEST));
  }

  async #ask(reason) {
    const { getToken } = this;
    const asked = getToken(reason);
    let late;
    const silence = new Promise((_, reject) => {
      late = setTimeout(reject, TOKEN_WITHIN, new GatewayError("token_failed", "getToken is silent"));
    });
    const given = await Promise.race([asked, silence]).finally(() => clearTimeout(late));
    if (!given) throw new GatewayError("token_missing", "getToken gave no token", 401);
    const token = given.access_token ?? given.ticket ?? given;
    if (typeof token === "string") return token;
    // A problem in its place counts as what it is: one of 401 ends the client, one of 503 does not.
    throw new GatewayError(given.code ?? "token_failed", "getToken gave no token", given.status);
  }
}

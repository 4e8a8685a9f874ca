/**
 * The rules of a client as values: what an end means, how long to wait, what a token says of itself. No socket, no
 * timer, no request.
 */

/** What `afterEnd` answers, of slugs whose code alone would say something else. */
const BY_SLUG = { token_expired: "refresh", connection_limit: "long", rate_limited: "long" };
const BY_CODE = { 1002: "stop", 1003: "stop", 1007: "stop", 1008: "stop", 1009: "stop", 1012: "after", 1013: "long" };

/**
 * What to do about a connection that ended so (docs/protocol.md, "Ends"): "stop", "refresh" (a fresh token, then
 * again), "long" (a long wait), "after" (when the gateway said), "backoff". A slug it does not know goes by its code.
 */
export const afterEnd = (code, reason) => (code === 1008 && BY_SLUG[reason]) || BY_CODE[code] || "backoff";

/** What the gateway, or the way to it, refused. `code`: its slug; `status`: of HTTP, 0 if there was no answer. */
export class GatewayError extends Error {
  constructor(code, detail = code, status = 0, retryAfter = 0) {
    super(detail);
    Object.assign(this, { name: "GatewayError", code, status, retryAfter });
  }

  /** As `afterEnd`. Only a problem of the gateway's own stops a client: a proxy in between may refuse for a minute. */
  get next() {
    const { code, status } = this;
    if (code === "token_expired") return "refresh";
    if ((status === 401 || status === 403) && code !== "http") return "stop";
    return status >= 400 && status < 500 ? "long" : "backoff";
  }
}

/**
 * Full jitter: each wait, in milliseconds, is anywhere up to a ceiling that doubles from `first` to `most`. Full,
 * because after an outage all clients come back at once, and only chance keeps them apart.
 */
export class Backoff {
  #failures = 0;

  constructor({ first = 1000, most = 60000 } = {}, random = Math.random) {
    this.first = first;
    this.most = most;
    this.random = random;
  }

  next() {
    return this.random() * Math.min(this.most, this.first * 2 ** this.#failures++);
  }

  /** The wait of who was told that there is no room: never short. */
  long() {
    this.#failures++;
    return this.most * (0.5 + this.random() / 2);
  }

  reset() {
    this.#failures = 0;
  }
}

/** The claims of an access token, unverified; null of what is none (a ticket). */
export const claims = (token) => {
  try {
    return JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")));
  } catch {
    return null;
  }
};

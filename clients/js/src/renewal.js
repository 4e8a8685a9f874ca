/** The token of an open connection, renewed before it expires. */

const AHEAD = 60000;

export class Renewal {
  #api;
  #backoff;
  #events;
  #timer;

  constructor(api, backoff, events) {
    this.#api = api;
    this.#backoff = backoff;
    this.#events = events;
  }

  /** The token of `link` expires then: an RFC 3339 time. */
  before(expires, link) {
    const left = Date.parse(expires) - Date.now();
    // The clock of this machine may be wrong: then it is the gateway that says when the token has expired.
    const wait = left > 0 ? Math.min(Math.max(left - Math.min(AHEAD, left / 4), 1000), 1e9) : AHEAD;
    this.#in(wait, link);
  }

  stop() {
    clearTimeout(this.#timer);
  }

  #in(wait, link) {
    this.#timer = setTimeout(() => this.#renew(link), wait);
  }

  async #renew(link) {
    try {
      this.#api.drop("renew");
      const token = await this.#api.token();
      // A stream cannot be told: another one takes its place.
      if (link.events) link.end(1012, "renew", 0);
      else this.before((await link.ask({ type: "token", token })).token_expires_at, link);
    } catch (error) {
      if (link.over) return;
      this.#events.fail(error);
      this.#in(1000 + this.#backoff.next(), link);
    }
  }
}

/** What an inbox shows, newest first, as it comes out of pages, frames and what the user does. No DOM, no requests. */

export class Entries {
  /** Before which number the next older page begins; null: there is none; undefined: nothing was loaded yet. */
  next;
  #byId = new Map();
  #top = 0;
  #fleeting = 0;

  get size() {
    return this.#byId.size;
  }

  get(id) {
    return this.#byId.get(id);
  }

  /** Whether it was not known. One that is known keeps its place. */
  add(notification) {
    const { id, seq } = notification;
    const known = this.#byId.get(id);
    if (known) {
      known.read_at ??= notification.read_at;
      return false;
    }
    this.#top = Math.max(this.#top, seq);
    // One that is stored nowhere stands where it came: above what was there, below what comes later.
    const place = seq ?? this.#top + ++this.#fleeting * 1e-6;
    this.#byId.set(id, { ...notification, place, unread: seq !== null && !notification.read_at });
    return true;
  }

  /** The newest page in the place of all that is known, but for what has come since and what no page ever holds. */
  replace({ items, head, next }) {
    for (const [id, { seq }] of this.#byId) if (seq !== null && seq <= head) this.#byId.delete(id);
    this.append({ items, next });
  }

  append({ items, next }) {
    for (const item of items) this.add(item);
    this.next = next;
  }

  /** `ids` or `up_to`, as a `read` frame has them. */
  read({ ids, up_to }) {
    for (const entry of this.#byId.values()) {
      if (ids ? ids.includes(entry.id) : entry.seq <= up_to) entry.unread = false;
    }
  }

  remove(id) {
    this.#byId.delete(id);
  }

  /** As if nothing had been loaded. */
  forget() {
    this.#byId.clear();
    this.next = undefined;
  }

  /** Newest first. */
  list() {
    return [...this.#byId.values()].sort((one, other) => other.place - one.place);
  }
}

/**
 * Where `data.url` leads, if it may be a link: http or https, and for `rule` "same-origin" nowhere else than `base`.
 * Null of anything else, `javascript:` above all, and for `rule` "none".
 */
export const linkOf = ({ data }, base, rule) => {
  if (typeof data?.url !== "string" || rule === "none") return null;
  try {
    const url = new URL(data.url, base);
    const here = url.origin === new URL(base).origin;
    return /^https?:$/.test(url.protocol) && (here || rule !== "same-origin") ? url : null;
  } catch {
    return null;
  }
};

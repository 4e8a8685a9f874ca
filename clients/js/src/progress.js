/** How far a client is in its log. Numbers only: no frames, no I/O. */

/** The highest number up to which all were added. They may come in any order, as ranges, and more than once. */
export class Contiguous {
  #later = new Map();

  constructor(at) {
    this.at = at;
  }

  add(from, to = from) {
    if (from > this.at + 1) {
      this.#later.set(from, to);
      return;
    }
    if (to > this.at) this.at = to;
    if (!this.#later.size) return;
    for (const [first, last] of [...this.#later].sort(([a], [b]) => a - b)) {
      if (first > this.at + 1) break;
      this.#later.delete(first);
      if (last > this.at) this.at = last;
    }
  }

  /** Of single numbers only: not of one inside a range that is still ahead of a hole. */
  has(number) {
    return number <= this.at || this.#later.has(number);
  }
}

/**
 * A position in the log that `epoch` names. `received`: what came, from where a connection goes on; `handled`: what
 * every handler has done with, which may be acknowledged and stored; `acked` and `saved`: how far that was done.
 */
export class Position {
  saved = -1;

  constructor(epoch, seq, user) {
    this.epoch = epoch;
    this.user = user;
    this.received = new Contiguous(seq);
    this.handled = new Contiguous(seq);
    this.acked = seq;
  }

  /** Numbers that will not come here. */
  skip(from, to) {
    this.received.add(from, to);
    this.handled.add(from, to);
  }
}

/** The tabs of one browser: one of them leads, what it hears is told to the others. Knows no gateway. */

export class Tabs {
  #channel;
  #waiting = new AbortController();
  #left;

  /**
   * `lead` is called when this tab is the one, at once or when the one before has gone; it is until it leaves. `heard`
   * gets what another tab has told.
   */
  constructor(name, { locks, BroadcastChannel }, lead, heard) {
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => heard(data);
    const left = new Promise((resolve) => {
      this.#left = resolve;
    });
    const { signal } = this.#waiting;
    const turn = () => {
      lead();
      return left;
    };
    // Refused to a page that may keep nothing (a sandboxed frame): then it is on its own.
    locks.request(name, { signal }, turn).catch(() => signal.aborted || lead());
  }

  tell(message) {
    this.#channel.postMessage(message);
  }

  leave() {
    this.#waiting.abort();
    this.#left();
    this.#channel.close();
  }
}

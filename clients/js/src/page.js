/** What becomes of the page that the client is in, if it is in one, and waits that may end when somebody looks at it. */

const HAPPENS = ["online", "visibilitychange", "pagehide", "pageshow", "freeze", "resume"];

export class Page {
  #happened;
  #sleeping = new Map();

  /**
   * `left()`: the browser keeps the page, to go back to or because nobody looks at it, and stops it; `back()`: it goes
   * on. `seen()`: somebody looks at it again, or there may be a network again.
   */
  constructor(left, back, seen) {
    let away = false;
    this.#happened = ({ type }) => {
      if (type === "pagehide" || type === "freeze") {
        away = true;
        left();
      } else if (type === "pageshow" || type === "resume") {
        if (away) back();
        away = false;
      } else if (type === "online" || !document.hidden) {
        this.wake(true);
        seen();
      }
    };
    this.#watch("addEventListener");
  }

  /** Until then, or until `wake`; `soon`: also until there is reason to hope. */
  sleep(ms, soon) {
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        this.#sleeping.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, ms);
      this.#sleeping.set(wake, soon);
    });
  }

  wake(soon) {
    for (const [wake, may] of this.#sleeping) if (may || !soon) wake();
  }

  stop() {
    this.#watch("removeEventListener");
  }

  /** Some happen to the document and do not bubble: the window hears them on their way down. */
  #watch(how) {
    if (globalThis.document) for (const type of HAPPENS) globalThis[how](type, this.#happened, true);
  }
}

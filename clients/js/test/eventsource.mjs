/** As much of an EventSource as the client uses, for a Node that has none. It does not come back by itself. */
export class EventSource {
  #listeners = {};
  #gone = new AbortController();

  constructor(url) {
    this.#read(url).catch(() => this.onerror?.());
  }

  addEventListener(type, listener) {
    this.#listeners[type] = listener;
  }

  close() {
    this.#gone.abort();
  }

  async #read(url) {
    const response = await fetch(url, { signal: this.#gone.signal });
    let text = "";
    for await (const chunk of response.body.pipeThrough(new TextDecoderStream())) {
      const events = (text + chunk).split("\n\n");
      text = events.pop();
      for (const event of events) {
        const fields = Object.fromEntries(event.split("\n").map((line) => line.match(/^(\w*): ?(.*)$/)?.slice(1) ?? []));
        if (fields.data) this.#listeners[fields.event]?.({ data: fields.data });
      }
    }
    this.onerror?.();
  }
}

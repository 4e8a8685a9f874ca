/** Handlers by the type of what they hear. One that fails is told to the `error` handlers, or to the console. */

export class Events {
  #handlers = {};

  /** Returns what takes the handler off again. */
  on(type, handler) {
    const handlers = (this.#handlers[type] ??= new Set());
    handlers.add(handler);
    return () => void handlers.delete(handler);
  }

  of(type) {
    return [...(this.#handlers[type] ?? [])];
  }

  has(type, handler) {
    return this.#handlers[type].has(handler);
  }

  emit(type, detail) {
    for (const handler of this.of(type)) this.#call(handler, detail, type);
  }

  fail(error, notification) {
    if (this.of("error").length) this.emit("error", { error, notification });
    else console.error(error);
  }

  async #call(handler, detail, type) {
    try {
      await handler(detail);
    } catch (error) {
      if (type === "error") console.error(error);
      else this.fail(error);
    }
  }
}

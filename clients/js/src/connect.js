import { Client } from "./client.js";

/** A client that connects at once and stays connected until `close()`, or until the gateway says that it makes no sense. */
export const connect = (options) => {
  const { document, fetch, location, navigator, BroadcastChannel, EventSource, WebSocket } = globalThis;
  const { origin, pathname } = new URL(options.url ?? "/", location?.href);
  const given = {
    ...{ fetch, BroadcastChannel, EventSource, WebSocket, locks: navigator?.locks, share: !!document },
    ...options,
    url: (origin + pathname).replace(/\/+$/, ""),
  };
  if (!given.WebSocket && !given.EventSource) throw new TypeError("connect needs a WebSocket or an EventSource");
  return new Client(given);
};

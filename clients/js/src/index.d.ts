/** Types of the client. Times are RFC 3339 UTC; ids are opaque; `seq` counts 1, 2, 3, … per user. */

export interface Notification {
  type?: "notification";
  /** null only of one that was pushed with `ttl: 0`: it is stored nowhere. */
  seq: number | null;
  id: string;
  title: string;
  body: string;
  data: Record<string, unknown>;
  category: string | null;
  priority: "low" | "normal" | "high";
  topic?: string;
  created_at: string;
  expires_at: string;
  read_at?: string;
}

export interface Hello {
  type: "hello";
  connection: string;
  user: string;
  session: string;
  epoch: string;
  head: number;
  rev: number;
  cursor: number;
  after: number;
  reset: boolean;
  unread: number;
  heartbeat: number;
  token_expires_at: string;
  node: string;
}

export interface Page {
  items: Notification[];
  head: number;
  rev: number;
  epoch: string;
  unread: number;
  /** `before` of the next page (`after`, if this one was asked with it); null on the last. */
  next: number | null;
}

/** What is undefined is left out. */
export interface Query {
  after?: number | undefined;
  before?: number | undefined;
  limit?: number | undefined;
  unread?: boolean | undefined;
  category?: string | undefined;
}

/**
 * `connecting`: on the way to a `hello`. `open`: what is pushed arrives. `waiting`: `delay` ms until the next try.
 * `closed`: for good.
 */
export type State = "connecting" | "open" | "waiting" | "closed";

export interface StateEvent {
  state: State;
  /** Whether it is this tab that has the connection. */
  leader: boolean;
  /** Of `open`. */
  transport?: "socket" | "events";
  /** Of `waiting` and `closed`: how the connection ended. */
  code?: number;
  reason?: string;
  delay?: number;
}

export interface Events {
  /** Acknowledged once every handler has returned, or its promise is fulfilled. A handler that fails is called again. */
  notification: Notification;
  /** These numbers will not come: expired, withdrawn, hidden, over the limit of the inbox. */
  gap: { from: number; to: number };
  read: { ids?: string[]; up_to?: number; unread: number; rev: number };
  /** Taken back by its sender or hidden by the user: take it off the screen. */
  withdrawn: { id: string; seq: number; unread: number; rev: number };
  /** Something was missed: read `inbox()` again for what is on screen. */
  changed: { rev: number; unread: number };
  /** The log has another history (or is another's): numbers kept by the page are worth nothing. `changed` follows. */
  reset: Hello;
  /** The new value of `client.unread`. */
  unread: number;
  state: StateEvent;
  /** A handler, `getToken` or the storage failed, or the gateway refused a frame. Without a handler: `console.error`. */
  error: { error: Error; notification?: Notification };
  /** For good; the last event but `state`. `reason`: `closed` (by `close()`), a slug of docs/protocol.md, `user_changed`, `invalid_frame`. */
  close: { code: number; reason: string };
}

export interface Position {
  seq: number;
  epoch: string;
  user: string;
}

/** Keeps a position over the life of the page. One for each user and gateway. */
export interface Storage {
  load(): Position | null | undefined | Promise<Position | null | undefined>;
  save(position: Position): void | Promise<void>;
}

/**
 * Why a token is asked for: for the first connection (or again, if a ticket was given); because the gateway says that
 * the one before has expired; because it is about to; for a request, for which a ticket is not good.
 */
export type Reason = "connect" | "token_expired" | "renew" | "http";

/** An access token, a ticket, or an answer of `/auth/login`, `/auth/refresh`, `/auth/token` or `/auth/ticket`. */
export type Token = string | { access_token: string } | { ticket: string };

export interface Options {
  /** Where the gateway is, with the path in front of `/ws` if there is one. In a page: by default its own origin. */
  url?: string;
  /**
   * A fresh token. It is kept while it is good, so this is called rarely. Null: nobody is signed in, and the client
   * closes with `token_missing`. The problem that the gateway answered instead of a token counts as what it says: 401
   * closes, after anything else it is tried again later, and so it is if this rejects or says
   * nothing for a minute.
   */
  getToken(reason: Reason): Token | null | undefined | object | Promise<Token | null | undefined | object>;
  storage?: Storage;
  /** One connection for all tabs of the same session (true, in pages), or of this name; false: each has its own. */
  share?: boolean | string;
  /** Milliseconds: the first ceiling of the waits and the last. 1000 and 60000. */
  backoff?: { first?: number; most?: number };
  /** In the place of the global ones. */
  WebSocket?: unknown;
  EventSource?: unknown;
  fetch?: typeof fetch;
  locks?: unknown;
  BroadcastChannel?: unknown;
}

export interface Client {
  readonly state: State;
  /** Whether it is this tab that has the connection. */
  readonly leader: boolean;
  /** How many are stored and not read; null until the gateway has said. */
  readonly unread: number | null;
  readonly user: string | null;
  /** Handlers that are on before the next turn of the event loop miss nothing. Returns what takes this one off again. */
  on<Type extends keyof Events>(type: Type, handler: (event: Events[Type]) => unknown): () => void;
  /** Newest first without `after`. Rejects with a GatewayError, as everything below. */
  inbox(query?: Query): Promise<Page>;
  /** Ids, or everything up to a `seq`. All connections of the user hear it as `read`, this one too. */
  markRead(what: string | string[] | number): Promise<{ unread: number; rev: number }>;
  /** Everything that has come here. */
  readAll(): Promise<{ unread: number; rev: number }>;
  /** Out of the user's inbox, on all devices; heard as `withdrawn`. */
  hide(id: string): Promise<void>;
  /** Acknowledges what is handled and hangs up. In a shared connection another tab takes over. */
  close(): void;
}

export class GatewayError extends Error {
  /** The gateway's word for it (docs/api.md); `no_answer`; `http`: refused, but not by a gateway. */
  readonly code: string;
  /** Of HTTP; 0 if there was no answer. */
  readonly status: number;
  /** Milliseconds the gateway asked for. */
  readonly retryAfter: number;
}

/** A client that connects at once and comes back by itself until `close()`, or until the gateway says it makes no sense. */
export function connect(options: Options): Client;

/** Types of `<notification-inbox>`. What it does: INBOX.md beside this directory. */
import type { Client, Notification, Options, StateEvent } from "../src/index.js";

/** What it says. See words.js for what it says in English. */
export interface Words {
  bell(unread: number): string;
  heading: string;
  readAll: string;
  read: string;
  hide: string;
  unread: string;
  empty: string;
  loading: string;
  older: string;
  again: string;
  notLoaded: string;
  failed: string;
  offline: string;
  came(titles: string[]): string;
  ended(reason: string): string;
}

export interface InboxEvents {
  /** One that has just come. */
  "inbox-notification": CustomEvent<Notification>;
  "inbox-unread": CustomEvent<number>;
  /** The user has chosen one. `preventDefault()` keeps its link from being followed. */
  "inbox-select": CustomEvent<Notification>;
  /** Whether the panel is open now. */
  "inbox-toggle": CustomEvent<boolean>;
  "inbox-state": CustomEvent<StateEvent>;
  /** The end of the connection, for good: as `close` of the client. */
  "inbox-close": CustomEvent<{ code: number; reason: string }>;
}

export class NotificationInbox extends HTMLElement {
  client: Client | null;
  getToken: Options["getToken"] | undefined;
  get words(): Words;
  set words(words: Partial<Words>);
  open: boolean;
  readonly unread: number | null;
  addEventListener<Type extends keyof InboxEvents>(
    type: Type,
    listener: (this: NotificationInbox, event: InboxEvents[Type]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
}

declare global {
  interface HTMLElementTagNameMap {
    "notification-inbox": NotificationInbox;
  }
}

/** What the inbox says, in English, and how it tells times. `element.words = {...}` says it in another language. */

export const WORDS = {
  bell: (unread) => (unread ? `Notifications, ${unread} unread` : "Notifications"),
  heading: "Notifications",
  readAll: "Mark all as read",
  read: "Mark as read",
  hide: "Hide",
  unread: "Unread",
  empty: "Nothing here yet",
  loading: "Loading …",
  older: "Load older",
  again: "Try again",
  notLoaded: "The notifications could not be loaded.",
  failed: "That did not work. Try again in a moment.",
  offline: "Not connected. Trying again …",
  /** To screen readers, of what has just come. */
  came: (titles) => (titles.length === 1 ? `New notification: ${titles[0]}` : `${titles.length} new notifications`),
  /** `reason`: as the event `close` of the client. */
  ended: (reason) =>
    ({
      user_disabled: "This account is disabled.",
      user_changed: "Somebody else has signed in.",
      insufficient_scope: "This account has no inbox.",
    })[reason] ?? (reason.startsWith("token_") ? "You are signed out." : `The connection has ended (${reason}).`),
};

const UNITS = [["year", 31536e6], ["month", 2592e6], ["week", 6048e5], ["day", 864e5], ["hour", 36e5], ["minute", 6e4]];

/** "5 min. ago" in that language; a clock that is behind sees nothing in the future. */
export const ago = (time, language, now = Date.now()) => {
  const past = Math.max(0, now - Date.parse(time));
  const [unit, length] = UNITS.find(([, length]) => past >= length) ?? ["second", Infinity];
  const format = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
  return format.format(-Math.floor(past / length) || 0, unit);
};

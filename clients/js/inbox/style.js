/** How the inbox looks. What a page may change are the --inbox- properties, the parts, and `color-scheme`. */

const CSS = `
:host {
  color-scheme: light dark;
  display: inline-block;
  position: relative;
  --accent: var(--inbox-accent, light-dark(#1a56db, #8ab4ff));
  --background: var(--inbox-background, light-dark(#fff, #1c2027));
  --text: var(--inbox-text, light-dark(#16191f, #eef1f6));
  --muted: var(--inbox-muted, light-dark(#596171, #a6afbf));
  --line: var(--inbox-border, light-dark(#dce0e8, #363d49));
  --raised: var(--inbox-hover, light-dark(#f1f4f9, #282e38));
  --badge: var(--inbox-badge, light-dark(#c81e1e, #ff8a80));
  --badge-text: var(--inbox-badge-text, light-dark(#fff, #26090a));
  color: var(--text);
  font: var(--inbox-font, 400 0.9375rem/1.45 system-ui, sans-serif);
  text-align: start;
}
:host([theme="light"]) { color-scheme: light; }
:host([theme="dark"]) { color-scheme: dark; }
:host([hidden]), [hidden] { display: none !important; }
* { box-sizing: border-box; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
button, a { font: inherit; color: inherit; text-align: start; }
button { background: none; border: 0; padding: 0; cursor: pointer; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
svg { width: 1.125rem; height: 1.125rem; display: block; fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; stroke-linejoin: round; }

.bell { position: relative; display: grid; place-items: center; width: 2.75rem; height: 2.75rem; border-radius: 50%; color: inherit; }
.bell:hover, .bell[aria-expanded="true"] { background: var(--raised); }
.bell svg { width: 1.375rem; height: 1.375rem; }
.badge {
  position: absolute; inset-block-start: -0.125rem; inset-inline-end: 0; min-width: 1.25rem; padding: 0 0.3125rem;
  border-radius: 0.625rem; background: var(--badge); color: var(--badge-text);
  font-size: 0.75rem; line-height: 1.25rem; font-weight: 600; text-align: center; font-variant-numeric: tabular-nums;
}

.panel {
  position: absolute; inset-block-start: calc(100% + 0.375rem); inset-inline-end: 0; z-index: var(--inbox-z-index, 1000);
  display: flex; flex-direction: column; width: var(--inbox-width, 25rem); max-width: calc(100vw - 1rem);
  min-height: 12rem; max-height: var(--inbox-height, min(36rem, 75dvh)); overflow: hidden;
  background: var(--background); border: 1px solid var(--line); border-radius: var(--inbox-radius, 0.75rem);
  box-shadow: 0 0.75rem 2.5rem rgb(0 0 0 / 0.2);
}
:host([align="start"]) .panel { inset-inline: 0 auto; }
@media (max-width: 480px) {
  .panel, :host([align="start"]) .panel { position: fixed; inset-block-start: auto; inset-inline: 0.5rem; width: auto; margin-block-start: 0.375rem; }
}
.head { display: flex; align-items: center; gap: 0.5rem; min-height: 3.25rem; padding: 0.25rem 1rem; border-block-end: 1px solid var(--line); }
h2 { flex: 1; margin: 0; font: inherit; font-size: 1.0625rem; font-weight: 650; }
.all, .older, .again { padding: 0.375rem 0.625rem; border-radius: 0.5rem; color: var(--accent); font-weight: 550; }
.all { margin-inline-end: -0.625rem; font-size: 0.875rem; }
.all:hover, .older:hover, .again:hover { background: var(--raised); }
.all[aria-disabled="true"] { color: var(--muted); background: none; cursor: default; }
.notice { display: flex; align-items: center; gap: 0.5rem; margin: 0; padding: 0.5rem 1rem; background: var(--raised); border-block-start: 1px solid var(--line); }
.notice span { flex: 1; }
.scroll { flex: 1; display: flex; flex-direction: column; min-height: 0; overflow-y: auto; overscroll-behavior: contain; }
.empty { flex: 1; display: grid; place-items: center; margin: 0; padding: 2rem 1rem; color: var(--muted); }
ul { list-style: none; margin: 0; padding: 0; }
li { position: relative; display: flex; gap: 0.5rem; padding-block: 0.75rem; padding-inline: 1.5rem 0.625rem; }
li + li { border-block-start: 1px solid var(--line); }
li:hover { background: var(--raised); }
li.unread::before { content: ""; position: absolute; inset-inline-start: 0.5625rem; inset-block-start: 1.1875rem; width: 0.5rem; height: 0.5rem; border-radius: 50%; background: var(--accent); }
.text { flex: 1; min-width: 0; overflow-wrap: anywhere; }
.title { display: block; max-width: 100%; width: fit-content; margin-inline-end: auto; border-radius: 0.25rem; text-decoration: none; outline-offset: 1px; }
.title:hover { text-decoration: underline; }
.unread .title { font-weight: 650; }
a.title { color: var(--accent); }
.body { margin: 0.125rem 0 0; color: var(--text); white-space: pre-line; display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: var(--inbox-lines, 4); overflow: hidden; }
.body:empty { display: none; }
.whole .body { display: block; }
.about { display: flex; flex-wrap: wrap; gap: 0 0.75rem; margin: 0.25rem 0 0; color: var(--muted); font-size: 0.8125rem; }
.buttons { display: flex; align-items: start; margin-block-start: -0.25rem; }
.buttons button { display: grid; place-items: center; width: 2rem; height: 2rem; border-radius: 0.5rem; color: var(--muted); }
.read { visibility: hidden; }
.unread .read { visibility: visible; }
.buttons button:hover { background: var(--line); color: var(--text); }
.older { margin: 0.5rem auto; flex: none; }
@media (prefers-reduced-motion: no-preference) {
  .panel { animation: appear 0.12s ease-out; }
  .bell, .buttons button, .all, .older { transition: background-color 0.12s; }
  @keyframes appear { from { opacity: 0; translate: 0 -0.25rem; } }
}
@media (forced-colors: active) {
  .badge { border: 1px solid CanvasText; }
  li.unread::before { background: Highlight; forced-color-adjust: none; }
}
`;

let sheet;

/** One sheet for all inboxes of the page. Adopted, and not a style element: a strict Content-Security-Policy lets it be. */
export const styles = () => {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(CSS);
  }
  return sheet;
};

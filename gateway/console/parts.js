// What every page of the console is put together from: headings, tables, dialogs, states. Asks nothing of the gateway.
import { html, useEffect, useLayoutEffect, useRef, useState } from './lib.js'

const FORMAT = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium', hourCycle: 'h23' })

/** The heading of a page. It is focused when one comes to it, so that a screen reader says where one is. */
export function Heading({ title, children }) {
  const heading = useRef(null)
  useEffect(() => {
    document.title = `${title} – Notification gateway`
    heading.current?.focus({ preventScroll: true })
    scrollTo(0, 0)
  }, [title])
  return html`<header class="heading"><h1 ref=${heading} tabindex="-1">${title}</h1><div class="actions">${children}</div></header>`
}

/** An instant, in the reader's time. */
export function When({ at, none = '–' }) {
  return at ? html`<time datetime=${at}>${FORMAT.format(new Date(at))}</time>` : none
}

export function Id({ children }) {
  return children ? html`<code>${children}</code>` : '–'
}

/** An address of the network: an old one is short and stays on its line. */
export function Address({ of }) {
  return of ? html`<span class=${of.length > 15 ? '' : 'whole'}>${of}</span>` : '–'
}

export function Failure({ problem, again }) {
  if (!problem) return null
  return html`<div class="failure" role="alert">
    <span>${problem.message}${problem.fields?.map((field) => ` ${field.pointer.replace(/^\//, '') || 'It'}: ${field.detail}.`)}</span>
    ${again && html`<button type="button" onClick=${again}>Try again</button>`}
  </div>`
}

/** `columns`: {title, of: row → content, wide?}. `list`: what `useList` returns. Rows stay while they are loaded anew. */
export function Table({ caption, columns, list, keyOf, empty, actions }) {
  const { items, problem, loading, more, reload } = list
  const titles = [...columns.map((column) => column.title), ...(actions ? ['Actions'] : [])]
  return html`<div class="listing" aria-busy=${loading ? 'true' : 'false'}>
    <${Failure} problem=${problem} again=${reload} />
    ${items === null && !problem && html`<p class="blank">Loading…</p>`}
    ${items?.length === 0 && html`<p class="blank">${empty}</p>`}
    ${items?.length > 0 &&
    html`<table role="table">
      <caption class="unseen">${caption}</caption>
      <thead role="rowgroup"><tr role="row">${titles.map((title) => html`<th key=${title} role="columnheader" scope="col">${title}</th>`)}</tr></thead>
      <tbody role="rowgroup">
        ${items.map(
          (row) => html`<tr role="row" key=${keyOf(row)}>
            ${columns.map((column) => html`<td key=${column.title} role="cell" data-title=${column.title}><div>${column.of(row)}</div></td>`)}
            ${actions && html`<td role="cell" class="doing" data-title="Actions"><div class="actions">${actions(row)}</div></td>`}
          </tr>`,
        )}
      </tbody>
    </table>`}
    ${more && html`<button type="button" class="more" disabled=${loading} onClick=${more}>Show more</button>`}
  </div>`
}

/** A label, its field, and what is said about it. `value`: what stands there until something is typed, or another one is
 *  given. `field`: the attributes of the input. */
export function Field({ label, hint, area, options, value, ...attributes }) {
  const [typed, setTyped] = useState(value)
  useLayoutEffect(() => setTyped(value), [value])
  // What was typed is given back at each rendering: the page is rendered anew while one types.
  const field = { ...attributes, ...(typed !== undefined && { value: typed }), onInput: (event) => setTyped(event.target.value) }
  const id = `field-${field.name}`
  const told = hint ? { 'aria-describedby': `${id}-hint` } : {}
  const input = area
    ? html`<textarea id=${id} rows="3" ...${told} ...${field}></textarea>`
    : options
      ? html`<select id=${id} ...${told} ...${field}>${options.map((one) => html`<option key=${one} value=${one}>${one}</option>`)}</select>`
      : html`<input id=${id} type="text" autocomplete="off" ...${told} ...${field} />`
  return html`<div class="field"><label for=${id}>${label}</label>${input}${hint && html`<p class="hint" id=${`${id}-hint`}>${hint}</p>`}</div>`
}

/** A form: `submit` gets its values and may throw a Problem, which is shown. */
export function Form({ submit, action, children, danger, quiet, cancel }) {
  const [problem, setProblem] = useState(null)
  const [busy, setBusy] = useState(false)
  const alive = useRef(true)
  useEffect(() => () => void (alive.current = false), [])
  const send = async (event) => {
    event.preventDefault()
    if (busy) return
    const form = event.currentTarget
    setBusy(true)
    setProblem(null)
    try {
      await submit(Object.fromEntries(new FormData(form)), form)
    } catch (found) {
      if (alive.current) setProblem(found)
    }
    if (alive.current) setBusy(false)
  }
  return html`<form onSubmit=${send} aria-busy=${busy ? 'true' : 'false'}>
    ${children}
    <${Failure} problem=${problem} />
    <div class="actions">
      <button type="submit" class=${danger ? 'danger' : quiet ? '' : 'main'} disabled=${busy}>${action}</button>
      ${cancel && html`<button type="button" onClick=${cancel}>Cancel</button>`}
    </div>
  </form>`
}

/** Over the page: the browser keeps the focus inside, Escape closes, and the focus goes back to where it came from. */
export function Dialog({ title, close, children }) {
  const dialog = useRef(null)
  const shown = useRef(true)
  useLayoutEffect(() => {
    const before = document.activeElement
    const element = dialog.current
    element.showModal()
    return () => {
      shown.current = false // its close event comes later, and may not close the dialog that took its place
      element.close()
      before?.focus?.()
    }
  }, [])
  const closed = () => shown.current && close()
  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onClose=${closed}>
    <h2 id="dialog-title">${title}</h2>
    ${children}
  </dialog>`
}

/** Asks before something ends. `fields` stand between the text and the buttons. */
export function Confirm({ title, text, action, run, close, fields }) {
  return html`<${Dialog} title=${title} close=${close}>
    <p>${text}</p>
    <${Form} action=${action} danger cancel=${close} submit=${async (values) => { await run(values); close() }}>${fields}<//>
  <//>`
}

let tell = () => {}

/** Say that something was done: seen for some seconds, and read out. */
export function announce(text) {
  tell({ text })
}

export function Announcements() {
  const [said, setSaid] = useState(null)
  tell = setSaid
  useEffect(() => {
    if (!said) return
    const timer = setTimeout(() => setSaid(null), 6000)
    return () => clearTimeout(timer)
  }, [said])
  return html`<div class="announcements" role="status">${said && html`<p>${said.text}</p>`}</div>`
}

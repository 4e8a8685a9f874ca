// Sending a notification, and what becomes of it: its receipt, asked for again while one looks.
import { call } from './api.js'
import { html, useState } from './lib.js'
import { useEvery } from './loading.js'
import { announce, Confirm, Failure, Field, Form, Heading, Id, When } from './parts.js'

const EVERY = 1000 // milliseconds between two looks at the receipt
const OVER = ['withdrawn', 'expired']

export function Send({ query }) {
  const [watched, setWatched] = useState(query.watch ?? null)
  const send = async ({ to, title, body, category, priority, data }) => {
    let members = {}
    try {
      members = data.trim() ? JSON.parse(data) : {}
    } catch {
      throw Object.assign(new Error('Data is not JSON.'), { fields: [] })
    }
    const stored = await call('POST', '/notifications', { user_id: to, title, body, data: members, priority, ...(category && { category }) })
    announce(stored.online ? 'Stored, and on its way to a device that is connected.' : 'Stored. The user has no device connected now.')
    setWatched(stored.id)
  }
  return html`<${Heading} title="Send a notification" />
    <div class="columns">
      <section class="card" aria-label="The notification">
        <${Form} action="Send" submit=${send}>
          <${Field} label="To the user" name="to" value=${query.to ?? ''} maxlength="64" required hint="An id, as your back end would name it." />
          <${Field} label="Title" name="title" maxlength="200" required />
          <${Field} label="Text" name="body" area maxlength="4000" />
          <${Field} label="Category" name="category" maxlength="64" />
          <${Field} label="Priority" name="priority" options=${['normal', 'low', 'high']} />
          <${Field} label="Data" name="data" area spellcheck=${false} hint=${'A JSON object, such as {"order": 1234}.'} />
        <//>
      </section>
      <section class="card receipt" aria-labelledby="receipt">
        <h2 id="receipt">What becomes of it</h2>
        <${Form} action="Watch" quiet submit=${async ({ watch }) => setWatched(watch.trim())}>
          <${Field} label="Notification" name="watch" value=${watched ?? ''} maxlength="64" required hint="Send one, or give the id of one that was sent." />
        <//>
        ${watched ? html`<${Timeline} key=${watched} id=${watched} />` : html`<p class="blank">Nothing is watched yet.</p>`}
      </section>
    </div>`
}

function Timeline({ id }) {
  const [receipt, setReceipt] = useState(null)
  const [problem, setProblem] = useState(null)
  const [asking, setAsking] = useState(false)
  const look = async (over = () => false) => {
    if (receipt && OVER.includes(receipt.state)) return
    try {
      const found = await call('GET', `/notifications/${encodeURIComponent(id)}`)
      if (over()) return
      setReceipt(found)
      setProblem(null)
    } catch (found) {
      if (!over()) setProblem(found)
    }
  }
  useEvery(EVERY, look, id)
  if (!receipt) return html`<${Failure} problem=${problem} />${!problem && html`<p class="blank">Looking…</p>`}`
  const { state, created_at, acknowledged_at, read_at, expires_at, user_id, seq } = receipt
  const over = OVER.includes(state)
  const steps = [
    { name: 'Stored', told: 'In the inbox, on disk.', done: true, at: created_at },
    { name: 'Acknowledged', told: acknowledged_at ? 'A device has it.' : 'No device has said that it has it.', done: acknowledged_at, at: acknowledged_at },
    { name: 'Read', told: read_at ? 'The user has read it.' : 'Not read.', done: read_at, at: read_at },
    state === 'withdrawn'
      ? { name: 'Withdrawn', told: 'Taken back: it left the inbox.', ended: true }
      : { name: state === 'expired' ? 'Expired' : 'Expires', told: state === 'expired' ? 'It left the inbox.' : 'Then it leaves the inbox.', ended: over, at: expires_at },
  ]
  return html`<${Failure} problem=${problem} />
    <dl class="facts"><dt>State</dt><dd role="status"><span class=${`tag ${over ? 'bad' : state === 'stored' ? '' : 'good'}`}>${state}</span></dd>
      <dt>Id</dt><dd><${Id}>${id}<//></dd><dt>User</dt><dd><a href=${`#/users/${encodeURIComponent(user_id)}`}><${Id}>${user_id}<//></a></dd><dt>Position</dt><dd>${seq ?? '–'}</dd></dl>
    <ol class="timeline">
      ${steps.map(({ name, told, done, ended, at }) => html`<li key=${name} class=${ended ? 'ended' : done ? 'done' : ''}>
        <div><strong>${name}</strong> ${at && html`<${When} at=${at} />`}<p class="hint">${told}</p></div></li>`)}
    </ol>
    ${!over && html`<div class="actions"><button type="button" onClick=${() => setAsking(true)}>Withdraw…</button></div>`}
    ${asking && html`<${Confirm} title="Withdraw the notification" text="It leaves the inbox, and devices that show it hear that it did." action="Withdraw" close=${() => setAsking(false)}
      run=${async () => { await call('DELETE', `/notifications/${encodeURIComponent(id)}`); announce('The notification was withdrawn.'); await look() }} />`}`
}

// Users: finding, making and changing them, and one user with everything that is theirs.
import { call } from './api.js'
import { html, useState } from './lib.js'
import { useList, useOne } from './loading.js'
import { announce, Confirm, Dialog, Failure, Field, Form, Heading, Id, Table, When } from './parts.js'
import { ConnectionTable, SessionTable } from './sessions.js'

const addressOf = (user) => `/admin/users/${encodeURIComponent(user.id)}`
export const toUser = (id) => html`<a href=${`#/users/${encodeURIComponent(id)}`}><${Id}>${id}<//></a>`

export function Users({ id, me }) {
  return id === undefined ? html`<${All} />` : html`<${One} id=${id} me=${me} />`
}

const State = ({ user }) => (user.disabled ? html`<span class="tag bad">disabled</span>` : html`<span class="tag good">active</span>`)

function All() {
  const [query, setQuery] = useState('')
  const [creating, setCreating] = useState(false)
  const list = useList('/admin/users', { query })
  const columns = [
    { title: 'User name', of: (user) => html`<a href=${`#/users/${encodeURIComponent(user.id)}`}>${user.username}</a>` },
    { title: 'Id', of: (user) => html`<${Id}>${user.id}<//>` },
    { title: 'Role', of: (user) => user.role },
    { title: 'State', of: (user) => html`<${State} user=${user} />` },
    { title: 'Created', of: (user) => html`<${When} at=${user.created_at} />` },
  ]
  return html`<${Heading} title="Users"><button type="button" class="main" onClick=${() => setCreating(true)}>Create a user</button><//>
    <form class="search" role="search" onSubmit=${(event) => { event.preventDefault(); setQuery(event.currentTarget.elements.query.value.trim()) }}>
      <${Field} label="Search" name="query" type="search" maxlength="64" hint="Part of a user name or an id." />
      <button type="submit">Search</button>
    </form>
    <${Table} caption="Users" columns=${columns} list=${list} keyOf=${(user) => user.id} empty=${query ? `Nobody is called “${query}”.` : 'There are no users yet.'} />
    ${creating && html`<${Create} close=${() => setCreating(false)} done=${list.reload} />`}`
}

function Create({ close, done }) {
  const submit = async ({ username, password, id, role }) => {
    const user = await call('POST', '/admin/users', { username, password, role, ...(id && { id }) })
    announce(`${user.username} was created.`)
    close()
    done()
  }
  return html`<${Dialog} title="Create a user" close=${close}>
    <${Form} action="Create" cancel=${close} submit=${submit}>
      <${Field} label="User name" name="username" maxlength="64" autocapitalize="none" spellcheck=${false} required />
      <${Field} label="Password" name="password" type="password" autocomplete="new-password" required />
      <${Field} label="Id" name="id" maxlength="64" hint="That by which your back end knows the user. Made up if you leave it empty." />
      <${Field} label="Role" name="role" options=${['user', 'admin']} />
    <//>
  <//>`
}

function One({ id, me }) {
  const { data: user, problem, reload } = useOne(`/admin/users/${encodeURIComponent(id)}`)
  const [asking, setAsking] = useState(null)
  const [turn, setTurn] = useState(0)
  const close = () => setAsking(null)
  const after = (text) => {
    announce(text)
    reload()
    setTurn(turn + 1)
  }
  if (!user) return html`<${Heading} title="User" /><${Failure} problem=${problem} again=${reload} />`
  const mine = user.id === me.id ? ' This is you: you will be signed out.' : ''
  const change = (body, text) => async () => {
    await call('PATCH', addressOf(user), body)
    after(text)
  }
  return html`<${Heading} title=${user.username}><a class="button" href=${`#/send?to=${encodeURIComponent(user.id)}`}>Send a notification</a><//>
    <${Failure} problem=${problem} again=${reload} />
    <section class="card" aria-label="The user">
      <dl class="facts">
        <dt>Id</dt><dd><${Id}>${user.id}<//></dd>
        <dt>Role</dt><dd>${user.role}</dd>
        <dt>State</dt><dd><${State} user=${user} /></dd>
        <dt>Created</dt><dd><${When} at=${user.created_at} /></dd>
      </dl>
      <div class="actions">
        <button type="button" onClick=${() => setAsking('password')}>Reset password…</button>
        ${user.disabled
          ? html`<button type="button" onClick=${() => change({ disabled: false }, `${user.username} may sign in again.`)().catch((found) => announce(found.message))}>Enable</button>`
          : html`<button type="button" onClick=${() => setAsking('disable')}>Disable…</button>`}
        <button type="button" onClick=${() => setAsking('role')}>${user.role === 'admin' ? 'Make a user…' : 'Make an admin…'}</button>
        <button type="button" onClick=${() => setAsking('revoke')}>Revoke all sessions…</button>
        <button type="button" onClick=${() => setAsking('delete')}>Delete…</button>
      </div>
    </section>
    <h2>Sessions</h2><${SessionTable} key=${`s${turn}`} userId=${user.id} />
    <h2>Connections</h2><${ConnectionTable} key=${`c${turn}`} userId=${user.id} />
    ${asking === 'password' &&
    html`<${Confirm} title=${`Reset the password of ${user.username}`} text=${`Every session of the user ends.${mine}`} action="Reset password" close=${close}
      fields=${html`<${Field} label="New password" name="password" type="password" autocomplete="new-password" required />`}
      run=${async ({ password }) => { await call('PUT', `${addressOf(user)}/password`, { password }); after('The password was reset.') }} />`}
    ${asking === 'disable' &&
    html`<${Confirm} title=${`Disable ${user.username}`} text=${`Every session of the user ends, and no new one begins until the user is enabled again.${mine}`} action="Disable" close=${close}
      run=${change({ disabled: true }, `${user.username} is disabled.`)} />`}
    ${asking === 'role' &&
    html`<${Confirm} title=${`Change the role of ${user.username}`} text=${`From ${user.role} to ${user.role === 'admin' ? 'user' : 'admin'}. Every session of the user ends.${mine}`} action="Change the role" close=${close}
      run=${change({ role: user.role === 'admin' ? 'user' : 'admin' }, 'The role was changed.')} />`}
    ${asking === 'revoke' &&
    html`<${Confirm} title=${`Revoke all sessions of ${user.username}`} text=${`Everything that is signed in now ends; the user may sign in again.${mine}`} action="Revoke" close=${close}
      fields=${html`<${Field} label="Reason" name="reason" maxlength="500" hint="Stands in the audit." />`}
      run=${async ({ reason }) => { await call('POST', '/admin/revocations', { user_id: user.id, ...(reason && { reason }) }); after('The sessions were revoked.') }} />`}
    ${asking === 'delete' &&
    html`<${Confirm} title=${`Delete ${user.username}`} text=${`The sessions end, and the inbox goes for good. The id is never given again.${mine}`} action="Delete" close=${close}
      run=${async () => { await call('DELETE', addressOf(user)); announce(`${user.username} was deleted.`); location.hash = '#/users' }} />`}`
}

// Clients, the services that push: making them, their secrets (shown once), revoking and deleting.
import { call } from './api.js'
import { html, useState } from './lib.js'
import { useList } from './loading.js'
import { announce, Confirm, Dialog, Field, Form, Heading, Id, Table, When } from './parts.js'

export function Clients() {
  const list = useList('/admin/clients')
  const [asking, setAsking] = useState(null)
  const close = () => setAsking(null)
  const columns = [
    { title: 'Name', of: (client) => client.name },
    { title: 'Client id', of: (client) => html`<${Id}>${client.client_id}<//>` },
    { title: 'Scopes', of: (client) => html`<span class="whole">${client.scopes.join(' ')}</span>` },
    { title: 'Created', of: (client) => html`<${When} at=${client.created_at} />` },
    { title: 'Secret rotated', of: (client) => html`<${When} at=${client.rotated_at} none="never" />` },
  ]
  const address = (client) => `/admin/clients/${encodeURIComponent(client.client_id)}`
  const ask = (what, client) => () => setAsking({ what, client })
  const { what, client, made } = asking ?? {}
  const shown = (given) => {
    setAsking({ what: 'secret', made: given })
    list.reload()
  }
  return html`<${Heading} title="Clients"><button type="button" class="main" onClick=${ask('create')}>Create a client</button><//>
    <${Table} caption="Clients" columns=${columns} list=${list} keyOf=${(one) => one.client_id} empty="No service may push yet. Create a client for each."
      actions=${(one) => html`<button type="button" onClick=${ask('rotate', one)}>Rotate…</button>
        <button type="button" onClick=${ask('revoke', one)}>Revoke…</button>
        <button type="button" onClick=${ask('delete', one)}>Delete…</button>`} />
    ${what === 'create' &&
    html`<${Dialog} title="Create a client" close=${close}>
      <${Form} action="Create" cancel=${close} submit=${async ({ name }) => shown(await call('POST', '/admin/clients', { name }))}>
        <${Field} label="Name" name="name" maxlength="100" required hint="Of the service that will push." />
      <//>
    <//>`}
    ${what === 'rotate' &&
    html`<${Dialog} title=${`Rotate the secret of ${client.name}`} close=${close}>
      <p>The old secret is dead at once. Tokens that were got with it live on until they expire, unless you revoke them.</p>
      <${Form} action="Rotate" danger cancel=${close} submit=${async () => shown(await call('POST', `${address(client)}/rotate`))} />
    <//>`}
    ${what === 'secret' && html`<${Secret} key="secret" made=${made} close=${close} />`}
    ${what === 'revoke' &&
    html`<${Confirm} title=${`Revoke the tokens of ${client.name}`} text="Every token issued to it up to now dies. To keep it out, rotate its secret too, or delete it." action="Revoke" close=${close}
      fields=${html`<${Field} label="Reason" name="reason" maxlength="500" hint="Stands in the list of revocations and in the audit." />`}
      run=${async ({ reason }) => { await call('POST', '/admin/revocations', { client_id: client.client_id, ...(reason && { reason }) }); announce('The tokens were revoked.') }} />`}
    ${what === 'delete' &&
    html`<${Confirm} title=${`Delete ${client.name}`} text="Its tokens die with it. What it has sent stays in the inboxes." action="Delete" close=${close}
      run=${async () => { await call('DELETE', address(client)); announce(`${client.name} was deleted.`); list.reload() }} />`}`
}

function Secret({ made, close }) {
  const [said, setSaid] = useState('It is shown this once. Keep it where the service reads its secrets.')
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(made.client_secret)
      setSaid('It was copied. It is shown this once.')
    } catch {
      setSaid('The browser does not let it be copied: select it by hand. It is shown this once.')
    }
  }
  return html`<${Dialog} title=${`The secret of ${made.name}`} close=${close}>
    <p role="status">${said}</p>
    <dl class="facts"><dt>Client id</dt><dd><${Id}>${made.client_id}<//></dd></dl>
    <p><code class="secret">${made.client_secret}</code></p>
    <div class="actions"><button type="button" class="main" onClick=${copy}>Copy the secret</button><button type="button" onClick=${close}>Done</button></div>
  <//>`
}

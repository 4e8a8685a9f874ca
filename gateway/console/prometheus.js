// Numbers out of the Prometheus text format: what several workers tell is summed. Knows no page.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)/
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g

/** {sums: name → number, buckets: name → Map(le → count), nodes: [name]} */
export function parse(text) {
  const sums = {}
  const buckets = {}
  const nodes = []
  for (const line of text.split('\n')) {
    const found = LINE.exec(line)
    if (!found) continue
    const [, name, labels = '', written] = found
    const value = Number(written)
    if (name === 'gateway_node_info') nodes.push(label(labels, 'node'))
    if (name.endsWith('_bucket')) {
      const le = Number(label(labels, 'le').replace('+Inf', 'Infinity'))
      const map = (buckets[name.slice(0, -7)] ??= new Map())
      map.set(le, (map.get(le) ?? 0) + value)
    } else {
      sums[name] = (sums[name] ?? 0) + value
    }
  }
  return { sums, buckets, nodes: nodes.sort() }
}

function label(labels, wanted) {
  for (const [, name, value] of labels.matchAll(LABEL)) if (name === wanted) return value
  return ''
}

/** The share `q` of what was counted between two readings of a histogram lies at or below this; null if nothing was. */
export function quantile(q, before, after) {
  if (!after) return null
  const bounds = [...after.keys()].sort((a, b) => a - b)
  const counts = bounds.map((le) => after.get(le) - (before?.get(le) ?? 0))
  const all = counts.at(-1)
  if (!(all > 0)) return null
  const at = counts.findIndex((count) => count >= q * all)
  const [low, under] = at ? [bounds[at - 1], counts[at - 1]] : [0, 0]
  if (bounds[at] === Infinity) return low
  return low + ((bounds[at] - low) * (q * all - under)) / (counts[at] - under)
}

/** How much a counter grew per second; null if it began anew, as that of a node that was started again. */
export function rate(before, after, seconds) {
  return after < before || !(seconds > 0) ? null : (after - before) / seconds
}

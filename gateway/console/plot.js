// One live plot: a canvas by uPlot, and beside it in words what it shows now. Collects nothing.
import { html, useEffect, useLayoutEffect, useRef, useState } from './lib.js'
import uPlot from './vendor/uplot-1.6.32/uPlot.esm.js'

const HEIGHT = 190
const DARK = matchMedia('(prefers-color-scheme: dark)')
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

/** `series`: {label, values, ink} with `ink` 1 to 3; `times` in seconds; `show` writes a value. */
export function Plot({ title, times, series, show, hint }) {
  const place = useRef(null)
  const plot = useRef(null)
  const [at, setAt] = useState(null)
  const [dark, setDark] = useState(DARK.matches)
  useEffect(() => {
    const changed = () => setDark(DARK.matches)
    DARK.addEventListener('change', changed)
    return () => DARK.removeEventListener('change', changed)
  }, [])
  useLayoutEffect(() => {
    const axis = { stroke: colour('--dim'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false }, font: '12px system-ui' }
    const made = new uPlot(
      {
        width: place.current.clientWidth,
        height: HEIGHT,
        padding: [10, 32, 0, 0],
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false }, sync: { key: 'overview' } },
        scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } },
        axes: [
          { ...axis, space: 90, size: 28, values: (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toLocaleTimeString([], { timeStyle: 'medium', hourCycle: 'h23' })) },
          { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => show(tick)) },
        ],
        series: [{}, ...series.map(({ label, ink }) => ({ label, stroke: colour(`--ink-${ink}`), width: 2, points: { show: false }, spanGaps: true }))],
        hooks: { setCursor: [(self) => setAt(self.cursor.idx ?? null)] },
      },
      [times, ...series.map(({ values }) => values)],
      place.current,
    )
    plot.current = made
    const watching = new ResizeObserver(() => made.setSize({ width: place.current.clientWidth, height: HEIGHT }))
    watching.observe(place.current)
    return () => {
      watching.disconnect()
      made.destroy()
    }
  }, [dark])
  useEffect(() => plot.current.setData([times, ...series.map(({ values }) => values)]), [times])
  const read = (values) => (at === null ? latest(values) : values[at])
  return html`<figure class="plot">
    <figcaption>
      <h2>${title}</h2>
      <p class="hint">${hint}</p>
      <ul class="legend">
        ${series.map(({ label, values, ink }) => {
          const value = read(values)
          return html`<li key=${label}><span class=${`ink ink-${ink}`}></span>${label} <strong>${value == null ? '–' : show(value)}</strong></li>`
        })}
      </ul>
    </figcaption>
    <div class="canvas" ref=${place} aria-hidden="true"></div>
  </figure>`
}

const latest = (values) => values.findLast((value) => value != null)

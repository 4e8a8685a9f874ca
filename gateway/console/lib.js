// The one place that names Preact and htm. `html` makes elements of templates; what stands in them is text, never markup.
import { h, render } from './vendor/preact-11.2.0/preact.mjs'
import htm from './vendor/htm-3.1.1/htm.mjs'

export { render }
export { useEffect, useLayoutEffect, useRef, useState } from './vendor/preact-11.2.0/hooks.mjs'
export const html = htm.bind(h)

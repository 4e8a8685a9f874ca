"use strict";

window.ui = SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href, // beside this page, whatever a proxy puts in front of both
  dom_id: "#swagger-ui",
  deepLinking: true,
  layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis],
  validatorUrl: null, // by default the document is sent to a service that checks it
});

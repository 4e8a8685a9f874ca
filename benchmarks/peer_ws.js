// Node's `ws` as a peer for sockets alone: takes every upgrade, checks no token; what is posted goes to all as it is.
// Not part of the gateway. node peer_ws.js PORT
const http = require('http');
const { WebSocket, WebSocketServer } = require('ws');
const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const text = Buffer.concat(parts);
    if (text.length) for (const one of sockets.clients) if (one.readyState === WebSocket.OPEN) one.send(text, { binary: false });
    response.end('ready');
  });
});
const sockets = new WebSocketServer({ server, perMessageDeflate: false });
server.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 });

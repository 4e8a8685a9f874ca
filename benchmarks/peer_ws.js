// Node's `ws` as a peer for sockets alone: takes every upgrade, checks no token. Not part of the gateway.
// node peer_ws.js PORT
const http = require('http');
const { WebSocketServer } = require('ws');
const server = http.createServer((request, response) => response.end('ready'));
new WebSocketServer({ server, perMessageDeflate: false });
server.listen(Number(process.argv[2]), '127.0.0.1');
